"""From the acknowledgement of a registration to the watcher's event, and what watching costs.

    python -m benchmarks.watching [--nodes 8 32]

Node processes; this process registers through one light client and watches through another, on sixty resources,
at several rates. A change counts as told when the watcher got an event with its value: states of one record that follow
each other faster than they travel may be left out. The reference is asking again: a resolve over the same network.
Calls, bytes and CPU are those of all nodes per change, with what it leaves to the background and without what they take
while the same is watched and nothing changes.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
from functools import partial
from pathlib import Path

import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import Costs, Observed, observed
from benchmarks.processes import RunningNode
from benchmarks.registry_operations import NODES, REPLICAS, idle, network, prepared
from overlay.identity import Identity
from overlay.libp2p.host import open_host
from overlay.pubsub.admission import Verdict
from overlay.pubsub.topics import Topics
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.client.light import LightClient, open_light_client
from registry.watch.watch import Watch

SLOTS = 60
SETTLED = 3.0  # seconds after which a new watch's topics are formed


class Told:
    """When each value was acknowledged, and when its event came."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, float] = {}
        self.told: dict[str, float] = {}
        self.failed = 0

    async def follow(self, watch: Watch) -> None:
        """Notes when a watch tells of each change."""
        async for event in watch:
            if event.record is not None:
                self.told.setdefault(event.record.metadata.value, trio.current_time())

    def summary(self, name: str, costs: Costs) -> str:
        """The delays, what was lost, and what a change cost all nodes, on one line."""
        delays = sorted(
            max(self.told[value] - when, 0.0) * 1000 for value, when in self.acknowledged.items() if value in self.told
        )
        lost = sum(value not in self.told for value in self.acknowledged)
        p50, p99 = delays[len(delays) // 2], delays[min(int(len(delays) * 0.99), len(delays) - 1)]
        return (
            f"{name:44} p50 {p50:8.2f} ms  p99 {p99:8.2f} ms  {costs}"
            f"  {len(self.acknowledged)} changes, {lost} not told, {self.failed} failed"
        )


async def changes(issuer: LightClient, ids: list[str], told: Told, rate: int, seconds: float, label: str) -> None:
    """Makes changes at a `rate` (a second) for so many seconds."""

    async def change(number: int) -> None:
        value = f"{label} {number}"
        done = await issuer.registry.register_service(
            ids[number % len(ids)], value, issuer.registry.identity.peer_id, "s"
        )
        if done.success:
            told.acknowledged[value] = trio.current_time()
        else:
            told.failed += 1

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for number in range(int(rate * seconds)):
            await trio.sleep_until(began + number / rate)
            nursery.start_soon(change, number)


async def delays(askers: Observed, ids: list[str], issuer: LightClient, seconds: float) -> None:
    """Measures how soon a watcher learns of changes, and what they cost all nodes, and prints it."""
    nodes = askers.nodes
    async with open_light_client(Identity.generate(), [nodes[2].address]) as watcher:

        async def ask(number: int) -> bool:
            return (await watcher.registry.resolve_resource(ids[number % len(ids)], 1)).records is not None

        print(f"{'reference: asking again (resolve, ack 1)':44} {await askers.figures(ask, 200)}")
        for rate, after in ((1, ""), (10, ""), (50, ""), (10, ", after a flood")):
            told = Told()
            async with trio.open_nursery() as nursery:
                watches = [watcher.registry.watch(resource_id) for resource_id in ids]
                for watch in watches:
                    nursery.start_soon(told.follow, watch)
                await trio.sleep(SETTLED)
                all_nodes = await askers.knowing_idle()
                if after:
                    await flood(nodes[2], ids[0])
                before = await all_nodes.spent()
                await changes(issuer, ids, told, rate, max(seconds, 20 / rate), f"at {rate}{after}")
                with trio.move_on_after(5):
                    while told.acknowledged.keys() - told.told.keys():  # noqa: ASYNC110 - a benchmark's patience
                        await trio.sleep(0.05)
                costs = await all_nodes.costs(before, max(len(told.acknowledged), 1))
                for watch in watches:
                    watch.close()
            print(told.summary(f"acknowledged to told, {rate} changes per second{after}", costs))


async def accept_all(topic: str, payload: bytes, forwarder: str) -> Verdict:  # noqa: ARG001 - a stranger heeds nothing
    """What the stranger makes of others' announcements."""
    return Verdict.ACCEPT


async def flood(told: RunningNode, resource_id: str) -> None:
    """A stranger sends garbage into a topic, a thousand messages a second, to a node whose clients watch, until it is
    thrown out."""
    settings = OverlaySettings(listen=(), member=False)
    async with open_host(Identity.generate(), settings) as stranger, background() as nursery:
        topics = Topics(stranger.gossip, stranger.admission, settings.topics)
        await nursery.start(topics.run)
        await stranger.connect(told.address, timeout=5)
        await topics.join(resource_id, accept_all)
        await trio.sleep(1)  # until it is in the topic's mesh
        began, sent = trio.current_time(), 0
        while told.peer_id is not None and stranger.is_connected(told.peer_id) and sent < 5000:
            await topics.announce(resource_id, b"garbage %d" % sent)
            sent += 1
            await trio.sleep_until(began + sent / 1000)
        print(f"{'a flood of garbage':44} ended after {trio.current_time() - began:.2f} s and {sent} messages")


async def idling(nodes: list[NodeProcess], ids: list[str], stored: str, counts: list[int]) -> None:
    """Measures what idle watches cost, and prints it."""
    async with open_light_client(Identity.generate(), [nodes[3].address]) as watcher:
        for count in counts:
            watches = [watcher.registry.watch(resource_id) for resource_id in ids[:count]]
            for watch in watches:
                await anext(watch)
            await trio.sleep(SETTLED + 22)  # and until topics that nobody watches any more were left
            await idle(nodes, f"{stored} stored, {count} watched")
            for watch in watches:
                watch.close()


async def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, NODES, least=4)
    parser.add_argument("--seconds", type=float, default=15, help="seconds of changes per rate")
    parser.add_argument("--no-idle", action="store_true", help="leave out what watching costs when nothing changes")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for nodes in arguments.nodes:
        print(f"Python {platform.python_version()}, {nodes} node processes")
        await measure(nodes, arguments.seconds, with_idle=not arguments.no_idle)


async def measure(count: int, seconds: float, *, with_idle: bool) -> None:
    """Measures a network of `count` nodes."""
    replicas = min(count, REPLICAS)
    with tempfile.TemporaryDirectory() as folder:
        async with network(Path(folder), count) as nodes:
            await trio.sleep(3)  # until all know each other
            async with open_light_client(Identity.generate(), [nodes[1].address]) as issuer:
                few = await prepared(issuer.registry, 20, "few", replicas)
                if with_idle:
                    await idling(nodes, few, "20", [0, 20])
                ids = few + await prepared(issuer.registry, SLOTS - 20, "slot", replicas)
                async with observed(nodes) as askers:
                    await delays(await askers.knowing_idle(), ids, issuer, seconds)
                if not with_idle:
                    return
                ids += await prepared(issuer.registry, 1000 - SLOTS, "many", replicas)
                await idling(nodes, ids, "1,000", [0, 20, 200])


if __name__ == "__main__":
    trio.run(partial(main))
