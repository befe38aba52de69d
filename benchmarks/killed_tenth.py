"""A network of many node processes that is used, loses a tenth of them at once, and is used again: times, and what is
found of what was written before.

    python -m benchmarks.killed_tenth [--nodes 32 64] [--count 20]

Each node is a process, all on this machine: with so many more nodes than cores the times are mostly waiting for a core.
Calls, bytes and CPU are those of all nodes that live per operation, without what they took when idle before. As long as
all live, what a write leaves to the background counts with it (a read leaves nothing that would be seen beside seconds
of so many idle nodes); then come writes whose costs nobody asks for, so that the kill follows at once. After it nobody
waits: the costs are of the time in which the operations went on, with all that the others do meanwhile to make up for
the dead. The first search for what was written has none, since asking each node for its counters would delay it.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, start_network, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import BACKGROUND, Observed, OperationFigures, observed
from benchmarks.processes import cpu_of_all, idle_share, resident_megabytes
from benchmarks.timing import Timing, timed
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

STARTED_WITHIN = 300.0  # seconds for each node, beside all others
ASKED = 8  # nodes, about, whose links show whether all are linked; asking more would take longer than linking
IDLE_TIME = 10.0
ACK = 3
AFTER = (0.0, 10.0, 30.0)
"""Seconds after the kill at which the network is used again."""

Call = Callable[[int], Awaitable[bool]]


class _Used:
    """What one client does: it creates resources, registers on them and resolves them."""

    def __init__(self, registry: Registry, peer_id: str) -> None:
        self._registry = registry
        self._peer_id = peer_id
        self.written: list[str] = []

    async def use(self, name: str, count: int, network: Observed | None = None, background: float = 0.0) -> None:
        """`count` of each operation, one at a time; prints how long each took, and, of a network, what it cost all
        nodes, with what they do within `background` seconds after the last write."""
        new: list[str] = []
        before = len(self.written)

        async def create(number: int) -> bool:
            created = await self._registry.create_resource(f"{name} {number}", factor=1)
            if created.resource_id is not None:
                new.append(created.resource_id)
            return created.resource_id is not None

        async def register(number: int) -> bool:
            done = await self._registry.register_service(new[number], "v", self._peer_id, "echo", factor=1)
            if done.success:
                self.written.append(new[number])
            return done.success

        async def measured(call: Call, number: int, waited: float) -> OperationFigures | Timing:
            if network is None:
                return await timed(call, number, 1)
            return await network.figures(call, number, background=waited)

        print(name)
        print(f"  create         {await measured(create, count, background)}")
        print(f"  register       {await measured(register, len(new), background)}")
        ids = self.written[before:]
        print(f"  resolve, ack {ACK} {await measured(self._resolving(ids), len(ids), 0)}", flush=True)

    async def find(self, network: Observed | None = None) -> int:
        """Resolve all that was acknowledged, print how long that took and how many weren't found, and, of a network,
        what it cost all nodes; how many."""
        call, count = self._resolving(self.written), len(self.written)
        if network is None:
            timing, costs = await timed(call, count, 4), None
        else:
            timing, costs = await network.figures(call, count, 4, background=0)
        print(f"  of {count} that were acknowledged before, {timing.failed} weren't found")
        print(f"  resolve, ack {ACK} {timing}{f'  {costs}' if costs else ''}", flush=True)
        return timing.failed

    def _resolving(self, ids: Sequence[str]) -> Call:
        async def resolve(number: int) -> bool:
            return len((await self._registry.resolve_resource(ids[number], ACK)).records or ()) == 1

        return resolve


async def measured(folder: Path, count: int, operations: int) -> int:
    """Of a network of `count` nodes; how much of what was acknowledged wasn't found."""
    nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(count)]
    began = time.perf_counter()
    try:
        await start_network(nodes, "--listen", "/ip4/127.0.0.1/tcp/0", timeout=STARTED_WITHIN)
        ready = time.perf_counter()
        async with observed(nodes[:: max(count // ASKED, 1)], STARTED_WITHIN) as askers:
            await askers.whole()
            print(f"{count} nodes ready after {ready - began:.1f} s, whole {time.perf_counter() - ready:.1f} s later")
        share = await idle_share(nodes, IDLE_TIME)
        memory = [resident_megabytes(node.process_id) for node in nodes if node.process_id]
        print(
            f"CPU {cpu_of_all(nodes) / count:.2f} s a node since the start, idle {share:.2%} of a core, "
            f"{sum(memory) / count:.0f} MB",
            flush=True,
        )
        identity = Identity.generate()
        async with (
            observed(nodes, STARTED_WITHIN) as askers,
            open_light_client(identity, [nodes[-1].address], timeout=STARTED_WITHIN) as user,
        ):
            used = _Used(user.registry, identity.peer_id)
            network = await askers.knowing_idle()
            await used.use("all alive", operations, network, BACKGROUND)
            await used.use("just before the kill", operations)
            doomed = nodes[1 : 1 + max(count // 10, 1)]
            async with trio.open_nursery() as nursery:
                for node in doomed:
                    nursery.start_soon(node.kill)
            killed = trio.current_time()
            lost, network = await used.find(), network.without(doomed)
            for after in AFTER:
                await trio.sleep_until(killed + after)
                at = trio.current_time() - killed
                await used.use(f"{at:.0f} s after {len(doomed)} were killed", operations, network)
            return lost + await used.find(network)
    finally:
        await stop_network(nodes)


async def main() -> None:
    """Measure each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 64, least=ACK + 1)
    parser.add_argument("--count", type=int, default=20, help="operations per figure [20]")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    lost = 0
    for nodes in arguments.nodes:
        with tempfile.TemporaryDirectory() as folder:
            lost += await measured(Path(folder), nodes, arguments.count)
    if lost:
        raise SystemExit(f"{lost} of what was acknowledged wasn't found")


if __name__ == "__main__":
    trio.run(main)
