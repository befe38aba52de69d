"""What operations cost all nodes of a network together: calls, bytes and CPU, beside the times."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.processes import age, cpu_of_all, idle_share
from benchmarks.timing import Timing, timed
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

IDLE_TIME = 10.0
SETTLED_WITHIN, COMPARED_WITHIN = 60.0, 600.0
BACKGROUND = 4.0
"""Seconds in which what operations left to the background is done, and counted with them."""


class Costs(NamedTuple):
    """Calls, kilobytes sent and CPU milliseconds of all nodes per operation."""

    calls: float
    kilobytes: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.calls:6.1f} calls  {self.kilobytes:7.1f} kB  CPU {self.cpu:7.1f} ms"


class OperationFigures(NamedTuple):
    """Of one operation."""

    timing: Timing
    costs: Costs

    def __str__(self) -> str:
        return f"{self.timing}  {self.costs}"


class Spent(NamedTuple):
    """What all nodes had made of calls, sent of bytes and used of CPU seconds at a moment (`time.perf_counter`)."""

    calls: int
    sent: int
    cpu: float
    when: float


class Observed(NamedTuple):
    """The nodes of a network, and somebody who asks each for its counters."""

    nodes: Sequence[NodeProcess]
    askers: Sequence[Registry]
    idle: float = 0.0
    """CPU seconds a second that all nodes together take when nobody asks for anything."""

    async def counters(self) -> tuple[int, int]:
        """Calls made and bytes sent by all nodes since their start."""
        calls = sent = 0
        for asker in self.askers:
            overlay = (await asker.status()).overlay
            assert overlay is not None
            calls += overlay.calls_made
            sent += overlay.bytes_sent
        return calls, sent

    async def whole(self) -> float:
        """Wait until each node is linked as it wants to be: until nobody's members change for a second. Returns how old
        the node that was started last was by then, which is more than it need be if that was so when first asked."""
        last, is_alone = self.nodes[-1].process_id, len(self.nodes) == 1
        assert last is not None
        with trio.fail_after(SETTLED_WITHIN):
            before: list[frozenset[str]] = []
            since = 0.0
            while True:
                now = [frozenset((await asker.status()).members) for asker in self.askers]
                if now != before or not (all(now) or is_alone):
                    since = age(last)
                elif age(last) - since >= 1:
                    return since
                before = now
                await trio.sleep(0.25)

    async def settled(self) -> None:
        """Wait until no node has anything left to compare with others, or to copy from them."""
        with trio.fail_after(COMPARED_WITHIN):
            for asker in self.askers:
                while True:
                    replication = (await asker.status()).replication
                    if replication is not None and replication.settled:
                        break
                    await trio.sleep(0.05)

    async def idle_costs(self, seconds: float) -> tuple[float, float]:
        """The share of a core and the bytes a second that a node takes and sends when nobody asks for anything."""
        _, first = await self.counters()
        _, before = await self.counters()
        share = await idle_share(self.nodes, seconds)
        _, after = await self.counters()
        asking = before - first
        return share, (after - before - asking) / seconds / len(self.nodes)

    async def knowing_idle(self, seconds: float = IDLE_TIME) -> Observed:
        """The same, with what all take when nobody asks for anything, as it is from now on."""
        return self._replace(idle=await idle_share(self.nodes, seconds) * len(self.nodes))

    async def spent(self) -> Spent:
        """So far. What asking for it makes the nodes send doesn't count in `costs`."""
        _, first = await self.counters()
        calls, sent = await self.counters()
        return Spent(calls, 2 * sent - first, cpu_of_all(self.nodes), time.perf_counter())

    async def costs(self, before: Spent, count: int) -> Costs:
        """Of each of `count` operations since then, with what they leave to the background, which is waited for."""
        await trio.sleep(BACKGROUND)
        used = cpu_of_all(self.nodes) - before.cpu - self.idle * (time.perf_counter() - before.when)
        calls, sent = await self.counters()
        return Costs((calls - before.calls) / count, (sent - before.sent) / count / 1000, used / count * 1000)

    async def figures(self, call: Callable[[int], Awaitable[bool]], count: int, in_flight: int = 1) -> OperationFigures:
        """Of `count` calls, so many at a time, with what they leave to the background."""
        before = await self.spent()
        timing = await timed(call, count, in_flight)
        return OperationFigures(timing, await self.costs(before, count))


@asynccontextmanager
async def observed(nodes: Sequence[NodeProcess]) -> AsyncIterator[Observed]:
    """A light client of each node, to ask for its counters."""
    async with AsyncExitStack() as stack:
        clients = [open_light_client(Identity.generate(), [node.address]) for node in nodes]
        yield Observed(nodes, [(await stack.enter_async_context(client)).registry for client in clients])
