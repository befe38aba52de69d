"""`watch`: prints what happens to a resource, line by line, as it happens."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.output import describe, describe_health, health_as_json, json_line
from aqua_compat.cli.session import CommandSession, json_option, network_options, trust_options

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.model.trusted_issuers import Trusted
    from registry.watch.watch_event import WatchEvent


@click.command(short_help="Print every change of a resource's services.")
@click.argument("resource")
@click.option("-n", "--events", type=click.IntRange(1), metavar="N", help="End after N events.  [default: never]")
@trust_options
@json_option
@network_options()
def watch(session: CommandSession, resource: str, events: int | None, trusted: Trusted | None, as_json: bool) -> None:
    """Print the live services of RESOURCE, then each that is added, updated, removed or expires.

    RESOURCE is an id or a name such as web@acme. It turns to other nodes when those that it listens to are gone. End it
    with Ctrl-C.
    """
    resource_id = session.resource_id(resource)

    async def follow(client: AquaClient) -> None:
        count = 0
        async with client.watch(resource_id, trusted=trusted) as watched:
            async for event in watched:
                click.echo(as_json_line(event) if as_json else as_lines(event))
                count += 1
                if count == 1 and not watched.exists:
                    click.echo(f"note: no resource {one_line(resource)} is known yet; watching for it", err=True)
                if count == events:
                    return

    try:
        session.run(follow)
    except* KeyboardInterrupt:
        pass  # that is how it is ended


def as_json_line(event: WatchEvent) -> str:
    """One object: `event`, then `records` of a snapshot, or `record`, how many changes of it were left out,
    and the reason where a policy, a certificate or this watcher's trust withholds it."""
    from aqua_compat.schema.json_codec import to_json  # noqa: PLC0415 - `--help` is to answer at once

    shown: dict[str, object] = {"event": event.kind.value}
    if event.record is None:
        shown["records"] = to_json(list(event.records))
    else:
        shown |= {"record": to_json(event.record), "coalesced": event.coalesced}
        shown |= {"reason": event.reason} if event.reason else {}
        if event.health is not None:
            shown["health"] = health_as_json(event.health)
    return json_line(shown)


def as_lines(event: WatchEvent) -> str:
    """For people: the time here, what happened, and the record on one line; of a snapshot a line per record."""
    from registry.watch.watch_event import EventKind  # noqa: PLC0415 - `--help` is to answer at once

    now = datetime.now().astimezone().strftime("%H:%M:%S")
    if event.record is not None:
        missed = f"  (after {event.coalesced} more changes)" if event.coalesced else ""
        reason = f"  ({event.reason})" if event.reason else ""
        state = ""
        if event.kind is EventKind.HEALTH and event.health is not None:
            state = f"  ({describe_health(event.health)})"
        return f"{now}  {event.kind.value:8}  {describe(event.record)}{state}{reason}{missed}"
    if not event.records:
        return f"{now}  {event.kind.value:8}  no services"
    return "\n".join(f"{now}  {event.kind.value:8}  {describe(record)}" for record in event.records)
