"""Announcements among node processes: what is lost is repaired, and who floods a topic harms nobody for long."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess
from benchmarks.processes import cpu_seconds
from overlay.errors import OverlayError
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.pubsub.admission import SeenMessages, Verdict
from overlay.pubsub.topics import Topics, TopicStatistics
from overlay.settings import OverlaySettings, TopicLimits
from overlay.tasks import background
from registry.client.light import open_light_client
from registry.watch.watch_event import EventKind
from tests.end_to_end.network import Network, eventually, observer
from tests.end_to_end.test_watch import LONGEST, Watcher, watching

UNBOUND = TopicLimits(rate=1e6, burst=1e6)  # an attacker doesn't keep to ours
RENEWED = 20.0  # seconds by which every subscription was renewed


@dataclass
class Stranger:
    host: Host
    topics: Topics


@asynccontextmanager
async def stranger_in(
    node: NodeProcess, topic: str, validate: Callable[[str, bytes, str], Awaitable[Verdict]]
) -> AsyncIterator[Stranger]:
    """A peer that belongs to nobody, in the topic that the node is in too."""
    settings = OverlaySettings(listen=(), member=False, topics=UNBOUND)
    async with open_host(Identity.generate(), settings) as host, background() as nursery:
        topics = Topics(host.gossip, host.admission, settings.topics)
        await nursery.start(topics.run)
        await host.connect(node.address, timeout=5)
        assert await topics.join(topic, validate)
        await eventually(
            trio.lowlevel.checkpoint,
            lambda _: bool(host.gossip.pubsub.router.mesh.get(topic)),
        )
        yield Stranger(host, topics)


async def ignoring(topic: str, payload: bytes, forwarder: str) -> Verdict:
    await trio.lowlevel.checkpoint()
    return Verdict.IGNORE


def announcer(network: Network, watcher: AquaClient) -> NodeProcess:
    """The node that tells a watcher of changes: the one that it acts through."""
    return next(node for node in network.running if node.peer_id == watcher.registry.host_peer_id)


async def topics_of(node: NodeProcess) -> TopicStatistics:
    async with observer() as observing:
        topics = (await observing.status(node)).topics
    assert topics is not None
    return topics


async def subscriptions_in(network: Network) -> int:
    subscriptions = 0
    async with observer() as observing:
        for node in network.running:
            status = await observing.status(node)
            assert status.topics is not None
            assert status.topics.topics <= 64
            subscriptions += status.subscriptions
    return subscriptions


async def changed(issuer: AquaClient, resource_id: str, watcher: Watcher, values: range) -> list[float]:
    """Registers one value after the other; the seconds until the watcher had each, after its acknowledgement."""
    delays: list[float] = []
    for value in map(str, values):
        assert await issuer.registerService(resource_id, value, issuer.peer_id, "s") == (True, [])
        acknowledged = trio.current_time()
        await eventually(trio.lowlevel.checkpoint, lambda _, v=value: v in watcher.values(), 2)
        delays.append(trio.current_time() - acknowledged)
    return delays


async def test_announcements_that_got_lost_are_made_up_for_at_the_next_renewal(network: Network) -> None:
    async with (
        connect(network.relay()) as issuer,
        open_light_client(Identity.generate(), [network.relay()]) as deaf,
    ):
        resource_id, errors = await issuer.createResource("lost")
        assert resource_id is not None, errors
        assert await deaf.peer.topics.join(resource_id, ignoring)  # before the watch does
        async with deaf.registry.watch(resource_id) as events:
            assert (await anext(events)).kind is EventKind.SNAPSHOT
            assert await issuer.registerService(resource_id, "v", issuer.peer_id, "s") == (True, [])
            with trio.fail_after(RENEWED):
                event = await anext(events)
            assert event.kind is EventKind.ADDED


async def test_a_flood_of_invalid_announcements_ends_within_a_second_and_the_others_go_on(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, errors = await issuer.createResource("flooded")
        assert resource_id is not None, errors
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            await changed(issuer, resource_id, watcher, range(3))
            victim = announcer(network, other)
            before = await topics_of(victim)
            async with stranger_in(victim, resource_id, ignoring) as attacker:
                with trio.fail_after(1):
                    for number in itertools.count():
                        if not attacker.host.is_connected(victim.peer_id):
                            break
                        await attacker.topics.announce(resource_id, b"garbage %d" % number)
                try:
                    with trio.move_on_after(2):
                        await attacker.host.connect(victim.address, timeout=1)
                except OverlayError:
                    pass
                await eventually(
                    trio.lowlevel.checkpoint, lambda _: not attacker.host.is_connected(victim.peer_id), 2
                )  # it isn't let in again
            await changed(issuer, resource_id, watcher, range(3, 13))
        after = await topics_of(victim)
        assert after.banned == before.banned + 1
        assert after.invalid >= before.invalid + 10


async def test_a_flood_of_valid_replays_takes_a_bounded_share_of_cpu_and_blames_nobody(network: Network) -> None:
    heard: list[bytes] = []

    async def listening(topic: str, payload: bytes, forwarder: str) -> Verdict:
        await trio.lowlevel.checkpoint()
        heard.append(payload)
        return Verdict.IGNORE

    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, errors = await issuer.createResource("replayed")
        assert resource_id is not None, errors
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            await changed(issuer, resource_id, watcher, range(2))
            victim = announcer(network, other)
            async with stranger_in(victim, resource_id, listening) as attacker:
                await changed(issuer, resource_id, watcher, range(2, 6))
                await eventually(trio.lowlevel.checkpoint, lambda _: len(heard) >= 4)
                assert victim.process_id is not None
                before, began = cpu_seconds(victim.process_id), trio.current_time()
                sent = 0
                with trio.move_on_after(6):
                    for payload in itertools.cycle(heard[:4]):
                        # Under another sequence number each time, as a replaying peer would to get past caches.
                        attacker.host.gossip.pubsub.seen_messages = cast("Any", SeenMessages())
                        await attacker.topics.announce(resource_id, payload)
                        sent += 1
                share = (cpu_seconds(victim.process_id) - before) / (trio.current_time() - began)
                print(f"{sent} replays, {share:.0%} of a core")  # noqa: T201
                assert attacker.host.is_connected(victim.peer_id)
                assert share < 0.5
                await changed(issuer, resource_id, watcher, range(6, 10))


async def test_of_many_resources_only_the_watched_ones_are_announced(network: Network) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        ids: dict[int, str] = {}

        async def create(numbers: range) -> None:
            for number in numbers:
                resource_id, errors = await issuer.createResource(f"of many {number}")
                assert resource_id is not None, errors
                ids[number] = resource_id

        async with trio.open_nursery() as nursery:
            for start in range(0, 80, 10):
                nursery.start_soon(create, range(start, start + 10))
        before = await subscriptions_in(network)  # of watchers that have just gone
        watchers = [Watcher(other, ids[number]) for number in range(20)]
        async with watching(*watchers):
            for number in range(40):
                done = await issuer.registerService(ids[number], f"value {number}", issuer.peer_id, "s")
                assert done == (True, [])
            for number, watcher in enumerate(watchers):
                await eventually(
                    trio.lowlevel.checkpoint, lambda _, w=watcher, n=number: w.values() == [f"value {n}"], LONGEST
                )
            assert len(watchers) <= await subscriptions_in(network) <= len(watchers) + before
        assert all(len(watcher.events) == 2 for watcher in watchers)
