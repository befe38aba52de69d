"""`resource`, `service`, `resolve`, `peers` and `upkeep`: the API's functions for people and their scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from aqua_compat.cli.failures import Failure, Misuse, one_line, reasons
from aqua_compat.cli.keys import DEFAULT_KEY, named_key
from aqua_compat.cli.output import json_line, print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options, warn

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.client.status import NodeStatus
    from registry.model.values import Record

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.group(short_help="Create, show and remove resources.")
def resource() -> None:
    """Create, show and remove resources: labels under which services are found."""


@resource.command("create")
@click.argument("label")
@json_option
@network_options(writes=True)
def create_resource(session: CommandSession, label: str, as_json: bool) -> None:
    """Create the resource LABEL, owned by your key, and print its id."""
    resource_id, errors = session.run(lambda client: client.createResource(label))
    if resource_id is None:
        raise Failure(f"the resource {label[:80]!r} wasn't created: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json({"resource_id": resource_id})
    else:
        click.echo(resource_id)


@resource.command("remove", short_help="Remove a resource that your key owns.")
@click.argument("resource_id")
@json_option
@network_options(writes=True)
def remove_resource(session: CommandSession, resource_id: str, as_json: bool) -> None:
    """Remove RESOURCE_ID, which your key owns, and all that is registered on it.

    Its label can be used again.
    """
    success, errors = session.run(lambda client: client.removeResource(resource_id))
    if not success:
        raise Failure(f"the resource {resource_id} wasn't removed: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json({"removed": resource_id})
    else:
        click.echo(f"removed {resource_id}")


@resource.command("explain", short_help="Print what happened to a resource on a node, and why.")
@click.argument("resource_id")
@json_option
@network_options()
def explain_resource(session: CommandSession, resource_id: str, as_json: bool) -> None:
    """Print what happened to RESOURCE_ID on the node, as far as it remembers.

    A line for each record or key that was stored, renewed or removed there, with the time and the reason.
    """
    events = session.run(lambda client: client.registry.explain(resource_id, timeout=session.timeout))
    if as_json:
        click.echo(json_line([msgspec.structs.asdict(event) for event in events]))
        return
    if not events:
        click.echo(
            "the node remembers nothing of this resource; `aqua-registry peers RESOURCE_ID` tells who keeps it",
            err=True,
        )
    for event in events:
        subject = f"record of {event.issued_by} on {event.peer_id}" if event.peer_id else "resource"
        click.echo(f"{_moment(event.time)}  {event.what:11} {subject}  {one_line(event.detail)}")


@resource.command("show", short_help="Print a resource's owner and label.")
@click.argument("resource_id")
@json_option
@network_options()
def show_resource(session: CommandSession, resource_id: str, as_json: bool) -> None:
    """Print the owner of RESOURCE_ID, its label and when it was created."""
    key, errors = session.run(lambda client: client.getResource(resource_id))
    if key is None:
        raise Failure(f"the resource {resource_id} wasn't found: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json(key)
        return
    for name, text in (
        ("id", key.id),
        ("label", key.label),
        ("owner", key.owner_peer_id),
        ("created", _moment(key.timestamp_created)),
    ):
        click.echo(f"{name:8} {one_line(text)}")


@resource.command("id", short_help="Print the id of a resource from its label.")
@click.argument("label")
@click.option("--owner", metavar="PEER_ID", help="Peer id of its owner.  [default: your key's]")
@click.option(
    "-k",
    "--key",
    default=DEFAULT_KEY,
    show_default=True,
    metavar="KEYNAME",
    envvar="AQUA_REGISTRY_KEY",
    help="Your key, when --owner isn't given.",
)
@json_option
def resource_id(label: str, owner: str | None, key: str, as_json: bool) -> None:
    """Print the id that the resource LABEL has, whether it exists or not. Needs no network."""
    from aqua_compat.schema.arguments import check_peer_id, check_string
    from registry.model.signing import key_id_of

    try:
        found = key_id_of(check_string("label", label), check_peer_id("owner", owner or named_key(key).peer_id))
    except ValueError as error:
        raise Misuse(str(error)) from None
    if as_json:
        print_json({"resource_id": found})
    else:
        click.echo(found)


@click.group()
def service() -> None:
    """Register services on resources, and unregister them."""


@service.command("register", short_help="Register a service that runs on a peer.")
@click.argument("resource_id")
@click.option("--value", default="", help="Text for users of the service, such as its address.")
@click.option(
    "--peer", metavar="PEER_ID", help="Peer that the service runs on and that hosts the record.  [default: your key's]"
)
@click.option("--service-id", metavar="ID", help="Id of the service on that peer.")
@json_option
@network_options(writes=True)
def register_service(
    session: CommandSession, resource_id: str, value: str, peer: str | None, service_id: str | None, as_json: bool
) -> None:
    """Register on RESOURCE_ID that a service runs on a peer.

    A record lives for a day after its hosting peer signed it: run this command again before that.
    """

    success, errors = session.run(
        lambda client: client.registerService(resource_id, value, peer or client.peer_id, service_id)
    )
    if not success:
        raise Failure(f"the service wasn't registered on {resource_id}: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json({"success": True})
    else:
        click.echo(f"registered {peer or named_key(session.key_name).peer_id} on {resource_id}")


@service.command("unregister", short_help="End a registration of your key.")
@click.argument("resource_id")
@click.option("--peer", metavar="PEER_ID", help="Peer that the record names.  [default: your key's]")
@json_option
@network_options(writes=True)
def unregister_service(session: CommandSession, resource_id: str, peer: str | None, as_json: bool) -> None:
    """End the record that your key registered on RESOURCE_ID for a peer."""
    success, errors = session.run(lambda client: client.unregisterService(resource_id, peer or client.peer_id))
    if not success:
        raise Failure(f"the service wasn't unregistered from {resource_id}: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json({"success": True})
    else:
        click.echo(f"unregistered {peer or named_key(session.key_name).peer_id} from {resource_id}")


@click.command(short_help="Print the live services of a resource.")
@click.argument("resource_id")
@click.option(
    "--ack", type=click.IntRange(0, 32767), default=1, show_default=True, help="Replicas that must have answered."
)
@click.option("--reachable", is_flag=True, help="Print only services whose peer answers now.")
@json_option
@network_options()
def resolve(session: CommandSession, resource_id: str, ack: int, reachable: bool, as_json: bool) -> None:
    """Print the live services of RESOURCE_ID.

    A provider that died is listed until its record expires; with --reachable each is asked whether it is there.
    """
    ask = _reachable if reachable else _resolved
    records, errors = session.run(lambda client: ask(client, resource_id, ack))
    if records is None:
        raise Failure(f"{resource_id} wasn't resolved: {reasons(errors)}")
    warn(errors)
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo("no service whose peer answers" if reachable else "no services")
    for record in records:
        click.echo(describe(record))


async def _resolved(client: AquaClient, resource_id: str, ack: int) -> tuple[list[Record] | None, list[str]]:
    return await client.resolveResource(resource_id, ack)


async def _reachable(client: AquaClient, resource_id: str, ack: int) -> tuple[list[Record] | None, list[str]]:
    from aqua_compat.rpc.errors import NoProvider

    try:
        return await client.reachable(resource_id, ack=ack), []
    except NoProvider as error:
        raise Failure(str(error)) from error


@click.command(short_help="Run one of a node's schedules now.")
@click.argument("schedule")
@json_option
@network_options(acts=True)
def upkeep(session: CommandSession, schedule: str, as_json: bool) -> None:
    """Run SCHEDULE of the node now: clearExpired_86400, replicate_3600 or renew_43200.

    Your key must be among the node's `operators`; `aqua-registry key show` prints its peer id.
    """
    done = session.run(lambda client: client.registry.run_schedule(schedule, timeout=session.timeout))
    if as_json:
        click.echo(json_line(msgspec.structs.asdict(done)))
    else:
        click.echo(f"{one_line(done.name)}: {one_line(done.did)} in {done.duration:g} s")


@click.command(short_help="Print the members of the network that a node knows.")
@click.argument("resource_id", required=False)
@json_option
@network_options()
def peers(session: CommandSession, resource_id: str | None, as_json: bool) -> None:
    """Print how the node is and the members that it is linked to.

    With RESOURCE_ID: print the members that are responsible for that resource, nearest first.
    """
    if resource_id is not None:
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
    if status.disk is not None:
        full = ", full: nothing new of strangers is stored" if status.disk.is_full else ""
        click.echo(f"disk     {status.disk.used} of {status.disk.budget} bytes{full}")
    for line in _upkeep(status):
        click.echo(line)
    if status.particles is not None:
        counts = ", ".join(f"{one_line(name)} {value:g}" for name, value in status.particles.items())
        click.echo(f"aqua     {counts}")
    for address in status.addresses:
        click.echo(f"address  {one_line(address)}")
    for peer_id in status.members:
        click.echo(f"member   {one_line(peer_id)}")


def _upkeep(status: NodeStatus) -> list[str]:
    """How replication goes and what the schedules did last, in lines."""
    lines: list[str] = []
    if status.replication is not None:
        now = "settled" if status.replication.settled else f"{status.replication.pending} comparisons due"
        lines.append(f"copies   {now}; repaired {status.replication.repaired} since its start")
    for schedule in status.schedules:
        last = f"last {_moment(schedule.last_run)}: {one_line(schedule.did)}" if schedule.runs else "not run yet"
        lines.append(f"schedule {one_line(schedule.name)}, {last}")
    return lines


def describe(record: Record) -> str:
    """A record on one line for people."""
    metadata = record.metadata
    parts = [metadata.peer_id]
    if metadata.service_id:
        parts.append(f"service {one_line(metadata.service_id[0])}")
    if metadata.value:
        parts.append(f"value {one_line(metadata.value)}")
    if metadata.relay_id:
        parts.append(f"via {one_line(metadata.relay_id[0])}")
    parts.append(f"since {_moment(metadata.timestamp_issued)}")
    if metadata.issued_by != metadata.peer_id:
        parts.append(f"issued by {metadata.issued_by}")
    return "  ".join(parts)


def _moment(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
