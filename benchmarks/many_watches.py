"""What thousands of watched resources cost when nothing changes.

    python -m benchmarks.many_watches [--nodes 8 32]

Nodes and a light client of one of them, in this process, over a simulated network in virtual time: what is
measured is the CPU of them all, without that of links, and how many calls there are.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections import Counter
from collections.abc import Collection
from typing import Final

import structlog
import trio
import trio.testing

from benchmarks.network_sizes import take_network_sizes
from registry.model.values import Key
from registry.protocol.messages import Item
from registry.quorum.read_machine import ReadOutcome
from registry.settings import NodeSettings, RegistrySettings
from registry.watch.source_machine import RENEW
from registry.watch.watches import Watches, keeps_nothing
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import a_key, identity

NODES: Final = 8
SETTINGS: Final = NodeSettings(registry=RegistrySettings(neighbourhood_size=3, responsibility_margin=0))
BEGAN: Final = time.time()


def clock() -> float:
    """Seconds since 1970, by the virtual clock."""
    return BEGAN + trio.current_time()


async def store(nodes: list[SimulatedNode], keys: list[Key]) -> None:
    """Stores each key at the nodes that keep it."""
    items: dict[str, list[Item]] = {node.peer_id: [] for node in nodes}
    for key in keys:
        for peer_id in await nodes[0].peer.neighbourhood(key.id, SETTINGS.registry.neighbourhood_size):
            items[peer_id].append(Item(key))
    for node in nodes:
        errors = await node.parts.replica.ingest.store(items[node.peer_id], node.peer_id)
        assert not any(errors), errors[:1]


async def measure(members: int, count: int, renewals: int) -> None:
    """Measures what `count` watches cost over so many renewals, and prints it."""
    async with simulated_nodes(members, SETTINGS, clock) as (network, nodes), trio.open_nursery() as nursery:
        peer = network.add(identity(999).peer_id)
        network.clients.add(peer.peer_id)

        async def neighbours(_: str, avoided: Collection[str]) -> list[str]:
            await trio.lowlevel.checkpoint()
            return [] if nodes[0].peer_id in avoided else [nodes[0].peer_id]

        async def read(key_id: str) -> ReadOutcome:
            return await nodes[0].parts.reader.read(key_id, ack=1, timeout=3)

        watches = Watches(peer, neighbours, read, keeps_nothing, SETTINGS.registry, clock, wanted=1)
        await nursery.start(watches.run)
        keys = [a_key(f"resource {number}", created=int(BEGAN)) for number in range(count)]
        await store(nodes, keys)
        held = [watches.watch(key.id) for key in keys]
        for watch in held:
            await anext(watch)
        await trio.sleep(2 * RENEW)
        network.calls.clear()
        began, cpu = trio.current_time(), time.process_time()
        await trio.sleep(renewals * RENEW)
        seconds, cpu = trio.current_time() - began, time.process_time() - cpu
        calls = Counter(caller == peer.peer_id for caller, *_ in network.calls)
        print(
            f"{members} nodes, {count:6} watched: {cpu / seconds:6.2%} of a core,"
            f" {calls[True] / seconds:.2f} calls per second of the client, {calls[False] / seconds:.2f} of all nodes"
        )
        for watch in held:  # one that is dropped ends
            watch.close()
        nursery.cancel_scope.cancel()


def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("counts", type=int, nargs="*", default=[100, 1000, 5000], help="resources watched")
    take_network_sizes(parser, NODES, least=3, what="simulated nodes")
    parser.add_argument("--renewals", type=int, default=4)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for members, count in itertools.product(arguments.nodes, arguments.counts):
        trio.run(measure, members, count, arguments.renewals, clock=trio.testing.MockClock(autojump_threshold=0))


if __name__ == "__main__":
    main()
