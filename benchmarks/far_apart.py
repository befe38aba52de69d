"""What operations take where nodes are far from each other: hosts of their own, 100 ms and 1 % loss between them.

    python -m benchmarks.far_apart [--nodes 8 32] [--round-trip 0.1] [--loss 0.01] [--count 20]

It ends with the lookups of all nodes that a deadline cut short, which are to be none.

Needs root, for network namespaces (`benchmarks.wide_area`). The client is a light client on the host of the second
node; what it reads was written through another. *Cold*: a resource that its node has never heard of.

Calls, bytes and CPU are those of all nodes per operation, without what they take when idle; the switch's and the
client's own don't count. What an operation leaves to the background counts with it, seconds that no time contains.
What is read cold was written just before, so that what that left to the background counts with its reads.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess, stop_network
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import Costs, Observed, observed
from benchmarks.processes import NodeOfAnother
from benchmarks.wide_area import Host, wide_area
from overlay.identity import Identity
from registry.client.light import open_light_client
from registry.client.registry import Registry

PORT = 4001
SETTLE = 10.0
LINKED_WITHIN = 30.0  # seconds, for a client of a node
AIMS = {
    "create, cold": 0.9,
    "register, cold": 1.0,
    "resolve, cold": 0.7,
    "create again, warm": 0.25,
    "register again, warm": 0.25,
    "resolve again, warm": 0.25,
}
"""Seconds for the median."""
JOINING_AIM = 3.0
"""Seconds from a node's start until it is ready."""


async def measured(count: int, operations: int, round_trip: float, loss: float) -> None:
    """Start a network of `count` hosts, and measure on the second one."""
    print(f"\n{count} nodes, {round_trip * 1000:g} ms round trips, {loss:.1%} of packets lost")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with wide_area(count, round_trip=round_trip, loss=loss) as area:
            hosts = area.hosts
            nodes = [NodeProcess(folder / h.namespace, folder / f"{h.namespace}.log", h.open_process) for h in hosts]
            try:
                await nodes[0].start(*_flags(hosts[0]), timeout=60)
                joined = [await _joined(node, host, nodes[0].address) for node, host in zip(nodes, hosts, strict=True)][
                    1:
                ]
                joined.sort()
                print(
                    f"  from start to ready: p50 {joined[len(joined) // 2]:.2f} s, at most {joined[-1]:.2f} s"
                    f"  (aim {JOINING_AIM:g} s)"
                )
                await trio.sleep(SETTLE)
                command = [sys.executable, "-m", "benchmarks.far_apart", "--count", str(operations), "--on-host"]
                there = [f"{node.process_id}:{node.address}" for node in nodes]
                done = await trio.run_process(hosts[1].command([*command, *there]), capture_stdout=True)
                told = json.loads(done.stdout)
                for figure, (p50, p99, failed, costs) in told["figures"].items():
                    lost = f"  {failed} FAILED" if failed else ""
                    times = f"p50 {p50:6.3f} s  p99 {p99:6.3f} s  (aim {f'{AIMS[figure]:g} s)':7}"
                    print(f"  {figure:20} {times} {Costs(*costs)}{lost}")
                print(
                    f"  {told['lookups']} lookups since the start, {told['cut_short']} cut short by a deadline  (aim 0)"
                )
            finally:
                await stop_network(nodes)


def _flags(host: Host) -> tuple[str, ...]:
    return "--listen", f"/ip4/{host.address}/tcp/{PORT}"


async def _joined(node: NodeProcess, host: Host, bootstrap: str) -> float:
    began = time.monotonic()
    if not node.alive:
        await node.start(*_flags(host), "--bootstrap", bootstrap, timeout=60)
    return time.monotonic() - began


def _node(text: str) -> NodeOfAnother:
    process_id, _, address = text.partition(":")
    return NodeOfAnother(int(process_id), address)


async def on_host(nodes: list[NodeOfAnother], count: int) -> dict[str, object]:
    """Operations through the second node; what is read cold is written through the last. And the lookups of all."""
    identity, writer = Identity.generate(), Identity.generate()
    async with observed(nodes, LINKED_WITHIN) as askers:
        async with AsyncExitStack() as stack:
            here = (await stack.enter_async_context(open_light_client(identity, [nodes[1].address]))).registry
            there = (await stack.enter_async_context(open_light_client(writer, [nodes[-1].address]))).registry
            network = await askers.knowing_idle()
            figures = await _operations(network, here, identity.peer_id, there, writer.peer_id, count)
        overlays = [(await asker.status()).overlay for asker in askers.askers]
    lookups = sum(overlay.lookups for overlay in overlays if overlay is not None)
    cut_short = sum(overlay.lookups_cut_short for overlay in overlays if overlay is not None)
    return {"figures": figures, "lookups": lookups, "cut_short": cut_short}


async def _operations(
    network: Observed, here: Registry, me: str, there: Registry, them: str, count: int
) -> dict[str, tuple[float, float, int, Costs]]:
    """Seconds, failures and costs of each."""
    ids: list[str] = []
    foreign: list[str] = []
    for number in range(count):
        created = await there.create_resource(f"foreign {number}")
        assert created.resource_id is not None, created.errors
        foreign.append(created.resource_id)
        assert (await there.register_service(created.resource_id, "v", them, None)).success

    async def create(number: int) -> bool:
        created = await here.create_resource(f"own {number}")
        if created.resource_id is not None and number == len(ids):
            ids.append(created.resource_id)
        return created.resource_id is not None

    async def register(number: int) -> bool:
        return (await here.register_service(foreign[number], "v", me, None)).success

    async def resolve(number: int) -> bool:
        return len((await here.resolve_resource(foreign[number], 1)).records or ()) >= 1

    async def resolve_own(number: int) -> bool:
        return (await here.resolve_resource(ids[number], 1)).records is not None

    found: dict[str, tuple[float, float, int, Costs]] = {}

    async def measure(name: str, call: Callable[[int], Awaitable[bool]]) -> None:
        timing, costs = await network.figures(call, count)
        p50, p99 = (math.nan if value is None else value / 1000 for value in (timing.p50, timing.p99))
        found[name] = p50, p99, timing.failed, costs

    await measure("resolve, cold", resolve)
    await measure("resolve again, warm", resolve)
    await measure("create, cold", create)
    await measure("create again, warm", create)
    assert all([await resolve_own(number) for number in range(count)])
    await measure("register, cold", register)
    await measure("register again, warm", register)
    return found


async def main() -> None:
    """Measure each size, or be the client on one of the hosts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, 8, 32, least=2)
    parser.add_argument("--round-trip", type=float, default=0.1, help="seconds")
    parser.add_argument("--loss", type=float, default=0.01, help="share of the packets")
    parser.add_argument("--count", type=int, default=20, help="operations per figure")
    parser.add_argument("--on-host", nargs="+", type=_node, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.on_host:
        print(json.dumps(await on_host(arguments.on_host, arguments.count)))
        return
    for nodes in arguments.nodes:
        await measured(nodes, arguments.count, arguments.round_trip, arguments.loss)


if __name__ == "__main__":
    trio.run(main)
