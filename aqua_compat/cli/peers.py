"""`aqua-registry peers`: prints how a node is, and which members it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import json_line, moment
from aqua_compat.cli.session import CommandSession
from aqua_compat.cli.through_node import peers_path

_PRODUCT: Final = "aqua-registry/"

Status = Mapping[str, Any]
"""A NodeStatus in its JSON shape."""

_WRONG: Final = {
    "off": ": set it; this node signs nothing new, and its answers don't count",
    "suspect": ", too few to tell whose is right",
}
"""What is said of a clock's standing."""


@click.command(short_help="Print the members of the network that a node knows.")
@click.argument("resource", required=False)
@json_option
@network_options()
def peers(session: CommandSession, resource: str | None, as_json: bool) -> None:
    """Print how the node is and the members that it is linked to.

    With RESOURCE, an id or a name such as web@acme: print the members that are responsible for it, nearest first.
    """
    if (node := session.node()) is not None:
        asked = None if resource is None else session.name_for_node(resource)
        _print(node.get(*peers_path(asked)).result, as_json=as_json)
        return
    if resource is not None:
        resource_id = session.resource_id(resource)
        found = session.run(lambda client: client.registry.neighbours(resource_id))
        _print(list(found), as_json=as_json)
        return
    from aqua_compat.schema.json_codec import to_json  # noqa: PLC0415 - `--help` is to answer at once

    _print(to_json(session.run(lambda client: client.registry.status(timeout=session.timeout))), as_json=as_json)


def _print(shown: Any, *, as_json: bool) -> None:
    """A node's status, or a list of peers, in their JSON shapes."""
    if as_json:
        click.echo(json_line(shown))
        return
    for line in _lines(shown) if isinstance(shown, dict) else shown:
        click.echo(line)


def _lines(status: Status) -> list[str]:
    lines = [
        f"node     {status['peer_id']} ({'ready' if status['ready'] else 'not connected'})",
        *(f"version {_version(own)}" for own in [status.get("versions", {}).get(status["peer_id"])] if own),
        f"stored   {status['keys']} resources, {status['records']} records, {status['tombstones']} tombstones",
        *_health(status),
        *_upkeep(status),
    ]
    if status["particles"] is not None:
        counts = ", ".join(f"{one_line(name)} {value:g}" for name, value in status["particles"].items())
        lines.append(f"aqua     {counts}")
    lines += [f"address  {one_line(address)}" for address in status["addresses"]]
    versions = status.get("versions", {})  # an older node tells none
    return [
        *lines,
        *(f"member   {one_line(peer_id)}{_version(versions.get(peer_id))}" for peer_id in status["members"]),
    ]


def _version(version: Mapping[str, str] | None) -> str:
    """Short, so that a line has at most 80 characters."""
    if version is None:
        return ""
    release = one_line(version["product"].removeprefix(_PRODUCT) or "older")
    return f" {release} protocol {one_line(version['protocol'])}"


def _health(status: Status) -> list[str]:
    """What may be wrong with its machine, in lines."""
    lines: list[str] = []
    if (network := status["network"]) is not None:
        ends = "has no certificate" if network["ends_at"] is None else f"until {moment(network['ends_at'])}"
        lines.append(f"network  private, {ends}; {network['revoked']} revoked, {network['refused']} refused")
    if (clock := status["clock"]) is not None and clock["standing"] in _WRONG:
        how = f"{abs(clock['ahead']):,.0f} s {'ahead of' if clock['ahead'] > 0 else 'behind'}"
        peers = f"{clock['opinions']} {'peer' if clock['opinions'] == 1 else 'peers'}'"
        lines.append(f"clock    {how} {peers}{_WRONG[clock['standing']]}")
    if (disk := status["disk"]) is not None:
        full = ", full: nothing new of strangers is stored" if disk["is_full"] else ""
        rotten = f", {disk['damaged']} damaged rows dropped: check the disk" if disk["damaged"] else ""
        lines.append(f"disk     {disk['used']} of {disk['budget']} bytes{full}{rotten}")
    if (overlay := status["overlay"]) is not None:
        worst, usual = (overlay[name] * 1000 for name in ("loop_lag_max", "loop_lag_p99"))
        lines.append(f"loop     late by {worst:,.0f} ms at worst in the last minute, mostly below {usual:,.0f} ms")
    if status["lacking"]:
        causes = ", ".join(f"{count} ({one_line(cause)})" for cause, count in status["lacking"].items())
        lines.append(f"lacking  resources of which others may have more: {causes}")
    return lines


def _upkeep(status: Status) -> list[str]:
    """How replication goes and what the schedules did last, in lines."""
    lines: list[str] = []
    if (replication := status["replication"]) is not None:
        now = "settled" if replication["settled"] else f"{replication['pending']} comparisons due"
        lines.append(f"copies   {now}; repaired {replication['repaired']} since its start")
    for schedule in status["schedules"]:
        last = (
            f"last {moment(schedule['last_run'])}: {one_line(schedule['did'])}" if schedule["runs"] else "not run yet"
        )
        lines.append(f"schedule {one_line(schedule['name'])}, {last}")
    return lines
