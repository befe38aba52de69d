"""`aqua-registry service`: registers services on resources, and unregisters them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Misuse, not_done, one_line
from aqua_compat.cli.keys import named_peer_id
from aqua_compat.cli.options import json_option, network_options
from aqua_compat.cli.output import print_json
from aqua_compat.cli.session import CommandSession, warn
from aqua_compat.cli.through_node import print_denied, register_through, unregister_through
from aqua_compat.cli.times import Moment

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.client.results import Done

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


@click.group()
def service() -> None:
    """Register services on resources, and unregister them."""


@service.command("register", short_help="Register a service that runs on a peer.")
@click.argument("resource")
@click.option("--value", default="", help="Text for users of the service, such as its address.")
@click.option(
    "--peer", metavar="PEER_ID", help="Peer that the service runs on and that hosts the record.  [default: your key's]"
)
@click.option("--service-id", metavar="ID", help="Id of the service on that peer.")
@click.option(
    "--ttl",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Have it pass only while a program with the same key says so at least that often.",
)
@json_option
@network_options(writes=True, registers=True)
def register_service(
    session: CommandSession,
    resource: str,
    value: str,
    peer: str | None,
    service_id: str | None,
    ttl: float | None,
    as_json: bool,
) -> None:
    """Register on RESOURCE, an id or a name such as web@acme, that a service runs on a peer.

    A record lives for a day after its hosting peer signed it: run this command again before that. With --ttl the
    service is critical, and not listed, until a program with the same key says that it passes, by `aqua.pass_check` or
    over HTTP. Its host keeps that time: give it by --peer, or have the node on this machine register.
    """
    shown = one_line(resource)
    if (node := session.node()) is not None:
        asked = session.name_for_node(resource)
        register_through(node, asked, shown, value, peer, service_id, ttl, session.factor, as_json=as_json)
        return
    from aqua_compat.schema.arguments import check_optional_string, check_peer_id, check_string

    if ttl is not None and peer in (None, named_peer_id(session.key_name)):
        raise Misuse("--ttl needs the --peer that is to keep it: your key's own peer ends with this command")
    resource_id = session.resource_id(resource)

    async def register(client: AquaClient) -> Done:
        return await client.registry.register_service(
            resource_id,
            check_string("value", value),
            check_peer_id("peer_id", peer or client.peer_id),
            check_optional_string("service_id", service_id),
            ttl=ttl,
            **session.write,
        )

    done = session.run(register)
    if not done.success:
        raise not_done(f"the service wasn't registered on {shown}", done)
    warn(done.errors)
    if as_json:
        print_json({"success": True})
    else:
        click.echo(f"registered {peer or named_peer_id(session.key_name)} on {shown}")


@service.command("unregister", short_help="End a registration of your key.")
@click.argument("resource")
@click.option("--peer", metavar="PEER_ID", help="Peer that the record names.  [default: your key's]")
@click.option("--issuer", metavar="PEER_ID", help="Who registered it.  [default: your key, else the only other one]")
@click.option("--until", type=Moment(), metavar="WHEN", help="End of the denial, where this denies.  [default: never]")
@json_option
@network_options(writes=True)
def unregister_service(
    session: CommandSession, resource: str, peer: str | None, issuer: str | None, until: int | None, as_json: bool
) -> None:
    """End the record that your key registered on RESOURCE for a peer.

    On a resource that your key owns this also ends what another peer registered, the one that --issuer names: the
    resource's policy denies that issuer on that host from now on, until you lift it by `resource policy ID --lift`, or
    up to --until. Without --issuer so of the only other one, where your key registered nothing for that peer and that
    isn't your own.
    """
    shown = one_line(resource)
    if (node := session.node()) is not None:
        asked = session.name_for_node(resource)
        unregister_through(node, asked, shown, peer, issuer, until, session.factor, as_json=as_json)
        return
    from aqua_compat.schema.arguments import check_peer_id
    from aqua_compat.schema.shapes import unregistered_as_json
    from registry.permission.policy import FOR_EVER

    resource_id = session.resource_id(resource)

    async def unregister(client: AquaClient) -> Done:
        return await client.registry.unregister_service(
            resource_id,
            check_peer_id("peer_id", peer or client.peer_id),
            issuer=None if issuer is None else check_peer_id("issuer", issuer),
            until=FOR_EVER if until is None else until,
            **session.write,
        )

    done = session.run(unregister)
    if not done.success:
        raise not_done(f"the service wasn't unregistered from {shown}", done)
    peer_id = peer or named_peer_id(session.key_name)
    as_shown = unregistered_as_json(done, peer_id, FOR_EVER if until is None else until)
    if as_json:
        warn(done.errors)
        print_json(as_shown)
        return
    if done.denied:
        print_denied(as_shown, shown)
        return
    if done.was_there:
        warn(done.errors)
    if issuer not in (None, named_peer_id(session.key_name)):
        click.echo(f"there was nothing of {issuer} to unregister for {peer_id} on {shown}")
        return
    did = "unregistered" if done.was_there else "there was nothing of your key to unregister for"
    click.echo(f"{did} {peer_id} {'from' if done.was_there else 'on'} {shown}")
