"""What the same operations take as the network grows: times, calls, bytes and CPU of all nodes, side by side.

    python -m benchmarks.growth [--nodes 8 32] [--count 100]

Every node is a process of its own, and the client a light client of one of them, all on this machine: with more nodes
than cores the times include waiting for a core, which the CPU per operation tells apart. What the nodes take when idle
isn't counted in it: it grows with the time that an operation waits, not with what it does. What an operation leaves to
the background is counted: copies to further replicas, entries of indexes, checks.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.processes import cpu_of_all, cpu_seconds, idle_share, node_network, resident_megabytes
from benchmarks.timing import timed
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

IDLE_TIME = 10.0
SETTLED_WITHIN = 60.0
BACKGROUND = 4.0
"""Seconds in which what operations left to the background is done, and counted with them."""


class Figures(NamedTuple):
    """Of one operation: milliseconds, then calls, kilobytes and CPU milliseconds of all nodes per operation."""

    p50: float
    p99: float
    failed: int
    calls: float
    kilobytes: float
    cpu: float

    def __str__(self) -> str:
        failed = f"  {self.failed} FAILED" if self.failed else ""
        return (
            f"p50 {self.p50:8.1f} ms  p99 {self.p99:8.1f} ms  {self.calls:6.1f} calls  {self.kilobytes:7.1f} kB  "
            f"CPU {self.cpu:7.1f} ms{failed}"
        )


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

    async def whole(self) -> None:
        """Wait until each node is linked as it wants to be: until nobody's members change for a second."""
        with trio.fail_after(SETTLED_WITHIN):
            before: list[frozenset[str]] = []
            while True:
                now = [frozenset((await asker.status()).members) for asker in self.askers]
                if now == before and all(now):
                    return
                before = now
                await trio.sleep(1)

    async def figures(self, call: Callable[[int], Awaitable[bool]], count: int) -> Figures:
        """Of `count` calls, one at a time, with what they leave to the background."""
        calls, sent = await self.counters()
        began, cpu = time.perf_counter(), cpu_of_all(self.nodes)
        timing = await timed(call, count, 1)
        await trio.sleep(BACKGROUND)
        used = cpu_of_all(self.nodes) - cpu - self.idle * (time.perf_counter() - began)
        calls_after, sent_after = await self.counters()
        return Figures(
            timing.p50,
            timing.p99,
            timing.failed,
            (calls_after - calls) / count,
            (sent_after - sent) / count / 1000,
            used / count * 1000,
        )


async def measured(nodes: int, count: int) -> dict[str, Figures]:
    """One network of so many nodes."""
    print(f"\n{nodes} nodes")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        async with node_network(Path(folder), nodes) as processes, AsyncExitStack() as stack:
            identity = Identity.generate()
            client = await stack.enter_async_context(open_light_client(identity, [processes[1].address]))
            askers = [
                (await stack.enter_async_context(open_light_client(Identity.generate(), [process.address]))).registry
                for process in processes
            ]
            observed = Observed(processes, askers)
            started, last = time.perf_counter() - began, processes[-1].process_id
            await observed.whole()
            cpu_of_last = cpu_seconds(last) if last is not None else 0.0
            members = [len((await asker.status()).members) for asker in askers]
            share = await idle_share(processes, IDLE_TIME)
            memory = [resident_megabytes(process.process_id) for process in processes if process.process_id]
            print(
                f"started in {started:.1f} s, CPU {cpu_of_all(processes) / nodes:.2f} s a node, of the last "
                f"{cpu_of_last:.2f} s until all were linked; members linked {min(members)} to {max(members)}; "
                f"idle {share:.2%} of a core, {sum(memory) / nodes:.0f} MB a node"
            )
            observed = observed._replace(idle=share * nodes)
            return await operations(observed, client.registry, identity, count, min(nodes, 20))


async def operations(
    observed: Observed, registry: Registry, identity: Identity, count: int, replicas: int
) -> dict[str, Figures]:
    """Creating, registering and resolving."""
    ids: list[str] = []

    async def create(label: str, factor: int, number: int) -> bool:
        created = await registry.create_resource(f"{label} {number}", factor=factor)
        if created.resource_id is not None:
            ids.append(created.resource_id)
        return created.resource_id is not None

    async def register(factor: int, number: int) -> bool:
        done = await registry.register_service(ids[number], "v", identity.peer_id, "echo", factor=factor)
        return done.success

    async def resolve(ack: int, number: int) -> bool:
        return len((await registry.resolve_resource(ids[number], ack)).records or ()) == 1

    found: dict[str, Figures] = {}
    majority = replicas // 2 + 1
    for name, call in (
        ("create, one replica", partial(create, "one", 1)),
        ("register, one replica", partial(register, 1)),
        ("resolve, ack 1", partial(resolve, 1)),
        ("resolve, ack 3", partial(resolve, 3)),
        ("create, majority", partial(create, "most", majority)),
        ("register, majority", partial(register, majority)),
    ):
        if name == "create, majority":
            ids.clear()
        found[name] = await observed.figures(call, count)
        print(f"  {name:24} {found[name]}", flush=True)
    return found


async def main() -> None:
    """Measure each size, then print how the figures grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--count", type=int, default=100, help="operations per figure")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sizes = {nodes: await measured(nodes, arguments.count) for nodes in arguments.nodes}
    first, *others = sizes
    for nodes in others:
        print(f"\n{nodes} nodes to {first}: p50, CPU of all nodes")
        for name, figures in sizes[nodes].items():
            reference = sizes[first][name]
            print(f"  {name:24} {figures.p50 / reference.p50:5.2f}  {figures.cpu / reference.cpu:5.2f}")


if __name__ == "__main__":
    trio.run(main)
