"""`aqua-registry resolve`: prints the live services of a resource."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line, reasons
from aqua_compat.cli.options import json_option, network_options, trust_options
from aqua_compat.cli.output import json_line, print_resolved
from aqua_compat.cli.session import CommandSession, warn
from aqua_compat.cli.through_node import print_records_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aqua_compat.api.client import AquaClient
    from registry.client.results import Resolved
    from registry.model.trusted_issuers import Trusted

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.command(short_help="Print the live services of a resource.")
@click.argument("resource")
@click.option(
    "--ack", type=click.IntRange(0, 32767), default=1, show_default=True, help="Replicas that must have answered."
)
@click.option("--reachable", is_flag=True, help="Print only services whose peer answers now.")
@click.option(
    "--all", "everything", is_flag=True, help="Print also those that are down or don't pass, and how each is."
)
@click.option("--near", is_flag=True, help="Print first those on the node that is asked, and on peers linked with it.")
@click.option("--tag", multiple=True, metavar="TAG", help="Print only instances with this tag. Repeatable: with all.")
@click.option(
    "--meta", multiple=True, metavar="KEY=VALUE", help="Print only instances with this metadata. Repeatable: with all."
)
@trust_options
@json_option
@network_options()
def resolve(
    session: CommandSession,
    resource: str,
    ack: int,
    reachable: bool,
    everything: bool,
    near: bool,
    tag: tuple[str, ...],
    meta: tuple[str, ...],
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """Print the live services of RESOURCE, an id or a name such as web@acme.

    Left out is whose host died, or says that it doesn't pass; with --reachable each is asked whether it is there. With
    --tag or --meta the heaviest instances come first.
    """
    if everything and reachable:
        raise Misuse("--all and --reachable exclude each other")
    _check_metadata(meta)
    if (node := session.node()) is not None:
        print_records_of(
            node,
            session.name_for_node(resource),
            ack,
            reachable=reachable,
            everything=everything,
            near=near,
            tags=tag,
            metadata=meta,
            trusted=trusted,
            as_json=as_json,
        )
        return
    from aqua_compat.schema.shapes import chosen, resolved_as_json
    from registry.model.endpoints import Selection, by_distance, by_weight

    resource_id = session.resource_id(resource)
    ask = _reachable if reachable else partial(_resolved, include_down=everything)
    resolved, distances = session.run(lambda client: _with_distances(client, ask(client, resource_id, ack, trusted)))
    if resolved.records is None:
        raise Failure(f"{one_line(resource)} wasn't resolved: {reasons(resolved.errors)}")
    warn(resolved.errors)
    wanted = Selection(tags=tag, metadata=dict(text.split("=", 1) for text in meta))
    left_out = {} if everything else resolved.left_out
    order = by_distance(distances.__getitem__) if near else by_weight
    instances = chosen(resolved.records, wanted, left_out, order) if wanted or near else None
    health = resolved.health if everything else None
    shown = list(resolved_as_json(resolved.records, instances, health, left_out))
    if as_json:
        click.echo(json_line(shown))
    else:
        print_resolved(shown, reachable=reachable, is_chosen=bool(wanted), is_sorted=near)


def _check_metadata(given: tuple[str, ...]) -> None:
    for text in given:
        if "=" not in text:
            raise Misuse(f"--meta {one_line(text)!r} has no `=`; give KEY=VALUE, as in --meta zone=eu")


async def _with_distances(client: AquaClient, asked: Awaitable[Resolved]) -> tuple[Resolved, dict[str, int]]:
    """With how far the host of each record is, as this command sees it: it is linked with the nodes that it asks."""
    resolved = await asked
    hosts = {record.metadata.peer_id for record in resolved.records or ()}
    return resolved, {host: client.distance_to(host) for host in hosts}


async def _resolved(
    client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None, *, include_down: bool
) -> Resolved:
    return await client.registry.resolve_resource(
        resource_id, ack, timeout=client.constants.timeout, trusted=trusted, include_down=include_down
    )


async def _reachable(client: AquaClient, resource_id: str, ack: int, trusted: Trusted | None) -> Resolved:
    from aqua_compat.rpc.errors import NoProvider
    from registry.client.results import Resolved

    try:
        return Resolved(tuple(await client.reachable(resource_id, ack=ack, trusted=trusted)), ())
    except NoProvider as error:
        raise Failure(str(error)) from error
