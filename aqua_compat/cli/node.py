"""`aqua-registry node`: runs a node until it is told to end."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqua_compat.cli.failures import Failure, Misuse, end_for_want_of_memory, root_of
from aqua_compat.cli.kept_token import keep_token
from aqua_compat.cli.keys import user_data_folder
from aqua_compat.cli.loading import loading
from aqua_compat.cli.logs import configure_logs, logging_options
from aqua_compat.cli.output import counted
from aqua_compat.cli.signals import ENDING, until_signalled, until_stdin_ends

if TYPE_CHECKING:
    import structlog

    from aqua_compat.agent.agent import Agent
    from aqua_compat.agent.agent_key import AgentKey
    from aqua_compat.agent.memory import AgentMemory
    from aqua_compat.api.services import Services
    from aqua_compat.cli.config import SettingsOrigin
    from aqua_compat.cli.hangups import Hangups
    from aqua_compat.cli.service_manager import ServiceManager
    from aqua_compat.http.consul.local_agent import RunningAgent
    from aqua_compat.http.metrics import MoreMetrics
    from aqua_compat.settings import Settings
    from registry.model.names import Names
    from registry.node import Node
    from registry.protocol.messages import Item, WriteOutcome
    from registry.upkeep.schedule import Schedule


# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


_LOADED = 96 * 2**20  # bytes of addresses that a node takes, about, once all is loaded


@click.command()
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    help="Address to listen on, TCP or WebSocket. Repeatable.  [default: /ip4/127.0.0.1/tcp/0]",
)
@click.option("--announce", multiple=True, metavar="MULTIADDR", help="Address to tell others instead. Repeatable.")
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="ADDRESS",
    help="Node to join through: a multiaddr (.../p2p/ID), /dnsaddr/NAME, file:PATH with addresses, or, in a private"
    " network or with --trust-first, HOST:PORT. Repeatable. It may start later.",
)
@click.option(
    "--trust-first",
    is_flag=True,
    help="Join through addresses without /p2p/ID, too: who answers there first is trusted from then on, and could be"
    " anyone on the way.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="AQUA_REGISTRY_DATA_DIR",
    help="Folder of the node's key and database.  [default: your data folder]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AQUA_REGISTRY_CONFIG",
    help="TOML file with settings. Options and environment variables override it.",
)
@click.option(
    "--aqua",
    is_flag=True,
    help="Serve unmodified Aqua clients too; see `aqua-registry aqua install`. They need a WebSocket address.",
)
@click.option(
    "--join",
    metavar="FILE|-",
    help="Join a private network by the token in this file, or from stdin; see `aqua-registry network`. It is"
    " remembered.",
)
@click.option(
    "--services",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the services registered that the files in this folder define. SIGHUP has it read them again.",
)
@click.option(
    "--http",
    metavar="ADDRESS:PORT",
    help="Answer HTTP here too, such as on 127.0.0.1:8500; on the socket http.sock in the data folder it always does.",
)
@click.option(
    "--dns",
    metavar="ADDRESS:PORT",
    help="Answer DNS here, by UDP and TCP, such as on 127.0.0.1:8600: names such as web.acme.aqua.",
)
@click.option("--tied", is_flag=True, hidden=True, help="End when stdin does: with whoever started this node.")
@logging_options("info")
def node(
    listen: tuple[str, ...],
    announce: tuple[str, ...],
    bootstrap: tuple[str, ...],
    trust_first: bool,
    data_dir: Path | None,
    config: Path | None,
    aqua: bool,
    join: str | None,
    services: Path | None,
    http: str | None,
    dns: str | None,
    tied: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Run a node of the network.

    Prints each of its full addresses on a line, then `ready` when it has joined and takes writes. Ends with exit code
    0 on SIGINT or SIGTERM, and on SIGHUP with the terminal that it was started in. Where it has services to keep
    registered, by files or by a program's word, or no terminal, it reads these again on SIGHUP instead.

    \b
    Start a network:  aqua-registry node --listen /ip4/127.0.0.1/tcp/7000
    Join it:          aqua-registry node --data-dir ./second --bootstrap ADDRESS
    """
    import trio

    end_for_want_of_memory(spare=_LOADED)  # where libraries fail halfway, not even an error can be told
    # Here, since a loop that runs out of memory may wait for ever.
    with loading():
        import aqua_compat.api.full_node
        import aqua_compat.http.server  # noqa: F401
        from aqua_compat.cli.config import SettingsOrigin, load_settings, unknown_variables
        from aqua_compat.cli.hangups import Hangups
        from aqua_compat.cli.service_manager import ServiceManager

    end_for_want_of_memory()
    configure_logs(log_level, log_format)
    with suppress(OSError, ValueError):  # no stderr to speak of
        faulthandler.enable()  # no library's fault ends a node without a word
    flags: dict[tuple[str, ...], object] = {
        ("overlay", name): value
        for name, value in (("listen", listen), ("announce", announce), ("bootstrap", bootstrap))
        if value
    }
    if trust_first:
        flags["overlay", "trust_first"] = True
    if aqua:
        flags["aqua", "enabled"] = True
    if services is not None:
        flags["agent", "services"] = str(services)
    if http is not None:
        flags["http", "listen"] = http
    if dns is not None:
        flags["dns", "listen"] = dns
    settings = load_settings(config, os.environ, flags)
    if unknown := unknown_variables(os.environ):
        _log().warning("environment variables that set nothing", names=unknown)
    folder = data_dir or user_data_folder() / "node"
    if join is not None:
        keep_token(settings.overlay.network.token, folder, join)

    if settings.tracing:
        from aqua_compat.cli.tracing import turn_on_tracing

        turn_on_tracing()
    manager = ServiceManager(os.environ)

    def tell(came: signal.Signals) -> None:
        _log().info("stopping", signal=came.name)
        manager.stopping()

    hangups = Hangups(is_agent=bool(settings.agent.services or settings.service))
    # What is done before all else ends, and needs it, in reverse.
    last: list[Callable[[], Awaitable[None]]] = []
    # All that the settings say of services is read again with their files.
    again = partial(load_settings, config, os.environ, flags)
    origin = SettingsOrigin(config, os.environ)
    run = partial(_serve, settings, folder, again, origin, last, manager, hangups)
    serve = partial(
        until_signalled,
        partial(_tied, run) if tied else run,
        *ENDING,
        tell=tell,
        finish=partial(_finish, last),
        outlive=hangups.take,
    )
    try:
        trio.run(serve)
    except Exception as error:  # known ones become one line on stderr, others go on
        raise _explained(root_of(error), folder) from error


async def _tied(run: Callable[[], Awaitable[None]]) -> None:
    import trio

    async with trio.open_nursery() as nursery:

        async def end_with_stdin() -> None:
            await until_stdin_ends()
            _log().info("stopping", cause="whoever started this node has ended")
            nursery.cancel_scope.cancel()

        nursery.start_soon(end_with_stdin)
        await run()


async def _finish(last: list[Callable[[], Awaitable[None]]]) -> None:
    for do in reversed(last):
        await do()


async def _serve(
    settings: Settings,
    data_dir: Path,
    again: Callable[[], Settings],
    origin: SettingsOrigin,
    last: list[Callable[[], Awaitable[None]]],
    manager: ServiceManager,
    hangups: Hangups,
) -> None:
    """`again` gives the settings as they are by then; `origin`: where they come from. What is to be done before the
    node ends is put into `last`."""
    import trio

    from aqua_compat.agent.memory import AgentMemory
    from aqua_compat.api.full_node import identity_in, open_full_node
    from aqua_compat.cli.freed_memory import return_freed_memory
    from aqua_compat.cli.issuing_key import keys_of_agent, use_certificates_of_key
    from aqua_compat.http.server import open_http_server

    identity, memory = identity_in(data_dir), AgentMemory(data_dir / "agent.json")
    key, issuers = keys_of_agent(settings, origin, identity.peer_id, memory)
    async with AsyncExitStack() as stack:
        node_and_services = open_full_node(identity, settings, data_dir, issuers)
        running, services = await stack.enter_async_context(node_and_services)
        last.append(running.peer.presence.leave)
        use_certificates_of_key(running.parts.registries, key, settings)
        agent, renewal = _agent(running, services, settings, again, origin, data_dir, memory, key)

        def names() -> Names:
            return agent.agent.names

        more_metrics: list[MoreMetrics] = []
        if settings.dns.listen:
            from aqua_compat.dns.server import open_dns_server  # few nodes need it

            dns = await stack.enter_async_context(open_dns_server(running, settings.dns, names))
            _log().info("answering DNS", address=str(dns.address), domain=settings.dns.domain)
            more_metrics.append(dns.metrics)
        server = await stack.enter_async_context(
            open_http_server(
                running, services, settings.http, data_dir, names=names, more_metrics=more_metrics, agent=agent
            )
        )
        if server.address is not None:
            _log().info("answering HTTP", address=str(server.address), socket=str(server.socket))
        nursery = await stack.enter_async_context(trio.open_nursery())
        last.append(agent.agent.stop)
        await nursery.start(agent.agent.run)
        nursery.start_soon(hangups.run, partial(_read_again, agent.agent), lambda: bool(agent.agent.services))
        if settings.aqua.enabled and not any("/ws/" in address for address in running.peer.addresses()):
            _log().warning("no WebSocket address: JavaScript clients can't connect; add --listen /ip4/../tcp/N/ws")
        manager.ready(_in_words(running))
        nursery.start_soon(manager.keep_informed, partial(_in_words, running))
        if renewal is not None:
            nursery.start_soon(renewal.run)
        await _announce(running, data_dir)
        # What is here by now stays; looking through it again would stop the node for 40 ms each time.
        gc.collect()
        gc.freeze()
        await return_freed_memory()
        await trio.sleep_forever()


def _in_words(running: Node) -> str:
    """How the node is, in a line for its service manager."""
    if running.peer.is_isolated():
        return "not connected: looking for members"
    return f"linked with {counted(len(running.peer.members()), 'member')}"


def _agent(
    running: Node,
    services: Services,
    settings: Settings,
    again: Callable[[], Settings],
    origin: SettingsOrigin,
    data_dir: Path,
    memory: AgentMemory,
    key: AgentKey | None,
) -> tuple[RunningAgent, Schedule | None]:
    """The agent of this machine, and what renews the resources of the owners whose keys it has. `again` gives the
    settings as they are whenever services are read; `origin`: where they come from; `key`: under which it registers."""
    from aqua_compat.agent.agent import Agent
    from aqua_compat.agent.owner_keys import OwnerKeys, read_owner_keys
    from aqua_compat.agent.owner_renewal import renewal_schedule
    from aqua_compat.api.full_node import identity_in
    from aqua_compat.api.invited_names import with_invited
    from aqua_compat.api.registrar import LIMITS, SERVICE, Registrar, ask_registrars, check_registrars
    from aqua_compat.cli.service_source import SettingsOfServices
    from aqua_compat.http.consul.local_agent import RegisteredServices, RunningAgent
    from overlay.identity import peer_id_of
    from overlay.rpc.network_files import NetworkFiles
    from registry.client.registry import DEFAULT_TIMEOUT
    from registry.model.names import Names

    async def write(item: Item, timeout: float) -> WriteOutcome:
        return await running.parts.node_api.write(item, factor=1, timeout=timeout)

    async def make(label: str, owner: str) -> tuple[str, ...]:
        if owner in keys:
            return await keys.make(label, owner)
        return await ask_registrars(lambda peer: services.on(peer, (), DEFAULT_TIMEOUT), registrars, label, owner)

    token = NetworkFiles(data_dir, settings.overlay.network.token).token(identity_in(data_dir))
    registrars = settings.agent.registrars or tuple(map(peer_id_of, () if token is None else token.registrars))
    check_registrars(settings.agent, partial(origin.of, "agent"))
    owner_keys = read_owner_keys(settings.agent.owner_keys, origin.of("agent", "owner_keys"))
    keys = OwnerKeys(owner_keys, write, running.parts.host.clock_guard.wait)
    if settings.agent.makes_for:
        services.serve(SERVICE, Registrar(running.registry, keys, settings.agent.makes_for), LIMITS)
    peer = running.peer
    registered = RegisteredServices(data_dir)
    source = SettingsOfServices(
        again, peer.peer_id, token, origin=origin, registered=registered.all, started=settings.agent
    )
    names = Names(with_invited(settings.names, token), peer.peer_id)
    registries = running.parts.registries
    agent = Agent(
        running.registry, source, peer.addresses, memory, peer.wait_joined, make, names, registries=registries, key=key
    )
    renewal = renewal_schedule(keys, running, settings.upkeep, lambda: agent.names) if keys.owners else None
    return RunningAgent(agent, registered, source.read_form, source.owner(settings)), renewal


async def _read_again(agent: Agent) -> None:
    from aqua_compat.agent.service_files import BadDefinitions

    with suppress(BadDefinitions):  # which are in the log
        await agent.reload()


def _explained(error: BaseException, data_dir: Path) -> BaseException:
    from aqua_compat.agent.service_files import BadDefinitions
    from aqua_compat.http.listeners import Misconfigured
    from aqua_compat.particles.errors import NotInstalled
    from overlay.errors import AddressError, IdentityError, OverlayError
    from registry.errors import RegistryError, StorageError

    if isinstance(error, (AddressError, Misconfigured)):
        return Misuse(str(error))
    if isinstance(error, (BadDefinitions, IdentityError, StorageError, NotInstalled)):
        return Failure(str(error))
    if isinstance(error, (OverlayError, RegistryError, OSError)):
        return Failure(f"the node with data folder {data_dir} can't run: {error}")
    return error


async def _announce(running: Node, data_dir: Path) -> None:
    addresses = running.peer.addresses()
    _log().info("listening", addresses=addresses, data_dir=str(data_dir))
    for address in addresses:
        _print(address)
    await running.peer.wait_joined()
    _log().info("ready", members=len(running.peer.members()))
    _print("ready")


def _log() -> structlog.stdlib.BoundLogger:
    import structlog

    logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
    return logger


def _print(line: str) -> None:
    try:
        click.echo(line)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever started the node doesn't listen any more; it runs on
        pass
    except OSError as error:
        _log().warning("this node's addresses can't be printed; it runs on", reason=error.strerror)
