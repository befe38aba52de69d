"""`aqua-registry resolve`: prints the live services of a resource."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line, reasons
from aqua_compat.cli.output import describe, describe_endpoint, describe_health, health_as_json, json_line, print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options, trust_options, warn

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.client.results import Resolved
    from registry.model.endpoints import Instance, Selection
    from registry.model.trusted_issuers import Trusted
    from registry.model.values import Record

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
    tag: tuple[str, ...],
    meta: tuple[str, ...],
    trusted: Trusted | None,
    as_json: bool,
) -> None:
    """Print the live services of RESOURCE, an id or a name such as web@acme.

    A provider that died is listed until its record expires, where the node knows nothing of its presence; with
    --reachable each is asked whether it is there. With --tag or --meta the heaviest instances come first.
    """
    from registry.model.endpoints import Selection

    if everything and reachable:
        raise Misuse("--all and --reachable exclude each other")
    wanted = Selection(tags=tag, metadata=_metadata(meta))
    resource_id = session.resource_id(resource)
    if reachable:
        records = session.run(lambda client: _reachable(client, resource_id, ack, trusted))
        _print(records, wanted, as_json, "no service whose peer answers")
        return
    resolved = session.run(lambda client: _resolved(client, resource_id, ack, trusted, include_down=everything))
    if resolved.records is None:
        raise Failure(f"{one_line(resource)} wasn't resolved: {reasons(resolved.errors)}")
    warn(resolved.errors)
    if everything:
        _print_all(resolved, wanted, as_json)
    else:
        _print(list(resolved.records), wanted, as_json, "no services")


def _print(records: list[Record], wanted: Selection, as_json: bool, nothing: str) -> None:
    if as_json:
        print_json(_as_json(records, wanted))
        return
    lines = _lines(records, wanted)
    for line in lines or [f"{nothing}, or none with these tags and metadata" if wanted else nothing]:
        click.echo(line)


def _print_all(resolved: Resolved, wanted: Selection, as_json: bool) -> None:
    from registry.health.reading import UNTOLD

    known = {record: resolved.health.get(record.slot, UNTOLD) for record in resolved.records or ()}
    if as_json:
        shown = zip(_instances(list(known), wanted), _as_json(list(known), wanted), strict=True)
        click.echo(json_line([{"record": one, "health": health_as_json(known[record])} for record, one in shown]))
        return
    lines = [f"{line}  ({describe_health(known[record])})" for record in known for line in _lines([record], wanted)]
    for line in lines or ["no services"]:
        click.echo(line)


def _metadata(given: tuple[str, ...]) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            raise Misuse(f"--meta {one_line(text)!r} has no `=`; give KEY=VALUE, as in --meta zone=eu")
    return {key: value for key, _, value in (text.partition("=") for text in given)}


def _instances(records: list[Record], wanted: Selection) -> dict[Record, list[Instance]]:
    """The instances of which each record's value tells; of those that are wanted, the heaviest first."""
    from registry.model.endpoints import endpoints_in, instances_in

    if not wanted:
        return {record: list(instances_in(record.metadata.value)) for record in records}
    found: dict[Record, list[Instance]] = {}
    for endpoint in endpoints_in(records, wanted):
        found.setdefault(endpoint.record, []).append(endpoint.instance)
    return found


def _as_json(records: list[Record], wanted: Selection) -> list[object]:
    """The records, each with its instances."""
    from aqua_compat.schema.json_codec import to_json

    found = _instances(records, wanted)
    return [{**cast("dict[str, object]", to_json(record)), "instances": found[record]} for record in found]


def _lines(records: list[Record], wanted: Selection) -> list[str]:
    """For people: the records; an instance a line where their values tell of some in our form, or some are wanted."""
    from registry.model.endpoints import SCHEMA, endpoints_in

    if wanted:
        return [describe_endpoint(endpoint) for endpoint in endpoints_in(records, wanted)]
    lines: list[str] = []
    for record in records:
        told = endpoints_in([record]) if SCHEMA in record.metadata.value else []
        lines += [describe_endpoint(endpoint) for endpoint in told] or [describe(record)]
    return lines


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
