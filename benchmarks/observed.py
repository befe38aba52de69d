"""What operations cost all nodes of a network together: calls, bytes and CPU, beside the times."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import trio

from benchmarks.processes import RunningNode, age, cpu_of_all, idle_share
from benchmarks.timing import Timing, timed
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

IDLE_TIME = 10.0
LINKED_WITHIN, SETTLED_WITHIN, COMPARED_WITHIN = 6.0, 60.0, 600.0
ASKED_AT_ONCE = 8  # nodes, for their counters: far away each takes a round trip
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
    sent: float
    """With what asking for this makes them send, which they count afterwards."""
    cpu: float
    when: float
    asking: float
    """Bytes that this is."""


class Idle(NamedTuple):
    """What all nodes together make of calls, send of bytes and take of CPU seconds in a second in which nobody asks for
    anything."""

    calls: float = 0.0
    sent: float = 0.0
    cpu: float = 0.0

    def times(self, factor: float) -> Idle:
        """In so many seconds, or of another number of nodes."""
        return Idle(*(factor * figure for figure in self))


class Observed(NamedTuple):
    """The nodes of a network, and for each somebody who asks it for its counters."""

    nodes: Sequence[RunningNode]
    askers: Sequence[Registry]
    idle: Idle = Idle()
    """What doesn't count in `costs`."""
    asking: float | None = None
    """Bytes that all send when they are asked for their counters; None where that isn't known."""

    def without(self, gone: Sequence[RunningNode]) -> Observed:
        """The others, for what is measured while these are killed or after: their counters are gone then, and who is
        counted before and isn't after would make the others' work look less."""
        pairs = [(node, asker) for node, asker in zip(self.nodes, self.askers, strict=True) if node not in gone]
        share = len(pairs) / len(self.nodes)
        asking = None if self.asking is None else self.asking * share
        return Observed([node for node, _ in pairs], [asker for _, asker in pairs], self.idle.times(share), asking)

    async def counters(self) -> tuple[int, int]:
        """Calls made and bytes sent by all nodes since their start."""
        calls = sent = 0
        places = trio.CapacityLimiter(ASKED_AT_ONCE)

        async def ask(asker: Registry) -> None:
            nonlocal calls, sent
            async with places:
                overlay = (await asker.status()).overlay
            assert overlay is not None
            calls += overlay.calls_made
            sent += overlay.bytes_sent

        async with trio.open_nursery() as nursery:
            for asker in self.askers:
                nursery.start_soon(ask, asker)
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
        """The same, with what all take when nobody asks for anything, and what asking takes, as it is from now on."""
        before = await self._replace(asking=None).spent()
        await trio.sleep(seconds)
        used, elapsed = cpu_of_all(self.nodes) - before.cpu, time.perf_counter() - before.when
        calls, sent = await self.counters()
        idle = Idle(calls - before.calls, sent - before.sent, used).times(1 / elapsed)
        return self._replace(idle=idle, asking=before.asking)

    async def spent(self) -> Spent:
        """So far. What asking for it makes the nodes send doesn't count in `costs`: they are asked twice where that
        isn't known, which takes quiet nodes."""
        calls, sent = await self.counters()
        asking = self.asking
        if asking is None:
            first = sent
            calls, sent = await self.counters()
            asking = sent - first
        return Spent(calls, sent + asking, cpu_of_all(self.nodes), time.perf_counter(), asking)

    async def costs(self, before: Spent, count: int, background: float = BACKGROUND) -> Costs:
        """Of each of `count` operations since then, with what they leave to the background, which is waited for so many
        seconds. What can't be told from what the nodes take when idle is 0. No node may have died since."""
        await trio.sleep(background)
        cpu, idle = cpu_of_all(self.nodes), self.idle.times(time.perf_counter() - before.when)
        calls, sent = await self.counters()
        made, kilobytes = calls - before.calls - idle.calls, (sent - before.sent - idle.sent) / 1000
        milliseconds = (cpu - before.cpu - idle.cpu) * 1000
        return Costs(*(max(figure, 0.0) / count for figure in (made, kilobytes, milliseconds)))

    async def figures(
        self,
        call: Callable[[int], Awaitable[bool]],
        count: int,
        in_flight: int = 1,
        *,
        background: float = BACKGROUND,
    ) -> OperationFigures:
        """Of `count` calls, so many at a time, with what they leave to the background, as `costs` says."""
        before = await self.spent()
        timing = await timed(call, count, in_flight)
        return OperationFigures(timing, await self.costs(before, count, background))


@asynccontextmanager
async def observed(nodes: Sequence[RunningNode], timeout: float = LINKED_WITHIN) -> AsyncIterator[Observed]:
    """A light client of each node, to ask for its counters; it may take so many seconds to link with it."""
    async with AsyncExitStack() as stack:
        clients = [open_light_client(Identity.generate(), [node.address], timeout=timeout) for node in nodes]
        yield Observed(nodes, [(await stack.enter_async_context(client)).registry for client in clients])
