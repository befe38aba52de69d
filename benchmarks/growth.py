"""What the same operations take as the network grows: times, calls, bytes and CPU of all nodes, side by side.

    python -m benchmarks.growth [--nodes 8 32] [--count 100]

Every node is a process of its own, and the client a light client of one of them, all on this machine: with more nodes
than cores the times include waiting for a core, which the CPU per operation tells apart. What the nodes take when idle
isn't counted in it: it grows with the time that an operation waits, not with what it does. What an operation leaves to
the background is counted: copies to further replicas, entries of indexes, checks. *Told* is from the acknowledgement of
a change to the event of somebody who watches through another node. Aims are those of 32 nodes, and of 32 to 8.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import trio

from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import BACKGROUND, IDLE_TIME, Idle, Observed, OperationFigures, observed
from benchmarks.processes import cpu_of_all, cpu_seconds, node_network, resident_megabytes
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry
from registry.watch.watch import Watch

TOLD_WITHIN = 10.0
WHOLE_AIM, START_AIM, IDLE_AIM, IDLE_BYTES_AIM = 5.0, 1.5, 0.003, 1000
"""Seconds; seconds of CPU; of a core; bytes a second. The idle ones are meant without presence."""
AIMS = {
    "create, one replica": 2.0,
    "register, one replica": 2.0,
    "resolve, ack 1": 1.5,
    "resolve, ack 3": 1.5,
    "create, majority": 3.0,
    "register, majority": 3.0,
    "told": 2.0,
}
"""How many times the p50 may be."""
CPU_AIMS = dict.fromkeys(("register, one replica", "register, majority"), 2.6)
"""The same of the CPU: 20 replicas store instead of 8, and a tenth."""


async def measured(nodes: int, count: int) -> dict[str, OperationFigures]:
    """One network of so many nodes."""
    print(f"\n{nodes} nodes")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        async with node_network(Path(folder), nodes) as processes, AsyncExitStack() as stack:
            identity = Identity.generate()
            client = await stack.enter_async_context(open_light_client(identity, [processes[1].address]))
            network = await stack.enter_async_context(observed(processes))
            started, last = time.perf_counter() - began, processes[-1].process_id
            whole = await network.whole()
            cpu_of_last = cpu_seconds(last) if last is not None else 0.0
            members = [len((await asker.status()).members) for asker in network.askers]
            share, sent = await network.idle_costs(IDLE_TIME)
            memory = [resident_megabytes(process.process_id) for process in processes if process.process_id]
            print(
                f"started in {started:.1f} s, CPU {cpu_of_all(processes) / nodes:.2f} s a node, of the last "
                f"{cpu_of_last:.2f} s until all were linked (aim {START_AIM:g} s); whole {whole:.1f} s after the last "
                f"start (aim {WHOLE_AIM:g} s); members linked {min(members)} to {max(members)}\n"
                f"idle {share:.2%} of a core (aim {IDLE_AIM:.1%}), {sent:.0f} bytes/s (aim {IDLE_BYTES_AIM}), "
                f"{sum(memory) / nodes:.0f} MB a node"
            )
            network = network._replace(idle=Idle(cpu=share * nodes))
            watcher = await stack.enter_async_context(
                open_light_client(Identity.generate(), [processes[nodes // 2].address])
            )
            return await operations(network, client.registry, watcher.registry, identity, count, min(nodes, 20))


async def operations(
    network: Observed, registry: Registry, watcher: Registry, identity: Identity, count: int, replicas: int
) -> dict[str, OperationFigures]:
    """Creating, registering, resolving, and being told."""
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

    found: dict[str, OperationFigures] = {}
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
        found[name] = await network.figures(call, count)
        print(f"  {name:24} {found[name]}", flush=True)
    found["told"] = await told(network, registry, watcher, identity, ids[:count])
    print(f"  {'told':24} {found['told']}", flush=True)
    return found


async def told(
    network: Observed, registry: Registry, watcher: Registry, identity: Identity, ids: Sequence[str]
) -> OperationFigures:
    """How long after the acknowledgement of a change a watcher knows of it; with what the changes cost."""
    events = {resource_id: trio.Event() for resource_id in ids}
    times: dict[str, float] = {}
    delays: list[float] = []

    async def follow(watch: Watch, resource_id: str) -> None:
        async for event in watch:
            if event.record is not None and event.record.metadata.value == "changed":
                times.setdefault(resource_id, time.perf_counter())
                events[resource_id].set()

    async def change(number: int) -> bool:
        resource_id = ids[number]
        done = await registry.register_service(resource_id, "changed", identity.peer_id, "echo", factor=1)
        acknowledged = time.perf_counter()
        with trio.move_on_after(TOLD_WITHIN):
            await events[resource_id].wait()
            delays.append(1000 * max(times[resource_id] - acknowledged, 0.0))
        return done.success and resource_id in times

    async with trio.open_nursery() as nursery:
        for resource_id in ids:
            nursery.start_soon(follow, watcher.watch(resource_id), resource_id)
        await trio.sleep(BACKGROUND)  # until they are watched
        figures = await network.figures(change, len(ids))
        nursery.cancel_scope.cancel()
    delays.sort()
    p50, p99 = (delays[int(len(delays) * part)] if delays else math.nan for part in (0.5, 0.99))
    return figures._replace(timing=figures.timing._replace(p50=p50, p99=p99))


async def main() -> None:
    """Measure each size, then print how the figures grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 8, 32, least=3)
    parser.add_argument("--count", type=int, default=100, help="operations per figure")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sizes = {nodes: await measured(nodes, arguments.count) for nodes in arguments.nodes}
    first, *others = sizes
    for nodes in others:
        print(f"\n{nodes} nodes to {first}: times the p50, times the CPU of all nodes")
        for name, figures in sizes[nodes].items():
            reference = sizes[first][name]
            cpu_aim = f" (aim {CPU_AIMS[name]:g})" if name in CPU_AIMS else ""
            print(
                f"  {name:24} {_times(figures.timing.p50, reference.timing.p50)} (aim {AIMS[name]:g})  "
                f"{_times(figures.costs.cpu, reference.costs.cpu)}{cpu_aim}"
            )


def _times(figure: float, reference: float) -> str:
    """What is too small to be measured is no reference."""
    return f"{figure / reference:5.2f}" if reference > 0 else f"{'-':>5}"


if __name__ == "__main__":
    trio.run(main)
