"""`aqua-registry resolve`: prints the live services of a resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, Misuse, check_resource_id, reasons
from aqua_compat.cli.output import describe, describe_health, health_as_json, json_line, print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options, trust_options, warn

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.client.results import Resolved
    from registry.model.trusted_issuers import Trusted
    from registry.model.values import Record

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.command(short_help="Print the live services of a resource.")
@click.argument("resource_id")
@click.option(
    "--ack", type=click.IntRange(0, 32767), default=1, show_default=True, help="Replicas that must have answered."
)
@click.option("--reachable", is_flag=True, help="Print only services whose peer answers now.")
@click.option(
    "--all", "everything", is_flag=True, help="Print also those that are down or don't pass, and how each is."
)
@trust_options
@json_option
@network_options()
def resolve(
    session: CommandSession,
    resource_id: str,
    ack: int,
    reachable: bool,
    everything: bool,
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """Print the live services of RESOURCE_ID.

    A provider that died is listed until its record expires, where the node knows nothing of its presence; with
    --reachable each is asked whether it is there.
    """
    check_resource_id(resource_id)
    if everything and reachable:
        raise Misuse("--all and --reachable exclude each other")
    if reachable:
        records = session.run(lambda client: _reachable(client, resource_id, ack, trusted))
        _print(records, as_json, "no service whose peer answers")
        return
    resolved = session.run(lambda client: _resolved(client, resource_id, ack, trusted, include_down=everything))
    if resolved.records is None:
        raise Failure(f"{resource_id} wasn't resolved: {reasons(resolved.errors)}")
    warn(resolved.errors)
    if everything:
        _print_all(resolved, as_json)
    else:
        _print(list(resolved.records), as_json, "no services")


def _print(records: list[Record], as_json: bool, nothing: str) -> None:
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo(nothing)
    for record in records:
        click.echo(describe(record))


def _print_all(resolved: Resolved, as_json: bool) -> None:
    from aqua_compat.schema.json_codec import to_json
    from registry.health.reading import UNTOLD

    known = [(record, resolved.health.get(record.slot, UNTOLD)) for record in resolved.records or ()]
    if as_json:
        click.echo(
            json_line([{"record": to_json(record), "health": health_as_json(health)} for record, health in known])
        )
        return
    if not known:
        click.echo("no services")
    for record, health in known:
        click.echo(f"{describe(record)}  ({describe_health(health)})")


async def _resolved(
    client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None, *, include_down: bool
) -> Resolved:
    return await client.registry.resolve_resource(
        resource_id, ack, timeout=client.constants.timeout, trusted=trusted, include_down=include_down
    )


async def _reachable(client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None) -> list[Record]:
    from aqua_compat.rpc.errors import NoProvider

    try:
        return await client.reachable(resource_id, ack=ack, trusted=trusted)
    except NoProvider as error:
        raise Failure(str(error)) from error
