"""`aqua-registry resolve`: prints the live services of a resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, check_resource_id, reasons
from aqua_compat.cli.output import describe, print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options, trust_options, warn
from aqua_compat.cli.through_node import print_records_of

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
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
@trust_options
@json_option
@network_options()
def resolve(
    session: CommandSession, resource_id: str, ack: int, reachable: bool, trusted: Trusted | None, as_json: bool
) -> None:
    """Print the live services of RESOURCE_ID.

    A provider that died is listed until its record expires; with --reachable each is asked whether it is there.
    """
    if (node := session.node()) is not None:
        print_records_of(node, resource_id, ack, reachable=reachable, trusted=trusted, as_json=as_json)
        return
    check_resource_id(resource_id)
    ask = _reachable if reachable else _resolved
    records, errors = session.run(lambda client: ask(client, resource_id, ack, trusted))
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


async def _resolved(
    client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None
) -> tuple[list[Record] | None, list[str]]:
    resolved = await client.registry.resolve_resource(
        resource_id, ack, timeout=client.constants.timeout, trusted=trusted
    )
    return None if resolved.records is None else list(resolved.records), list(resolved.errors)


async def _reachable(
    client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None
) -> tuple[list[Record] | None, list[str]]:
    from aqua_compat.rpc.errors import NoProvider

    try:
        return await client.reachable(resource_id, ack=ack, trusted=trusted), []
    except NoProvider as error:
        raise Failure(str(error)) from error
