"""Keeps services registered by a light client of this process's own, through nodes elsewhere: `exec --relay`.

It is the agent that a node is of its machine, in a thread beside the program that runs: they are registered, checked,
renewed and ended by the same rules, under the command's key. Checks may run programs: who starts it chooses these
as well.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line, root_of
from aqua_compat.cli.keys import user_data_folder
from aqua_compat.cli.session import CommandSession

if TYPE_CHECKING:
    import trio

    from aqua_compat.agent.service_files import Definitions
    from aqua_compat.api.client import AquaClient

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

_MEMORY: Final = "agent.json"
_PATIENCE: Final = 10.0  # seconds for registrations to end
_RETRY: Final = 5.0  # seconds until a connection that failed is made anew


class RelayedServices:
    """The services in files, each a name and a text, while the block runs: `with RelayedServices(...)`."""

    def __init__(self, session: CommandSession, files: Sequence[tuple[str, str]]) -> None:
        self._session = session
        self._files = files
        self._begun: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._waiting: tuple[trio.lowlevel.TrioToken, trio.Event] | None = None
        self._thread = threading.Thread(target=self._keep, name="services", daemon=True)

    def __enter__(self) -> None:
        """Returns once the network was reached and the files are right. Raises Failure, Misuse."""
        self._session.configure_logs()
        self._thread.start()
        if (error := self._begun.get()) is not None:
            raise error

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if (waiting := self._waiting) is not None:
            import trio

            token, end = waiting
            try:
                token.run_sync_soon(end.set)
            except trio.RunFinishedError:
                return
        self._thread.join(_PATIENCE)

    def _keep(self) -> None:
        """The thread: connects, again and again once that has succeeded once."""
        has_begun = False
        while not self._ended.is_set():
            try:
                self._session.run_beside(self._act)
            except BaseException as error:
                if self._waiting is None and not has_begun:
                    self._begun.put(error)
                    return
                click.echo(f"warning: the services aren't registered: {one_line(str(root_of(error)))}", err=True)
                self._ended.wait(_RETRY)
            has_begun = True

    async def _act(self, client: AquaClient) -> None:
        import trio

        from aqua_compat.agent.agent import Agent
        from aqua_compat.agent.memory import AgentMemory
        from aqua_compat.agent.service_files import BadDefinitions

        memory = AgentMemory(user_data_folder() / "clients" / self._session.key_name / _MEMORY)
        source, make = _Source(self._session, client), partial(_made, self._session, client)
        addresses = [_own_address(relay) for relay in self._session.relays[:1]]
        agent = Agent(client.registry, source, lambda: addresses, memory, trio.lowlevel.checkpoint, make)
        end = trio.Event()
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            await nursery.start(agent.run)
            try:
                for name, text in self._files:
                    await stack.enter_async_context(agent.lent(name, text))
            except BadDefinitions as error:
                raise Failure("; ".join(error.errors)) from None
            is_first, self._waiting = self._waiting is None, (trio.lowlevel.current_trio_token(), end)
            if is_first:
                self._begun.put(None)
            if not self._ended.is_set():
                await end.wait()
            await agent.stop()


class _Source:
    """Reads what the command's own files say; there is nothing else that is defined."""

    def __init__(self, session: CommandSession, client: AquaClient) -> None:
        from aqua_compat.agent.service_files import read_text
        from aqua_compat.api.invited_names import network_owner
        from registry.model.names import OWN

        self._names = names = session.names.of(client.registry.identity.peer_id)
        self._read = partial(read_text, names=names, allow_scripts=True, owner=network_owner(session.token) or OWN)

    def read(self) -> Definitions:
        """See `ServiceSource.read`."""
        from aqua_compat.agent.service_files import Definitions

        return Definitions((), (), self._names)

    def read_text(self, name: str, text: str) -> Definitions:
        """See `ServiceSource.read_text`."""
        return self._read(name, text)


async def _made(session: CommandSession, client: AquaClient, label: str, owner: str) -> Sequence[str]:
    """Has a registrar of the private network make a resource."""
    from aqua_compat.api.registrar import ask_registrars
    from overlay.identity import peer_id_of

    token = session.token
    registrars = () if token is None else tuple(map(peer_id_of, token.registrars))
    return await ask_registrars(client.on, registrars, label, owner)


def _own_address(relay: str) -> str:
    """This machine's address, as it goes to a node: for instances that have a port and no address."""
    from registry.model.endpoints import instances_in

    for there in instances_in(relay):
        family = socket.AF_INET6 if ":" in there.address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:  # sends nothing
                asking.connect((there.address, there.port))
                host = asking.getsockname()[0]
        except OSError as error:
            raise Misuse(
                f"--relay {relay}: it can't be told which address of this machine leads there: {error}"
            ) from None
        return f"/ip{6 if family is socket.AF_INET6 else 4}/{host}/tcp/{there.port}"
    return ""
