"""How soon the dead are off the list on real nodes, and what knowing that costs when nothing happens.

    python -m benchmarks.liveness [--nodes 8 32] [--rounds 4] [--only kill vanish ...] [--stored 0 10000] [--clients N]

Each node is a process on a host of its own, a network namespace (`tests.faults.namespaces`; takes `ip` and `unshare`,
no root). Light clients watch one resource through the first nodes; what is killed, frozen or cut off are the others. A
figure is from what happened until a watcher was told and its node's `resolve` no longer gave the record; from `ready`
until both were there again for `back`. `--rounds`: of each fault. The CPU is that of all nodes together.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from aqua_compat import AquaClient, EventKind, NotRegistered, connect
from aqua_compat.cli.node_process import NodeProcess, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.processes import cpu_of_all, idle_share
from overlay.presence.liveness import Liveness
from overlay.tasks import TaskStatus
from registry.errors import RegistryError
from registry.watch.watch import Watch
from tests.faults.namespaces import Namespaces, address_of, are_possible, reexecuted

INSIDE: Final = "BENCHMARKS_LIVENESS_INSIDE"
PORT: Final = 4001
WATCHED_THROUGH: Final = 3  # nodes, the first ones
PATIENCE: Final = 60.0  # seconds for what should take less
SETTLED: Final = 6.0  # seconds until everybody is followed by everybody who reads
IDLE_TIME: Final = 60.0
PER_PROCESS: Final = 125  # light clients
FLAP_WINDOW: Final = 61.0  # seconds in which a host that comes and goes would be held back
AIMS: Final = {
    "killed with -9": "0.5 / 1.5",
    "stopped": "0.2",
    "machine vanishes": "4.5 / 6.5",
    "frozen": "10 for a majority",
    "light client killed with -9": "7.5",
    "back": "1",
}
"""Seconds, p50 and greatest, or the greatest alone."""


class Watcher:
    """A light client that watches through one node."""

    def __init__(self, aqua: AquaClient, resource_id: str, watch: Watch) -> None:
        self._aqua = aqua
        self._resource_id = resource_id
        self._watch = watch
        self._changed = trio.Condition()
        self.gone: dict[str, None] = {}
        """Hosts of which it was told that they are down, or whose record was removed."""

    async def follow(self) -> None:
        """Take what is told, for ever."""
        async for event in self._watch:
            if event.record is None:
                continue
            host = event.record.metadata.peer_id
            async with self._changed:
                if event.kind in (EventKind.DOWN, EventKind.REMOVED):
                    self.gone[host] = None
                elif event.kind in (EventKind.UP, EventKind.ADDED):
                    self.gone.pop(host, None)
                self._changed.notify_all()

    async def until(self, host: str, *, is_gone: bool) -> None:
        """Return when it was told so and its node says so."""
        async with self._changed:
            while (host in self.gone) is not is_gone:
                await self._changed.wait()
        while (host not in await self.found()) is not is_gone:  # noqa: ASYNC110 - asked of another process
            await trio.sleep(0.01)

    async def until_gone(self, count: int) -> None:
        """Return when it was told that so many are gone."""
        async with self._changed:
            while len(self.gone) < count:
                await self._changed.wait()

    async def found(self) -> set[str]:
        """Whom a resolve gives."""
        return {record.metadata.peer_id for record in await self._aqua.resolve(self._resource_id)}


class Area:
    """The nodes, and who watches."""

    def __init__(self, folder: Path, namespaces: Namespaces, count: int, *, has_presence: bool = True) -> None:
        self.namespaces = namespaces
        self.nodes = [
            NodeProcess(
                folder / f"node{number}",
                folder / f"node{number}.log",
                partial(_open, number + 1, has_presence),
                tied=True,
            )
            for number in range(count)
        ]
        self.watchers: list[Watcher] = []

    async def start(self, number: int) -> None:
        """Start a node, on its own host."""
        others = ("--bootstrap", self.nodes[0].address) if number else ()
        await self.nodes[number].start(
            "--listen", f"/ip4/{address_of(number + 1)}/tcp/{PORT}", *others, timeout=PATIENCE
        )

    async def until(self, host: str, *, is_gone: bool) -> list[float]:
        """Seconds until each watcher knew, from now on; infinity after `PATIENCE`."""
        began, took = trio.current_time(), [float("inf")] * len(self.watchers)

        async def wait(number: int) -> None:
            await self.watchers[number].until(host, is_gone=is_gone)
            took[number] = trio.current_time() - began

        with trio.move_on_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(len(self.watchers)):
                    nursery.start_soon(wait, number)
        return took


async def _open(number: int, has_presence: bool, command: list[str], **options: Any) -> trio.Process:
    if not has_presence:
        command = [sys.executable, "-m", "benchmarks.liveness", "--be-node", *command[3:]]
    return await trio.lowlevel.open_process(["ip", "netns", "exec", f"host{number}", *command], **options)


@asynccontextmanager
async def area(folder: Path, namespaces: Namespaces, count: int, *, has_presence: bool = True) -> AsyncIterator[Area]:
    """A network of nodes; stopped in the end."""
    there = Area(folder, namespaces, count, has_presence=has_presence)
    try:
        for number in range(count):
            await there.start(number)
        yield there
    finally:
        await stop_network(there.nodes)


@asynccontextmanager
async def watched(there: Area, hosts: Sequence[str]) -> AsyncIterator[str]:
    """A resource on which these are registered, watched through the first nodes; its id."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(node.address)) for node in there.nodes[:WATCHED_THROUGH]]
        resource_id, errors = await clients[0].createResource("alive")
        assert resource_id is not None, errors
        for host in hosts:
            registered = await clients[0].registerService(resource_id, "v", host, None)
            assert registered == (True, []), registered
        nursery = await stack.enter_async_context(trio.open_nursery())
        there.watchers = []
        for client in clients:
            watch = client.watch(resource_id)
            watcher = Watcher(client, resource_id, watch)
            there.watchers.append(watcher)
            nursery.start_soon(watcher.follow)
            with trio.fail_after(PATIENCE):
                while not {*hosts} <= await watcher.found():  # noqa: ASYNC110 - asked of another process
                    await trio.sleep(0.1)
        await trio.sleep(SETTLED)
        yield resource_id
        nursery.cancel_scope.cancel()


class Figures:
    """Seconds by what happened."""

    def __init__(self) -> None:
        self._took: dict[str, list[float]] = {}

    def add(self, fault: str, took: Sequence[float]) -> None:
        self._took.setdefault(fault, []).extend(took)

    def print(self) -> None:
        """A line for each; they are forgotten then."""
        for fault, took in self._took.items():
            ranked = sorted(took)
            aim = AIMS.get(fault.partition(",")[0], "")
            print(
                f"| {fault:<32} | p50 {ranked[len(ranked) // 2]:6.2f} s, max {ranked[-1]:6.2f} s"
                f" | aim {aim} | {len(took)} times |",
                flush=True,
            )
        self._took.clear()


async def dies(
    there: Area,
    figures: Figures,
    rounds: int,
    fault: str,
    harm: Callable[[int], Awaitable[None]],
    mend: Callable[[int], Awaitable[None]],
) -> None:
    """Have one node after the other suffer, and be well again."""
    victims = range(WATCHED_THROUGH, len(there.nodes))
    for turn in range(rounds):
        victim = victims[turn % len(victims)]
        peer_id = there.nodes[victim].peer_id
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harm, victim)
            gone = await there.until(peer_id, is_gone=True)
        figures.add(fault, gone)
        await mend(victim)
        back = await there.until(peer_id, is_gone=False)
        figures.add(f"back, {fault}", back)
        is_last = turn == rounds - 1 or turn % len(victims) == len(victims) - 1
        await trio.sleep(FLAP_WINDOW if is_last else SETTLED)  # a host that returns a third time is held back
    figures.print()


async def faults(there: Area, only: Sequence[str], rounds: int) -> None:
    """All that happens to nodes."""
    nodes, figures = there.nodes, Figures()

    async def kill(number: int) -> None:
        await nodes[number].kill()

    async def stop(number: int) -> None:
        await nodes[number].stop()

    def signalled(number: int, how: signal.Signals) -> None:
        process_id = nodes[number].process_id
        assert process_id is not None
        os.kill(process_id, how)

    async def freeze(number: int) -> None:
        await trio.lowlevel.checkpoint()
        signalled(number, signal.SIGSTOP)

    async def thaw(number: int) -> None:
        await trio.lowlevel.checkpoint()
        signalled(number, signal.SIGCONT)

    async def cut(number: int) -> None:
        await trio.lowlevel.checkpoint()
        there.namespaces.split({other + 1: int(other == number) for other in range(len(nodes))})

    async def heal(number: int) -> None:  # noqa: ARG001 - all are
        await trio.lowlevel.checkpoint()
        there.namespaces.split({})

    everything: dict[str, tuple[str, Callable[[int], Awaitable[None]], Callable[[int], Awaitable[None]]]] = {
        "kill": ("killed with -9", kill, there.start),
        "stop": ("stopped", stop, there.start),
        "vanish": ("machine vanishes", cut, heal),
        "freeze": ("frozen", freeze, thaw),
    }
    for name, (fault, harm, mend) in everything.items():
        if name in only:
            async with watched(there, [node.peer_id for node in nodes[WATCHED_THROUGH:]]):
                await dies(there, figures, rounds, fault, harm, mend)


class Speaking:
    """A process that prints a line when it is ready."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.line = ""

    async def until_ready(self) -> None:
        """Read the line."""
        said, stdout = b"", self._process.stdout
        assert stdout is not None
        while not said.endswith(b"\n"):
            piece = await stdout.receive_some()
            if not piece:
                raise RuntimeError("the process ended")
            said += piece
        self.line = said.decode().strip()

    async def kill(self) -> None:
        """End it as a crash would."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()


async def _said(command: Sequence[str]) -> Speaking:
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    speaking = Speaking(process)
    try:
        await speaking.until_ready()
    except BaseException:
        await speaking.kill()
        raise
    return speaking


async def client_dies(there: Area, folder: Path, rounds: int) -> None:
    """A light client that provides is killed."""
    figures = Figures()
    async with watched(there, []) as resource_id:
        for turn in range(rounds):
            node = there.nodes[WATCHED_THROUGH + turn % (len(there.nodes) - WATCHED_THROUGH)]
            files = [str(folder / f"key{turn}"), str(folder / "sick")]
            command = [sys.executable, "-m", "tests.end_to_end.providing_client", node.address, resource_id, *files]
            process = await _said(command)
            try:
                host = process.line
                for watcher in there.watchers:
                    with trio.fail_after(PATIENCE):
                        while host not in await watcher.found():  # noqa: ASYNC110 - asked of another process
                            await trio.sleep(0.1)
                await trio.sleep(SETTLED)
            finally:
                await process.kill()
            figures.add("light client killed with -9", await there.until(host, is_gone=True))
    figures.print()


async def be_clients(address: str, resource_id: str, count: int) -> None:
    """Provide a service as so many light clients; a line on stdout when all are registered."""
    places, registered = trio.Semaphore(4), 0

    async def be_client() -> None:
        nonlocal registered
        async with AsyncExitStack() as stack:
            async with places:
                while True:
                    try:
                        aqua = await stack.enter_async_context(connect(address))
                        provided = aqua.provide(resource_id, "echo", {"hello": lambda: "hello"})
                        await stack.enter_async_context(provided)
                        break
                    except (RegistryError, NotRegistered):  # the machine is busy
                        await stack.aclose()
            registered += 1
            if registered == count:
                print("registered", flush=True)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(be_client)


async def many_clients_die(there: Area, count: int) -> None:
    """So many light clients that provide, all followed by the same nodes, are killed at once."""
    async with AsyncExitStack() as stack:
        aqua = await stack.enter_async_context(connect(there.nodes[0].address))
        nursery = await stack.enter_async_context(trio.open_nursery())
        processes: list[Speaking] = []
        watchers: list[Watcher] = []
        try:
            for start in range(0, count, PER_PROCESS):
                resource_id, errors = await aqua.createResource(f"many {start}")
                assert resource_id is not None, errors
                node = there.nodes[start // PER_PROCESS % len(there.nodes)].address
                size = min(PER_PROCESS, count - start)
                command = [sys.executable, "-m", "benchmarks.liveness", "--be-clients", node, resource_id, str(size)]
                processes.append(await _said(command))
                watcher = Watcher(aqua, resource_id, aqua.watch(resource_id))
                watchers.append(watcher)
                nursery.start_soon(watcher.follow)
                with trio.fail_after(PATIENCE):
                    while len(await watcher.found()) < size:  # noqa: ASYNC110 - asked of another process
                        await trio.sleep(0.5)
            await trio.sleep(SETTLED)
        finally:
            for process in processes:
                await process.kill()
        before, began = cpu_of_all(there.nodes), trio.current_time()
        with trio.move_on_after(PATIENCE):
            for number, watcher in enumerate(watchers):
                await watcher.until_gone(min(PER_PROCESS, count - number * PER_PROCESS))
        told = sum(len(watcher.gone) for watcher in watchers)
        spent = cpu_of_all(there.nodes) - before
        print(
            f"| {count} light clients killed at once | {told} told within {trio.current_time() - began:.1f} s, "
            f"{spent:.1f} core-seconds of {len(there.nodes)} nodes | aim 15 s, 10 core-seconds |",
            flush=True,
        )
        nursery.cancel_scope.cancel()


async def idle(folder: Path, namespaces: Namespaces, count: int, stored: Sequence[int]) -> None:
    """What a node takes, with presence and without, by how many records are stored."""
    for records in stored:
        shares = []
        for has_presence in (False, True):
            place = folder / f"idle-{records}-{has_presence}"
            place.mkdir()
            async with area(place, namespaces, count, has_presence=has_presence) as there:
                await store(there, records)
                await trio.sleep(30.0)  # until what they say on joining is said
                shares.append(await idle_share(there.nodes, IDLE_TIME))
        print(
            f"| idle, {records} records | {shares[1]:.2%} of a core a node, {shares[0]:.2%} without presence | aim at "
            f"most 0.15 % more |",
            flush=True,
        )


async def store(there: Area, records: int) -> None:
    """Put so many records onto resources of a hundred each, all hosted by one node."""
    async with connect(there.nodes[1].address) as aqua:
        places = trio.Semaphore(16)

        async def put(resource_id: str, host: str) -> None:
            async with places:
                await aqua.registerService(resource_id, "v", host, None)

        async with trio.open_nursery() as nursery:
            hosts = [node.peer_id for node in there.nodes]
            for number in range(records // len(hosts)):
                resource_id, errors = await aqua.createResource(f"stored {number}")
                assert resource_id is not None, errors
                for host in hosts:
                    await places.acquire()
                    places.release()
                    nursery.start_soon(put, resource_id, host)


def be_node(arguments: Sequence[str]) -> None:
    """A node without presence: it says nothing of itself, witnesses nobody and follows nobody."""
    from aqua_compat.cli.start import main as cli

    async def run(self: Liveness, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ARG001
        task_status.started()
        await trio.sleep_forever()

    Liveness.run = run  # type: ignore[method-assign]
    sys.argv[1:] = arguments
    cli()


async def measure(arguments: argparse.Namespace) -> None:
    """All that was asked for, with the one number of nodes that these namespaces are for."""
    [nodes] = arguments.nodes
    namespaces = Namespaces(nodes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"kill", "stop", "vanish", "freeze", "client", "clients"} & {*arguments.only}:
            (folder / "nodes").mkdir()
            async with area(folder / "nodes", namespaces, nodes) as there:
                await faults(there, arguments.only, arguments.rounds)
                if "client" in arguments.only:
                    await client_dies(there, folder, arguments.rounds)
                if "clients" in arguments.only:
                    await many_clients_die(there, arguments.clients)
        if "idle" in arguments.only:
            await idle(folder, namespaces, nodes, arguments.stored)


def main() -> None:
    """Print the table."""
    every = ["kill", "stop", "vanish", "freeze", "client", "clients", "idle"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 8, least=WATCHED_THROUGH + 1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 10_000], help="records, for the idle figures")
    parser.add_argument("--clients", type=int, default=1000, help="light clients that are killed at once")
    parser.add_argument("--be-clients", nargs=3, help=argparse.SUPPRESS)
    if sys.argv[1:2] == ["--be-node"]:
        be_node(sys.argv[2:])
        return
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.be_clients:
        address, resource_id, count = arguments.be_clients
        trio.run(be_clients, address, resource_id, int(count))
        return
    if INSIDE not in os.environ:
        if not are_possible():
            sys.exit("this takes `ip` and `unshare`, and the right to make network namespaces")
        os.environ[INSIDE] = "yes"
        for nodes in arguments.nodes:
            print(f"{nodes} nodes", flush=True)
            if code := reexecuted("benchmarks.liveness", [*sys.argv[1:], "--nodes", str(nodes)]):
                sys.exit(code)
        return
    trio.run(measure, arguments)


if __name__ == "__main__":
    main()
