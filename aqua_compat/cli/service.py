"""`aqua-registry service`: registers services on resources, and unregisters them."""

from __future__ import annotations

import click

from aqua_compat.cli.failures import Failure, reasons
from aqua_compat.cli.keys import named_key
from aqua_compat.cli.output import print_json
from aqua_compat.cli.session import CommandSession, json_option, network_options, warn


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
