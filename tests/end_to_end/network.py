"""A network of node processes, started through the command line, and commands run against it."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from aqua_compat.schema.constants import Constants
from overlay.assembly import open_peer
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from registry.client.node_status import NodeStatus
from registry.client.remote_node import RemoteNode
from registry.errors import RegistryError
from registry.settings import RegistrySettings
from tests.end_to_end.forked import ForkedProcess, fork_server

NODES = 6
MAJORITY = 4
SEEN_BY_A_MAJORITY = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY)
"""Of a client whose writes are seen by whoever reads with an `ack` of MAJORITY, through any node."""
POLL = 0.1  # seconds between two looks at what other processes do

Process = trio.Process | ForkedProcess

T = TypeVar("T")


class Network:
    """Six nodes, or more; the others join through the first. `relay()` is a random one of those that run."""

    def __init__(self, folder: Path, count: int = NODES, *flags: str) -> None:
        self.flags = ("--log-level", "debug", *flags)
        self.nodes = [
            NodeProcess(folder / f"node-{number}", folder / f"node-{number}.log", fork_server().open_process)
            for number in range(count)
        ]

    async def start(self) -> None:
        try:
            await start_network(self.nodes, *self.flags, timeout=60)
            await self.settled()
        except BaseException:
            await stop_network(self.nodes)
            raise

    async def stop(self) -> None:
        await stop_network(self.nodes)

    async def restart(self, nodes: Sequence[NodeProcess]) -> None:
        """Start stopped nodes again on the addresses that they had, with all others' for bootstrap."""
        everyone = [node.address for node in self.nodes]
        async with trio.open_nursery() as nursery:
            for node in nodes:
                flags = ["--listen", node.address.partition("/p2p/")[0], *self.flags]
                for address in everyone:
                    if address != node.address:
                        flags += ["--bootstrap", address]
                nursery.start_soon(partial(node.start, *flags, timeout=60))
        await self.settled()

    async def settled(self) -> None:
        """Every running node has links to all the others, and to nobody else."""
        everyone = {node.peer_id for node in self.running}
        async with observer() as observing:

            async def known_by(node: NodeProcess) -> set[str]:
                try:
                    return {node.peer_id, *(await observing.status(node)).members}
                except RegistryError:  # busy with those that join
                    return set()

            for node in self.running:
                await eventually(partial(known_by, node), lambda known: known == everyone, timeout=60)

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self.nodes if node.alive]

    async def replicated(self, timeout: float = 40.0) -> None:
        """Every running node knows all the others and says that its neighbours have what it has."""
        others = len(self.running) - 1
        async with observer() as observing:
            for node in self.running:
                await eventually(
                    partial(observing.status, node),
                    lambda status: (
                        len(status.members) == others
                        and status.caught_up
                        and status.replication is not None
                        and status.replication.settled
                    ),
                    timeout,
                )

    def relay(self) -> str:
        """The address of a random node."""
        address = random.choice([node for node in self.nodes if node.alive]).address
        print(f"relay: {address}")  # noqa: T201 - shown beside a failure
        return address

    def logs(self) -> str:
        """The last lines of every node's log, for a failed test."""
        return "\n".join(
            f"--- {node.log_file.name} ({'running' if node.alive else 'stopped'})\n"
            + "\n".join(node.log_file.read_text(errors="replace").splitlines()[-15:])
            for node in self.nodes
            if node.log_file.exists()
        )


class Observer:
    """Asks nodes how they are, on one link to each: a client for each question costs a tenth of a second of CPU."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._peer = peer
        self._nodes: dict[str, RemoteNode] = {}

    async def status(self, node: NodeProcess) -> NodeStatus:
        """What a node tells of itself. Raises RegistryError when it doesn't answer."""
        if node.address not in self._nodes:
            self._nodes[node.address] = RemoteNode(self._peer, [node.address], RegistrySettings(), time.time)
        return await self._nodes[node.address].status(timeout=5.0)


@asynccontextmanager
async def observer() -> AsyncIterator[Observer]:
    """One who keeps its links while the block runs; to nodes it is no member."""
    if not structlog.is_configured():  # as clients do: what this side notes of each link helps nobody
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    async with open_peer(Identity.generate(), OverlaySettings(member=False, listen=())) as peer:
        yield Observer(peer)


async def eventually(ask: Callable[[], Awaitable[T]], satisfied: Callable[[T], bool], timeout: float = 6.0) -> T:
    """Ask until the answer satisfies; the last answer is in the failure."""
    answer: T | None = None
    with trio.move_on_after(timeout):
        while True:
            answer = await ask()
            if satisfied(answer):
                return answer
            await trio.sleep(POLL)  # other processes tell nobody when they are done
    raise AssertionError(f"not satisfied within {timeout:g} s; the last answer was {answer!r}")


class Finished(NamedTuple):
    code: int
    out: str
    err: str


async def command(*arguments: str, home: Path, fresh: bool = False, **environment: str) -> Finished:
    """Run `aqua-registry` with arguments; keys and data are under `home`. `fresh`: in a Python that starts anew."""
    finished = await ran(sys.executable, "-m", "aqua_compat", *arguments, home=home, fresh=fresh, **environment)
    print(f"$ aqua-registry {' '.join(arguments)}\n{finished.out}{finished.err}-> {finished.code}")  # noqa: T201
    return finished


async def ran(*command_line: str, home: Path, fresh: bool = False, **environment: str) -> Finished:
    """What a process leaves that ends by itself."""
    open_process = trio.lowlevel.open_process if fresh else fork_server().open_process
    process = await open_process(
        list(command_line),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_of(home, **environment),
    )
    said: dict[trio.abc.ReceiveStream, bytes] = {}

    async def read(stream: trio.abc.ReceiveStream) -> None:
        async with stream:
            said[stream] = b"".join([piece async for piece in stream])

    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, process.stdout)
            nursery.start_soon(read, process.stderr)
        code = await process.wait()
    finally:
        process.kill()
    return Finished(code, said[process.stdout].decode(), said[process.stderr].decode())


def environment_of(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with a data folder of the test's own and none of our settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AQUA_REGISTRY_")}
    return {**kept, "XDG_DATA_HOME": str(home), "NO_COLOR": "1", **more}


async def first_line(process: Process, timeout: float = 60.0) -> str:
    """The first line that a process prints; when called again, the next."""
    assert process.stdout is not None
    received = b""
    with trio.fail_after(timeout):
        while b"\n" not in received:
            piece = await process.stdout.receive_some(1)
            assert piece, "the process ended without a line"
            received += piece
    return received.decode().strip()


@asynccontextmanager
async def launched(
    *command_line: str, home: Path, log: Path, stdin: int = subprocess.DEVNULL, **environment: str
) -> AsyncIterator[Process]:
    """A process with its stdout in a pipe and its stderr in `log`; killed at the end if it still runs."""
    open_process = fork_server().open_process if command_line[0] == sys.executable else trio.lowlevel.open_process
    with log.open("ab") as stderr:
        process = await open_process(
            list(command_line),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment_of(home, **environment),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
            if process.stdin is not None:
                await process.stdin.aclose()
