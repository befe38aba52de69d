"""What commands do through the node on this machine, and what they print of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.node_socket import AS_NODE
from aqua_compat.cli.output import describe_health, describe_json, json_line, moment, print_lines, print_resolved
from aqua_compat.cli.session import warn

if TYPE_CHECKING:
    from aqua_compat.cli.node_socket import NodeAnswer, NodeSocket
    from registry.model.trusted_issuers import Trusted


def print_records_of(
    node: NodeSocket,
    resource: str,
    ack: int,
    *,
    reachable: bool,
    everything: bool,
    near: bool,
    tags: tuple[str, ...],
    metadata: tuple[str, ...],
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """The live records of a resource; see `aqua-registry resolve`."""
    flags = {name: "true" for name, given in (("reachable", reachable), ("all", everything), ("near", near)) if given}
    asked = {"ack": ack, **flags, "tag": tags, "meta": metadata, **_trust(trusted)}
    answer = node.get("resources", resource, "records", **asked)
    warn(answer.warnings)
    if as_json:
        click.echo(json_line(answer.result))
    else:
        print_resolved(answer.result, reachable=reachable, is_chosen=bool(tags or metadata), is_sorted=near)


def print_events_of(
    node: NodeSocket,
    resource: str,
    shown: str,
    count: int | None,
    *,
    everything: bool,
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """The live records of a resource, then each change, until Ctrl-C or `count` events. `shown`: as its user calls
    it; `everything`: those, too, that are down or don't pass."""
    asked = {**({"all": "true"} if everything else {}), **_trust(trusted)}
    try:
        for number, answer in enumerate(node.events("resources", resource, "watch", **asked), 1):
            if as_json:
                click.echo(json_line(answer.result))
            else:
                print_lines(event_lines(answer.result))
            if number == 1 and not answer.exists:
                click.echo(f"note: no resource {one_line(shown)} is known yet; watching for it", err=True)
            if number == count:
                return
    except KeyboardInterrupt:
        pass  # that is how it is ended


def event_lines(event: Mapping[str, Any]) -> str:
    """For people: the time here, what happened, and the record on one line; of a snapshot a line per record."""
    began = f"{datetime.now().astimezone().strftime('%H:%M:%S')}  {event['event']:8}"
    if "record" in event:
        missed = f"  (after {event['coalesced']} more changes)" if event["coalesced"] else ""
        reason = f"  ({event['reason']})" if event.get("reason") else ""
        state = _state_of(event, is_news=event["event"] == "health")
        return f"{began}  {describe_json(event['record'])}{state}{reason}{missed}"
    if not event["records"]:
        return f"{began}  no services"
    return "\n".join(f"{began}  {describe_json(record)}{_state_of(record)}" for record in event["records"])


def _state_of(told: Mapping[str, Any], *, is_news: bool = False) -> str:
    """How what is told of is, in brackets; nothing of what is up and passes, unless that `is_news`."""
    health = told.get("health")
    is_shown = health and (is_news or not health["up"] or health["state"] != "passing")
    return f"  ({describe_health(health)})" if health and is_shown else ""


def peers_path(resource: str | None) -> tuple[str, ...]:
    """What to ask for a node's status, or for the members that keep a resource."""
    return ("status",) if resource is None else ("resources", resource, "peers")


def create_through(node: NodeSocket, label: str, factor: int | None, *, as_json: bool) -> None:
    """Creates a resource that the node owns."""
    answer = node.post("resources", label=label, factor=factor or 1)
    _told(answer, answer.result["resource_id"], as_json=as_json)
    if not as_json:
        click.echo(f"note: created {AS_NODE}", err=True)


def print_id_through(node: NodeSocket, label: str, owner: str, *, as_json: bool) -> None:
    """Prints the id of an owner's label, as the node knows the owner: its aliases, and itself as `me`."""
    answer = node.get("resource-id", label=label, owner=owner, timeout=None)  # asks nobody
    _told(answer, answer.result["resource_id"], as_json=as_json)


def remove_through(node: NodeSocket, resource: str, shown: str, factor: int | None, *, as_json: bool) -> None:
    """Removes a resource that the node owns. `shown`: what it's called in the output, here and below."""
    answer = node.delete("resources", resource, factor=factor or 1)
    _told(answer, f"removed {shown}", as_json=as_json)


def register_through(
    node: NodeSocket,
    resource: str,
    shown: str,
    value: str,
    peer: str | None,
    service_id: str | None,
    ttl: float | None,
    factor: int | None,
    *,
    as_json: bool,
) -> None:
    """Registers a service in the node's name."""
    given: dict[str, object] = {"value": value, "factor": factor or 1}
    given |= {} if peer is None else {"peer_id": peer}
    given |= {} if service_id is None else {"service_id": service_id}
    given |= {} if ttl is None else {"ttl": ttl}
    answer = node.post("resources", resource, "records", **given)
    _told(answer, f"registered {peer or 'this node'} on {shown}, {AS_NODE}", as_json=as_json)


def unregister_through(
    node: NodeSocket,
    resource: str,
    shown: str,
    peer: str | None,
    issuer: str | None,
    until: int | None,
    factor: int | None,
    *,
    as_json: bool,
) -> None:
    """Ends what the node registered, or denies what others did."""
    given = {"issuer": issuer, "until": until, "factor": factor or 1}
    answer = node.delete("resources", resource, "records", peer or "me", **given)
    done = answer.result
    if as_json:
        _told(answer, "", as_json=True)
        return
    if done.get("denied"):
        print_denied(done, shown)
        return
    if done["was_registered"]:
        warn(answer.warnings)
    who = peer or "this node"
    if done["was_registered"]:
        click.echo(f"unregistered {who} from {shown}, {AS_NODE}")
    else:
        whose = "the node's own key" if issuer is None else issuer
        click.echo(f"there was nothing of {whose} to unregister for {who} on {shown}")


def print_denied(done: Mapping[str, Any], shown: str) -> None:
    """Whom a policy denies now, on which host and until when, and how each is undone."""
    end = "" if done["until"] is None else f" until {moment(done['until'])}"
    for issuer in done["denied"]:
        pair = f"{issuer}@{done['host']}"
        lift = f"aqua-registry resource policy {shlex.quote(shown)} --lift {pair}"
        click.echo(f"denied {pair} on {shown}{end}; lift it with: {lift}")


def _told(answer: NodeAnswer, line: str, *, as_json: bool) -> None:
    warn(answer.warnings)
    click.echo(json_line(answer.result) if as_json else line)


def _trust(trusted: Trusted | None) -> dict[str, object]:
    return {} if trusted is None else {"trust": tuple(trusted.issuers), "trust_root": tuple(trusted.roots)}
