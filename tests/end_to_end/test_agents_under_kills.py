"""Three machines' agents, whose services and nodes die and come back: the list is right within 7 s of each event.

Usage beside pytest, for longer or with other seeds: python -m tests.end_to_end.test_agents_under_kills SECONDS SEED
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess, stop_network
from aqua_compat.rpc.errors import NoProvider
from overlay.identity import load_or_create_identity
from overlay.presence.timings import FLAP_WINDOW, FLAPS
from tests.end_to_end.forked import fork_server

INTERVAL: Final = 2.0  # seconds between two checks of a service
TIMEOUT: Final = 1.0  # seconds for one
BOUND: Final = 7.0  # seconds from an event until the list is right
LOOK: Final = 0.2  # seconds between two looks at the lists
MACHINES: Final = 3
_ANSWERS: Final = {"passes": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "fails": b"HTTP/1.1 503 No\r\n\r\n"}


class Program:
    """A service's program, in this process: answers its check, with a fault, not at all, or isn't there."""

    def __init__(self, label: str, machine: int) -> None:
        self.label = label
        self.machine = machine
        self.port = 0
        self.state = "passes"
        self._scope = trio.CancelScope()

    @property
    def location(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def begin(self, nursery: trio.Nursery) -> None:
        """Listens, on the port that it had if it had one."""
        self.state = "passes"
        self.port = await nursery.start(self._serve)

    def end(self) -> None:
        """Nobody listens any more."""
        self.state = "dead"
        self._scope.cancel()

    async def _serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self._scope:
            [listener] = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            task_status.started(listener.socket.getsockname()[1])
            await trio.serve_listeners(self._answer, [listener])

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(60):
            try:
                await stream.receive_some(4096)
                if self.state == "hangs":
                    await stream.receive_some(4096)  # until the check has given up
                else:
                    await stream.send_all(_ANSWERS[self.state])
            except trio.BrokenResourceError:
                pass
        await trio.aclose_forcefully(stream)


class Machines:
    """A node at which others look, and three with the agents; each service is on all of these."""

    def __init__(self, folder: Path, labels: int, nursery: trio.Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        names = ("entry", *(f"agent-{number}" for number in range(MACHINES)))
        self.entry, *self.agents = (
            NodeProcess(folder / name, folder / f"{name}.log", fork_server().open_process) for name in names
        )
        self._programs = [
            Program(f"service-{number}", machine) for number in range(labels) for machine in range(MACHINES)
        ]
        self.owner = load_or_create_identity(folder / "owner.json").peer_id

    async def start(self) -> None:
        await self.entry.start(timeout=60)
        for program in self._programs:
            await program.begin(self._nursery)
        for machine in range(MACHINES):
            (self._folder / f"services-{machine}").mkdir()
            (self._folder / f"settings-{machine}.toml").write_text(
                f'[agent]\nowner = "{self.owner}"\nowner_keys = ["{self._folder / "owner.json"}"]\n'
                f'services = "{self._folder / f"services-{machine}"}"\n'
            )
            for program in self.of(machine):
                self.define(program)
            await self.start_agent(machine)

    async def start_agent(self, machine: int) -> None:
        settings = str(self._folder / f"settings-{machine}.toml")
        await self.agents[machine].start("--bootstrap", self.entry.address, "--config", settings, timeout=60)

    def of(self, machine: int) -> list[Program]:
        return [program for program in self._programs if program.machine == machine]

    def file_of(self, program: Program) -> Path:
        return self._folder / f"services-{program.machine}" / f"{program.label}.toml"

    def define(self, program: Program) -> None:
        self.file_of(program).write_text(
            f'[[service]]\nname = "{program.label}"\nport = {program.port}\n[[service.check]]\n'
            f'http = "http://{program.location}/"\ninterval = {INTERVAL}\ntimeout = {TIMEOUT}\n'
        )

    def reload(self, machine: int) -> None:
        process_id = self.agents[machine].process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGHUP)

    def right_list(self) -> dict[str, set[str]]:
        """Where each service works, by its label."""
        right: dict[str, set[str]] = {program.label: set() for program in self._programs}
        for program in self._programs:
            is_up = self.agents[program.machine].alive and self.file_of(program).exists()
            if is_up and program.state == "passes":
                right[program.label].add(program.location)
        return right

    async def happen(self, kind: str, machine: int, choice: random.Random) -> Iterable[str]:
        """Has something happen on a machine; the labels of which services that concerns."""
        node, programs = self.agents[machine], self.of(machine)
        program = choice.choice(programs)
        match kind:
            case "kill the node":
                await node.kill()
            case "stop the node":
                await node.stop(timeout=20)
            case "start the node":
                await self.start_agent(machine)
            case "undefine":
                self.file_of(program).unlink(missing_ok=True)
                self.reload(machine)
            case "define":
                for each in programs:
                    self.define(each)
                self.reload(machine)
            case "end":
                program.end()
            case "mend":
                for each in programs:
                    if each.state == "dead":
                        await each.begin(self._nursery)
                    each.state = "passes"
            case state:
                if program.state == "dead":
                    await program.begin(self._nursery)
                program.state = state
        return {each.label for each in programs} if kind in MANY else {program.label}


MANY: Final = ("kill the node", "stop the node", "start the node", "define", "mend")
ONE_OF_EACH: Final = (
    *(("end", 0), ("hangs", 1), ("kill the node", 2), ("mend", 0), ("start the node", 2), ("fails", 2)),
    *(("undefine", 1), ("stop the node", 0)),
)
_WHILE_UP: Final = ("end", "fails", "hangs", "mend", "mend", "undefine", "define", "kill the node", "stop the node")


def by_chance(machines: Machines, choice: random.Random) -> Iterator[tuple[str, int]]:
    """One event after another, without end: two machines are up at least, and none comes back so often that others
    hold it back as one that flaps (docs/liveness.md)."""
    returns: list[list[float]] = [[] for _ in range(MACHINES)]
    while True:
        machine = choice.randrange(MACHINES)
        if not machines.agents[machine].alive:
            returns[machine].append(trio.current_time())
            yield "start the node", machine
            continue
        kind = choice.choice(_WHILE_UP)
        if kind.endswith("the node"):
            recent = [one for one in returns[machine] if trio.current_time() - one < FLAP_WINDOW]
            if len(recent) >= FLAPS - 1 or not all(agent.alive for agent in machines.agents):
                continue
        yield kind, machine


async def wrong(client: AquaClient, machines: Machines, labels: Iterable[str]) -> dict[str, tuple[set[str], set[str]]]:
    """What is listed, and what is right, where these differ."""
    right, differing = machines.right_list(), dict[str, tuple[set[str], set[str]]]()
    for label in labels:
        try:
            found = await client.endpoints(f"{label}@{machines.owner}")
        except NoProvider:
            found = []
        listed = {endpoint.instance.location for endpoint in found}
        if listed != right[label]:
            differing[label] = (listed, right[label])
    return differing


async def until_right(client: AquaClient, machines: Machines, labels: Iterable[str], bound: float) -> float:
    """How long it takes until the lists are right, in seconds. Raises AssertionError once that was `bound`."""
    began = trio.current_time()
    differing: dict[str, tuple[set[str], set[str]]] = {}
    with trio.move_on_after(bound):
        while differing := await wrong(client, machines, labels):  # noqa: ASYNC110 - as whoever looks
            await trio.sleep(LOOK)
        return trio.current_time() - began
    raise AssertionError(f"after {bound:g} s (listed, right): {differing}")


@asynccontextmanager
async def running(folder: Path, labels: int) -> AsyncIterator[Machines]:
    async with trio.open_nursery() as nursery:
        machines = Machines(folder, labels, nursery)
        try:
            await machines.start()
            yield machines
        finally:
            await stop_network([machines.entry, *machines.agents])
        nursery.cancel_scope.cancel()


async def live(
    folder: Path, labels: int, seconds: float, choice: random.Random, events: Iterable[tuple[str, int]] = ()
) -> list[tuple[float, str]]:
    """Lets things happen for so long, or the `events`; how long each took until the lists were right."""
    took: list[tuple[float, str]] = []
    async with running(folder, labels) as machines, connect(machines.entry.address) as client:
        everything = sorted(machines.right_list())
        await until_right(client, machines, everything, bound=60)
        began = trio.current_time()
        for kind, machine in events or by_chance(machines, choice):
            if trio.current_time() - began > seconds:
                break
            concerned = await machines.happen(kind, machine, choice)
            try:
                seconds_until = await until_right(client, machines, concerned, BOUND)
                assert await wrong(client, machines, everything) == {}, "others' lists changed"
            except AssertionError as error:
                raise AssertionError(f"{kind}, machine {machine}, after {len(took)} events: {error}") from None
            took.append((seconds_until, kind))
    return took


def worst(took: Iterable[tuple[float, str]]) -> str:
    """The longest time of each kind of event, in words."""
    by_kind = itertools.groupby(sorted(took, key=lambda one: one[1]), key=lambda one: one[1])
    lists = {kind: [seconds for seconds, _ in group] for kind, group in by_kind}
    return ", ".join(f"{kind}: {len(each)}, at most {max(each):.1f} s" for kind, each in lists.items())


async def test_lists_are_right_soon_after_whatever_happens_to_services_and_agents(tmp_path: Path) -> None:
    took = await live(tmp_path, 2, 100, random.Random(1), ONE_OF_EACH)
    assert len(took) == len(ONE_OF_EACH)
    print(worst(took))  # noqa: T201


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_fifty_services_are_listed_rightly_for_three_minutes_of_kills(tmp_path: Path) -> None:
    took = await live(tmp_path, 17, 180, random.Random())
    assert len(took) > 20
    print(worst(took))  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        run = partial(live, Path(temporary), 17, float(sys.argv[1]), random.Random(int(sys.argv[2])))
        print(worst(trio.run(run)))  # noqa: T201
