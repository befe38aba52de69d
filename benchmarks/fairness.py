"""What a modest client notices of a greedy one that acts through the same node.

    python -m benchmarks.fairness [--nodes 3 32] [--in-flight N] [--calls N] [--rounds N]

The nodes are processes of their own, and so is the greedy client, which keeps its calls in flight all the time. The
modest one, in this process, makes one call at a time, in rounds: one alone, one beside the other, which is stopped
meanwhile. The figures are of the fastest rounds: whatever else the machine does only slows down.

Calls, bytes and CPU of all nodes per call of the modest one are printed once for each operation, before there is a
greedy client, with what a call leaves to the background and without what the nodes take when idle. Beside the greedy
one they would be mostly the costs of its calls, whose number isn't known here.
"""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog
import trio

from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import BACKGROUND, observed
from benchmarks.processes import node_network
from benchmarks.timing import Call, Timing, timed
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

LABEL: Final = "beside a greedy client"
OPERATIONS: Final = ("resolve", "create")
WARM_UP: Final = 50  # calls
COSTED: Final = 300  # calls, whose CPU can be told from that of idle nodes
AIM: Final = 3.0  # times the p99 may be
SETTLED: Final = 0.3  # seconds for what is under way, when the greedy client is stopped or goes on


def calls(registry: Registry, resource_id: str, operation: str) -> Call:
    """The calls of an operation."""

    async def resolve(_: int) -> bool:
        return bool((await registry.resolve_resource(resource_id, 1)).records)

    async def create(_: int) -> bool:
        return (await registry.create_resource(uuid4().hex)).resource_id is not None

    return resolve if operation == "resolve" else create


async def be_greedy(address: str, resource_id: str, operation: str, in_flight: int) -> None:
    """Keeps so many calls in flight until it is killed; a line on stdout once some have been answered."""
    async with open_light_client(Identity.generate(), [address]) as client, trio.open_nursery() as nursery:
        call = calls(client.registry, resource_id, operation)

        async def repeat(number: int) -> None:
            for count in range(sys.maxsize):
                await call(count)
                if number == 0 and count == 3:
                    print("busy", flush=True)

        for number in range(in_flight):
            nursery.start_soon(repeat, number)


@contextmanager
def greedy(address: str, resource_id: str, operation: str, in_flight: int) -> Iterator[subprocess.Popen[str]]:
    """A greedy client in a process of its own."""
    arguments = ["--be", address, resource_id, operation, "--in-flight", str(in_flight)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fairness", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "busy":
            raise RuntimeError("the greedy client isn't answered")
        yield process
    finally:
        process.kill()
        process.wait()


async def main(sizes: list[int], in_flight: int, count: int, rounds: int) -> None:
    """Measures, as the command line says."""
    for nodes in sizes:
        print(f"{nodes} node processes", flush=True)
        await measure(nodes, in_flight, count, rounds)


async def measure(nodes: int, in_flight: int, count: int, rounds: int) -> None:
    """Measures on one node of so many."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            node_network(Path(folder), nodes) as network,
            open_light_client(Identity.generate(), [network[0].address]) as client,
        ):
            node, registry = network[0], client.registry
            created = await registry.create_resource(LABEL)
            assert created.resource_id is not None, created.errors
            resource_id = created.resource_id
            await registry.register_service(resource_id, "value", registry.identity.peer_id, None)
            async with observed(network) as askers:
                all_nodes = await askers.knowing_idle()
                for operation in OPERATIONS:
                    call = calls(registry, resource_id, operation)
                    await timed(call, WARM_UP, 1)
                    await trio.sleep(BACKGROUND)  # what goes on there isn't what is measured next
                    print(f"{operation:8} before any other {await all_nodes.figures(call, COSTED)}", flush=True)
            for operation in OPERATIONS:
                call = calls(registry, resource_id, operation)
                await timed(call, WARM_UP, 1)
                for theirs in OPERATIONS:
                    found: dict[bool, list[Timing]] = {True: [], False: []}
                    with greedy(node.address, resource_id, theirs, in_flight) as process:
                        for beside in [True, False] * rounds:
                            process.send_signal(signal.SIGCONT if beside else signal.SIGSTOP)
                            await trio.sleep(SETTLED)
                            found[beside].append(await timed(call, count, 1))
                    alone, together = (min(found[beside], key=lambda timing: timing.p99) for beside in (False, True))
                    print(f"{operation:8} alone               {alone}", flush=True)
                    times = together.p99 / alone.p99
                    print(
                        f"{operation:8} beside {in_flight} {theirs:8} {together}  p99 {times:.1f} times (aim {AIM:g})",
                        flush=True,
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    take_network_sizes(parser, 3)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--be", nargs=3)
    given = parser.parse_args()
    logging.disable(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if given.be:
        trio.run(be_greedy, *given.be, given.in_flight)
    else:
        trio.run(main, given.nodes, given.in_flight, given.calls, given.rounds)
