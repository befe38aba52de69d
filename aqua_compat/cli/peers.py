"""`aqua-registry peers`: prints how a node is, and which members it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.output import moment, print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options

if TYPE_CHECKING:
    from registry.client.node_status import NodeStatus


@click.command(short_help="Print the members of the network that a node knows.")
@click.argument("resource", required=False)
@json_option
@network_options()
def peers(session: CommandSession, resource: str | None, as_json: bool) -> None:
    """Print how the node is and the members that it is linked to.

    With RESOURCE, an id or a name such as web@acme: print the members that are responsible for it, nearest first.
    """
    if resource is not None:
        resource_id = session.resource_id(resource)
        found = session.run(lambda client: client.registry.neighbours(resource_id))
        if as_json:
            print_json(list(found))
        else:
            for peer_id in found:
                click.echo(peer_id)
        return
    status = session.run(lambda client: client.registry.status(timeout=session.timeout))
    if as_json:
        print_json(status)
        return
    click.echo(f"node     {status.peer_id} ({'ready' if status.ready else 'not connected'})")
    click.echo(f"stored   {status.keys} resources, {status.records} records, {status.tombstones} tombstones")
    for line in (*_health(status), *_upkeep(status)):
        click.echo(line)
    if status.particles is not None:
        counts = ", ".join(f"{one_line(name)} {value:g}" for name, value in status.particles.items())
        click.echo(f"aqua     {counts}")
    for address in status.addresses:
        click.echo(f"address  {one_line(address)}")
    for peer_id in status.members:
        click.echo(f"member   {one_line(peer_id)}")


def _health(status: NodeStatus) -> list[str]:
    """What may be wrong with its machine, in lines."""
    lines: list[str] = []
    if status.network is not None:
        ends = "has no certificate" if status.network.ends_at is None else f"until {moment(status.network.ends_at)}"
        counts = f"{status.network.revoked} revoked, {status.network.refused} refused"
        lines.append(f"network  private, {ends}; {counts}")
    if status.clock is not None and status.clock.is_off:
        lines.append(f"clock    {status.clock}: set it; this node signs nothing new, and its answers don't count")
    if status.clock is not None and status.clock.is_suspect:
        lines.append(f"clock    {status.clock}, too few to tell whose is right")
    if status.disk is not None:
        full = ", full: nothing new of strangers is stored" if status.disk.is_full else ""
        rotten = f", {status.disk.damaged} damaged rows dropped: check the disk" if status.disk.damaged else ""
        lines.append(f"disk     {status.disk.used} of {status.disk.budget} bytes{full}{rotten}")
    if status.lacking:
        causes = ", ".join(f"{count} ({one_line(cause)})" for cause, count in status.lacking.items())
        lines.append(f"lacking  resources of which others may have more: {causes}")
    return lines


def _upkeep(status: NodeStatus) -> list[str]:
    """How replication goes and what the schedules did last, in lines."""
    lines: list[str] = []
    if status.replication is not None:
        now = "settled" if status.replication.settled else f"{status.replication.pending} comparisons due"
        lines.append(f"copies   {now}; repaired {status.replication.repaired} since its start")
    for schedule in status.schedules:
        last = f"last {moment(schedule.last_run)}: {one_line(schedule.did)}" if schedule.runs else "not run yet"
        lines.append(f"schedule {one_line(schedule.name)}, {last}")
    return lines
