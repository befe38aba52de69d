"""`watch`: prints what happens to a resource, line by line, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.options import json_option, network_options, trust_options
from aqua_compat.cli.output import json_line, print_lines
from aqua_compat.cli.session import CommandSession
from aqua_compat.cli.through_node import event_lines, print_events_of

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.model.trusted_issuers import Trusted
    from registry.watch.watch_event import WatchEvent


@click.command(short_help="Print every change of a resource's services.")
@click.argument("resource")
@click.option("-n", "--events", type=click.IntRange(1), metavar="N", help="End after N events.  [default: never]")
@click.option("--all", "everything", is_flag=True, help="Tell also of those that are down or don't pass.")
@trust_options
@json_option
@network_options()
def watch(
    session: CommandSession,
    resource: str,
    events: int | None,
    everything: bool,
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """Print the live services of RESOURCE, then each that is added, updated, removed or expires.

    RESOURCE is an id or a name such as web@acme. Of a service that was told, it is told too when its host dies or comes
    back, and when it doesn't pass or does; with --all so of those that don't work from the beginning. The command turns
    to other nodes when those that it listens to are gone. End it with Ctrl-C.
    """
    if (node := session.node()) is not None:
        print_events_of(
            node,
            session.name_for_node(resource),
            resource,
            events,
            everything=everything,
            trusted=trusted,
            as_json=as_json,
        )
        return
    resource_id = session.resource_id(resource)

    async def follow(client: AquaClient) -> None:
        count = 0
        async with client.watch(resource_id, trusted=trusted, include_down=everything) as watched:
            async for event in watched:
                if as_json:
                    click.echo(as_json_line(event))
                else:
                    print_lines(as_lines(event))
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
    """The event in its JSON shape, on one line."""
    from aqua_compat.schema.shapes import watch_event_as_json  # noqa: PLC0415 - `--help` is to answer at once

    return json_line(watch_event_as_json(event))


def as_lines(event: WatchEvent) -> str:
    """The event for people."""
    from aqua_compat.schema.shapes import watch_event_as_json  # noqa: PLC0415 - as above

    return event_lines(watch_event_as_json(event))
