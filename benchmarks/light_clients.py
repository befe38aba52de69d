"""What idle light clients cost the node that they act through, and what another client notices of them.

    python -m benchmarks.light_clients [--nodes 1 8] [--clients 100 1000]

Every node is a process of its own, of one network, which is one node by default; all clients act through the first. The
idle ones share other processes, 250 in each; one more client, in this process, resolves before and beside them.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import observed
from benchmarks.processes import cpu_seconds, node_network, resident_megabytes
from benchmarks.timing import timed
from overlay import OverlaySettings, open_peer
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

PER_PROCESS: Final = 250
AT_ONCE: Final = 8  # clients of one process that connect at the same time
PATIENCE: Final = 60.0  # seconds for one client to be linked
IDLE_TIME: Final = 60.0
RESOLVES: Final = 200


async def be_clients(address: str, count: int) -> None:
    """Be so many idle light clients; a line on stdout when all are linked."""
    settings = OverlaySettings(listen=(), member=False, bootstrap=(address,))
    places = trio.Semaphore(AT_ONCE)
    linked = 0

    async def be_client() -> None:
        nonlocal linked
        await places.acquire()
        async with open_peer(Identity.generate(), settings) as peer:
            with trio.move_on_after(PATIENCE):
                await peer.wait_joined()
                linked += 1
            places.release()
            if linked == count:
                print("linked", flush=True)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(be_client)


@contextmanager
def clients(address: str, count: int) -> Iterator[None]:
    """So many idle light clients, linked, in processes of their own."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.light_clients", "--be", address, str(min(PER_PROCESS, count - start))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in range(0, count, PER_PROCESS)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "linked":
                raise RuntimeError("not all clients could be linked")
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def resolving(registry: Registry, resource_id: str) -> str:
    """How long resolving takes, in words."""

    async def resolve(_: int) -> bool:
        return bool((await registry.resolve_resource(resource_id, 1)).records)

    return str(await timed(resolve, RESOLVES, 1))


async def measure(node: NodeProcess, registry: Registry, resource_id: str, count: int) -> None:
    """Measures what `count` idle light clients cost a node, and prints it."""
    assert node.process_id is not None
    memory, cpu, began = resident_megabytes(node.process_id), cpu_seconds(node.process_id), time.monotonic()
    print(f"{count} idle light clients", flush=True)
    print(f"  resolve without them     {await resolving(registry, resource_id)}", flush=True)
    with clients(node.address, count):
        print(
            f"  linked                   {time.monotonic() - began:.1f} s for all, node:"
            f" {(cpu_seconds(node.process_id) - cpu) / count * 1000:.1f} ms of CPU and"
            f" {(resident_megabytes(node.process_id) - memory) / count * 1000:.0f} kB each",
            flush=True,
        )
        cpu = cpu_seconds(node.process_id)
        await trio.sleep(IDLE_TIME)
        share = (cpu_seconds(node.process_id) - cpu) / IDLE_TIME
        print(f"  idle                     node: {share:.2%} of a core", flush=True)
        print(f"  resolve beside them      {await resolving(registry, resource_id)}", flush=True)


async def main(sizes: list[int], counts: list[int]) -> None:
    """Measures, as the command line says."""
    for nodes in sizes:
        await measure_network(nodes, counts)


async def measure_network(nodes: int, counts: list[int]) -> None:
    """Measures on the first of so many nodes."""
    print(f"{nodes} node processes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            node_network(Path(folder), nodes) as network,
            open_light_client(Identity.generate(), [network[0].address]) as client,
        ):
            async with observed(network) as askers:
                await askers.whole()
            created = await client.registry.create_resource("beside many")
            assert created.resource_id is not None, created.errors
            registered = await client.registry.register_service(created.resource_id, "value", client.peer.peer_id, "s")
            assert registered.success, registered.errors
            for count in counts:
                await measure(network[0], client.registry, created.resource_id, count)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 1)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000], help="idle light clients")
    parser.add_argument("--be", nargs=2, metavar=("ADDRESS", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        trio.run(be_clients, arguments.be[0], int(arguments.be[1]))
    else:
        trio.run(main, arguments.nodes, arguments.clients)
