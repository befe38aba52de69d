"""`call` and `services`: calls services on other peers, and lists them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line
from aqua_compat.cli.options import json_option, network_options, trust_options
from aqua_compat.cli.output import print_json
from aqua_compat.cli.session import CommandSession

if TYPE_CHECKING:
    from aqua_compat.api.client import AquaClient
    from registry.model.trusted_issuers import Trusted

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

STRATEGIES = ("random", "round robin", "least latency", "weighted")

via_option = click.option(
    "--via", multiple=True, metavar="PEER_ID", help="Relay through which the peer is reached.  [default: looked up]"
)


@click.command(short_help="Call a function of a service and print its result.")
@click.argument("target")
@click.argument("function")
@click.argument("arguments", nargs=-1)
@click.option("--on-peer", "on_peer", is_flag=True, help="TARGET is the id of a peer; --service names its service.")
@click.option("--service", metavar="ID", default="", help="Id of the service, where the record names none.")
@click.option("--all", "every", is_flag=True, help="Call every provider and print a line for each.")
@click.option("--stream", is_flag=True, help="Print each result of a generator on a line as soon as it comes.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="random",
    show_default=True,
    help="Which provider is called first.",
)
@click.option(
    "--idempotent", is_flag=True, help="Call the next provider also when a call that failed may have been carried out."
)
@click.option(
    "--ack", type=click.IntRange(0, 32767), default=1, show_default=True, help="Replicas that must have answered."
)
@via_option
@trust_options
@network_options(acts=True, as_node=False)
def call(
    session: CommandSession,
    target: str,
    function: str,
    arguments: tuple[str, ...],
    on_peer: bool,
    service: str,
    every: bool,
    stream: bool,
    strategy: Any,
    idempotent: bool,
    ack: int,
    via: tuple[str, ...],
    trusted: Trusted | None,
) -> None:
    """Call FUNCTION of a service.

    TARGET is the id or the name of a resource, of which one provider is called, or with --on-peer the id of a peer.

    Each of the ARGUMENTS is JSON, or plain text if it isn't JSON. The result is printed as JSON, bytes as arrays of
    numbers.

    \b
    aqua-registry call greeters@acme greet you
    aqua-registry call --all RESOURCE_ID add 1 2
    aqua-registry call --on-peer --service op PEER_ID concat_strings "[1" "2]"
    """
    given = [_argument(text) for text in arguments]
    if on_peer and not service:
        raise Misuse("--on-peer needs --service, the service to call")
    if (stream or via) and not on_peer:
        raise Misuse("--stream and --via need --on-peer")
    if every and on_peer:
        raise Misuse("--all calls the providers on a resource; leave out --on-peer")
    if trusted and on_peer:
        raise Misuse("--trust and --trust-root choose among the providers on a resource; leave out --on-peer")
    target = target if on_peer else session.resource_id(target)

    async def act(client: AquaClient) -> None:
        from aqua_compat.rpc.errors import NoProvider, ServiceError

        try:
            if stream:
                async with client.on(target, via=via).stream(service, function, *given) as results:
                    async for result in results:
                        print_json(result)
            elif every:
                await _call_all(client, target, function, given, service, ack, trusted)
            elif on_peer:
                print_json(await client.on(target, via=via).call(service, function, *given))
            else:
                print_json(
                    await client.call_any(
                        target,
                        function,
                        *given,
                        strategy=strategy,
                        idempotent=idempotent,
                        service_id=service,
                        ack=ack,
                        trusted=trusted,
                    )
                )
        except (ServiceError, NoProvider) as error:
            raise Failure(str(error)) from error

    session.run(act)


async def _call_all(
    client: AquaClient,
    resource_id: str,
    function: str,
    given: list[Any],
    service: str,
    ack: int,
    trusted: Trusted | None,
) -> None:
    called = await client.call_all(resource_id, function, *given, service_id=service, ack=ack, trusted=trusted)
    for one in called:
        error = None if one.error is None else one.error.reason
        print_json({"peer_id": one.record.metadata.peer_id, "result": one.result, "error": error})
    failed = sum(one.error is not None for one in called)
    if failed:
        raise Failure(f"{failed} of {len(called)} providers failed")


@click.command(short_help="Print the services of a peer.")
@click.argument("peer_id")
@via_option
@json_option
@network_options(as_node=False)
def services(session: CommandSession, peer_id: str, via: tuple[str, ...], as_json: bool) -> None:
    """Print the services of the peer PEER_ID and their functions.

    Those that every peer has are among them.
    """

    async def act(client: AquaClient) -> dict[str, list[str]]:
        from aqua_compat.rpc.errors import ServiceError

        try:
            return await client.on(peer_id, via=via).services()
        except ServiceError as error:
            raise Failure(str(error)) from error

    listed = session.run(act)
    if as_json:
        print_json(listed)
        return
    for service_id, functions in sorted(listed.items()):
        click.echo(one_line(service_id))
        for function in functions:
            click.echo(f"  {one_line(function)}")


def _argument(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
