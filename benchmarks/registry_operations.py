"""Registering and resolving over node processes, beside py-libp2p's own KadDHT on the same machine and run.

    python -m benchmarks.registry_operations [--nodes 8 32] [--count N] [--no-kad]

Every process is real, every acknowledged registration is on disk; figures are of one run on a machine that does
nothing else. Up to twenty nodes are all replicas of everything, and this process is a light client of one of them.
Calls, bytes and CPU are those of all nodes per operation, with what it leaves to the background and without what they
take when idle.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import BACKGROUND, IDLE_TIME, Costs, observed
from benchmarks.processes import cpu_seconds, resident_megabytes
from benchmarks.timing import Timing, timed
from overlay.identity import Identity
from overlay.settings import OverlaySettings
from registry.client.light import open_light_client
from registry.client.registry import Registry
from registry.node import open_node
from registry.settings import NodeSettings, RegistrySettings

NODES = 8
REPLICAS = RegistrySettings().neighbourhood_size


@asynccontextmanager
async def network(folder: Path, count: int = NODES) -> AsyncIterator[list[NodeProcess]]:
    """So many nodes; prints how long each takes from its start to `ready`."""
    nodes = [NodeProcess(folder / f"node{number}", folder / f"node{number}.log") for number in range(count)]
    try:
        times: list[float] = []
        for number, node in enumerate(nodes):
            before = time.perf_counter()
            flags = ("--bootstrap", nodes[0].address) if number else ()
            await node.start("--listen", "/ip4/127.0.0.1/tcp/0", *flags)
            times.append(time.perf_counter() - before)
        print(f"start to ready          median {sorted(times)[count // 2]:.2f} s  slowest {max(times):.2f} s")
        yield nodes
    finally:
        await stop_network(nodes)


async def idle(nodes: list[NodeProcess], when: str) -> None:
    """Measures the CPU time of idle nodes, and prints it."""
    process_ids = [node.process_id for node in nodes if node.process_id]
    before = [cpu_seconds(process_id) for process_id in process_ids]
    await trio.sleep(IDLE_TIME)
    used = [(cpu_seconds(p) - b) / IDLE_TIME * 100 for p, b in zip(process_ids, before, strict=True)]
    memory = [resident_megabytes(process_id) for process_id in process_ids]
    print(
        f"idle, {when:17} CPU mean {sum(used) / len(used):.2f} %  highest {max(used):.2f} %"
        f"   memory mean {sum(memory) / len(memory):.0f} MB  highest {max(memory):.0f} MB"
    )


def report(what: str, timing: Timing, costs: Costs | None = None, reference: Timing | None = None) -> None:
    """Prints one measurement, what it cost all nodes, and how many times faster than the Kad-DHT's it is."""
    ratio = f"  {reference.p50 / timing.p50:5.0f} x KadDHT" if reference else ""
    print(f"{what:44} {timing}{f'  {costs}' if costs else ''}{ratio}")


async def prepared(registry: Registry, count: int, label: str, replicas: int = NODES) -> list[str]:
    """Ids of `count` new resources that so many nodes have."""
    ids: list[str] = []

    async def create(number: int) -> bool:
        created = await registry.create_resource(f"{label} {number}", factor=replicas)
        if created.resource_id is not None:
            ids.append(created.resource_id)
        return created.resource_id is not None

    timing = await timed(create, count, 16)
    assert not timing.failed, timing
    return ids


async def measure(nodes: list[NodeProcess], folder: Path, count: int, kad: tuple[Timing, Timing] | None) -> None:
    """Measures each operation of a light client, and prints it."""
    put, get = kad or (None, None)
    replicas = min(len(nodes), REPLICAS)
    identity = Identity.generate()
    async with observed(nodes) as askers, open_light_client(identity, [nodes[1].address]) as client:
        registry, all_nodes = client.registry, await askers.knowing_idle()

        async def register(ids: list[str], factor: int, number: int) -> bool:
            done = await registry.register_service(ids[number], "v", identity.peer_id, "echo", factor=factor)
            return done.success

        async def resolve(ids: list[str], ack: int, number: int) -> bool:
            return len((await registry.resolve_resource(ids[number % len(ids)], ack)).records or ()) == 1

        ids: list[str] = []
        for factor, name in ((1, "by one replica"), (replicas, "by all")):
            for in_flight in (1, 32):
                number = count * 3 if in_flight > 1 else count
                ids = await prepared(registry, number, f"{name} {in_flight}", replicas)
                await trio.sleep(BACKGROUND)  # what goes on there isn't what is measured next
                figures = await all_nodes.figures(partial(register, ids, factor), number, in_flight)
                report(f"register, {name}, {in_flight} in flight", *figures, put if in_flight == 1 else None)
        for ack in (1, 3):
            for in_flight in (1, 32):
                number = count * 10 if in_flight > 1 else count * 2
                figures = await all_nodes.figures(partial(resolve, ids, ack), number, in_flight)
                what = f"resolve, light client, ack {ack}, {in_flight} in flight"
                report(what, *figures, get if in_flight == 1 else None)
    settings = NodeSettings(overlay=OverlaySettings(bootstrap=(nodes[0].address,)))
    async with open_node(Identity.generate(), settings, folder / "replica") as replica:
        await replica.peer.wait_joined()
        own = [f"own {number}" for number in range(100)]
        own_ids = [
            (await replica.registry.create_resource(label, factor=min(len(nodes) + 1, REPLICAS))).resource_id or ""
            for label in own
        ]
        for resource_id in own_ids:
            assert (await replica.registry.register_service(resource_id, "v", replica.peer.peer_id, "echo")).success
        await trio.sleep(3)  # until its own state may answer alone

        async def resolve_here(number: int) -> bool:
            resolved = await replica.registry.resolve_resource(own_ids[number % len(own_ids)], 1)
            return len(resolved.records or ()) == 1

        for in_flight in (1, 32):
            timing = await timed(resolve_here, count * 20, in_flight)
            what = f"resolve, on a replica, {in_flight} in flight"
            report(what, timing, reference=get if in_flight == 1 else None)


async def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, NODES, least=3)
    parser.add_argument("--count", type=int, default=200, help="registrations per figure; resolves are more")
    parser.add_argument("--no-kad", action="store_true", help="leave the KadDHT reference out")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for nodes in arguments.nodes:
        print(f"Python {platform.python_version()}, {nodes} node processes")
        await measure_all(nodes, arguments.count, with_kad=not arguments.no_kad)


async def measure_all(count: int, operations: int, *, with_kad: bool) -> None:
    """Measures a network of `count` nodes, and prints it."""
    kad: tuple[Timing, Timing] | None = None
    if with_kad:
        from benchmarks import kad_reference

        kad = await kad_reference.measure(count, 30)
        report("reference: KadDHT.put_value, 1 in flight", kad[0])
        report("reference: KadDHT.get_value, 1 in flight", kad[1])
    with tempfile.TemporaryDirectory() as folder:
        async with network(Path(folder), count) as nodes:
            await trio.sleep(3)
            await idle(nodes, "nothing stored")
            await measure(nodes, Path(folder), operations, kad)
            await trio.sleep(10)  # until the others have made up for the node that just left
            await idle(nodes, "after the above")


if __name__ == "__main__":
    trio.run(main)
