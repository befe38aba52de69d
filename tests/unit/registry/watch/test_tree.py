"""More watchers than replicas have places for, in virtual time: watchers serve watchers, and nodes their clients."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

import cbor2
import pytest
import trio

from overlay.settings import CallLimits
from registry.protocol.messages import build, parse
from registry.quorum.read_machine import ReadOutcome
from registry.settings import NodeSettings, RegistrySettings, WatchSettings
from registry.watch.messages import (
    MAX_DEPTH,
    MAX_SUBSCRIPTIONS_IN_CALL,
    SUBSCRIBE,
    SUBSCRIPTION_SECONDS,
    SubscribeAnswer,
    SubscribeBody,
    SubscriptionRequest,
)
from registry.watch.source_machine import RENEW
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind
from registry.watch.watches import LINGER, Watches, keeps_nothing
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import identity

NODES, PLACES = 40, 4
SETTINGS: Final = NodeSettings(
    registry=RegistrySettings(neighbourhood_size=3), watching=WatchSettings(max_watchers=PLACES, max_client_watchers=20)
)


class Network:
    """Nodes, one resource, and who keeps it."""

    def __init__(self, network: SimulatedNetwork, nodes: list[SimulatedNode], resource_id: str) -> None:
        self.simulated = network
        self.nodes = nodes
        self.resource_id = resource_id
        self.by_id = {node.peer_id: node for node in nodes}

    async def keepers(self) -> list[str]:
        return await self.nodes[0].registry.neighbours(self.resource_id)

    async def others(self) -> list[SimulatedNode]:
        keepers = await self.keepers()
        return [node for node in self.nodes if node.peer_id not in keepers and node.peer_id not in self.simulated.down]

    async def register(self, value: str) -> None:
        keepers = await self.keepers()
        issuer = self.by_id[keepers[0]]
        done = await issuer.registry.register_service(self.resource_id, value, issuer.peer_id, value, factor=2)
        assert done.success, done.errors

    def kill(self, peer_id: str) -> None:
        self.simulated.down.add(peer_id)
        self.simulated.membership_changed()


@asynccontextmanager
async def a_network(count: int = NODES) -> AsyncIterator[Network]:
    async with simulated_nodes(count, SETTINGS) as (network, nodes):
        created = await nodes[0].registry.create_resource("watched", factor=3)
        assert created.resource_id is not None, created.errors
        yield Network(network, nodes, created.resource_id)


def sources_of(watches: Watches) -> dict[str, int]:
    return watches.statistics().sources


async def until(fulfilled: Callable[[], bool], longest: float) -> None:
    with trio.fail_after(longest):
        while not fulfilled():  # noqa: ASYNC110 - over many objects
            await trio.sleep(0.05)


async def seen(watch: Watch, value: str) -> None:
    while value not in [record.metadata.value for record in watch.records]:
        event = await anext(watch)
        assert event.kind in (EventKind.SNAPSHOT, EventKind.ADDED, EventKind.UPDATED)


async def all_see(watches: Collection[Watch], value: str, longest: float) -> None:
    with trio.fail_after(longest):
        for watch in watches:
            await seen(watch, value)


async def refusal(caller: SimulatedNode, server: SimulatedNode, resource_id: str) -> str | None:
    """Subscribes; the code of what was refused."""
    request = SubscriptionRequest(resource_id, on_topic=False, serves=True)
    answer = await caller.peer.call(server.peer_id, SUBSCRIBE, build(SubscribeBody((build(request),))), timeout=5)
    [reply] = parse(answer, SubscribeAnswer).replies
    return reply.error.code if reply.error is not None else None


def depths(nodes: Collection[SimulatedNode], resource_id: str) -> list[int]:
    served = [node.parts.watches.served(resource_id) for node in nodes]
    return [each.depth for each in served if each is not None]


async def test_watchers_without_a_place_are_served_by_watchers(autojump_clock: trio.testing.MockClock) -> None:
    async with a_network() as network:
        others = await network.others()
        watches = [node.registry.watch(network.resource_id) for node in others]
        await until(lambda: all(len(sources_of(node.parts.watches)) == 2 for node in others), 60)
        assert max(node.parts.subscriptions.count() for node in network.nodes) <= PLACES
        assert 1 < max(depths(others, network.resource_id)) <= MAX_DEPTH + 1
        assert [+node.peer.held for node in others] == [Counter(sources_of(node.parts.watches)) for node in others]
        for number in range(3):
            await network.register(f"value {number}")
            await all_see(watches, f"value {number}", 2)
        for watch in watches:
            watch.close()
        await trio.sleep(2 * LINGER + 2 * SUBSCRIPTION_SECONDS)
        assert sum(node.parts.subscriptions.count() for node in network.nodes) == 0
        assert not any(node.peer.held.total() for node in network.nodes), "a link is kept for nothing"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
async def test_nothing_is_missed_when_those_who_serve_die(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    async with a_network() as network:
        others = await network.others()
        watches = {node.peer_id: node.registry.watch(network.resource_id) for node in others}
        await until(lambda: all(len(sources_of(node.parts.watches)) == 2 for node in others), 60)
        serving = [node for node in others if node.parts.subscriptions.count()]
        assert len(serving) > 3
        for victim in (serving[seed], serving[seed + 1]):
            network.kill(victim.peer_id)
            del watches[victim.peer_id]
        await network.register("after")
        await all_see(watches.values(), "after", RENEW)
        alive = [node for node in others if node.peer_id in watches]
        # Who isn't avoided any more may have had a place all the time.
        await until(lambda: all(len(sources_of(node.parts.watches)) == 2 for node in alive), 4 * RENEW)
        for node in alive:
            assert +node.peer.held == Counter(sources_of(node.parts.watches))
            assert not network.simulated.down & sources_of(node.parts.watches).keys()
        await network.register("later")
        await all_see(watches.values(), "later", 2)


async def test_nothing_is_missed_when_those_who_serve_stop_watching(autojump_clock: trio.testing.MockClock) -> None:
    async with a_network() as network:
        others = await network.others()
        watches = {node.peer_id: node.registry.watch(network.resource_id) for node in others}
        await until(lambda: all(len(sources_of(node.parts.watches)) == 2 for node in others), 60)
        leaving = next(node for node in others if node.parts.subscriptions.count())
        watches.pop(leaving.peer_id).close()
        for number in range(8):
            await network.register(f"value {number}")
            await all_see(watches.values(), f"value {number}", 2 if number < 1 else RENEW + 5)
            await trio.sleep(LINGER)
        await until(lambda: leaving.parts.watches.served(network.resource_id) is None, 2 * SUBSCRIPTION_SECONDS)


async def test_a_watcher_serves_only_what_it_watches_and_nobody_who_serves_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_network(12) as network:
        [parent, child, other, *_] = await network.others()

        assert await refusal(child, parent, network.resource_id) == "not-responsible"
        async with parent.registry.watch(network.resource_id) as watch:
            await anext(watch)
            assert await refusal(child, parent, network.resource_id) is None
            [keeper, *_] = sources_of(parent.parts.watches)
            assert await refusal(network.by_id[keeper], parent, network.resource_id) == "not-responsible", (
                "it would listen to itself"
            )
        await trio.sleep(LINGER)
        assert await refusal(child, parent, network.resource_id) == "not-responsible", "nobody watches here any more"
        assert await refusal(other, parent, network.resource_id) == "not-responsible"


class Client:
    """A light client: it isn't a member, and acts through one of several nodes."""

    def __init__(self, network: Network, number: int, nodes: list[SimulatedNode]) -> None:
        peer_id = identity(1000 + number).peer_id
        network.simulated.clients.add(peer_id)
        self.nodes = nodes

        async def neighbours(key_id: str, avoided: Collection[str]) -> list[str]:
            await trio.lowlevel.checkpoint()
            usable = [node.peer_id for node in nodes if node.peer_id not in avoided]
            return usable[:1]

        async def read(key_id: str) -> ReadOutcome:
            return await nodes[0].parts.reader.read(key_id, ack=1, timeout=3)

        peer = network.simulated.add(peer_id)
        self.watches = Watches(peer, neighbours, read, keeps_nothing, SETTINGS.registry, time.time, wanted=1)


async def test_however_many_clients_watch_through_a_node_it_watches_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_network(12) as network, trio.open_nursery() as nursery:
        [first, second, *_] = await network.others()
        clients = [Client(network, number, [first, second]) for number in range(15)]
        for client in clients:
            await nursery.start(client.watches.run)
        watches = [client.watches.watch(network.resource_id) for client in clients]
        for watch in watches:
            assert (await anext(watch)).kind is EventKind.SNAPSHOT
        assert sources_of(first.parts.watches) == dict.fromkeys((await network.keepers())[:2], 1)
        assert all(sources_of(client.watches) == {first.peer_id: 1} for client in clients)
        subscriptions = Counter({node.peer_id: node.parts.subscriptions.count() for node in network.nodes})
        assert subscriptions[first.peer_id] == len(clients)
        assert subscriptions.total() == len(clients) + 2
        await network.register("one")
        await all_see(watches, "one", 1)
        network.kill(first.peer_id)
        await network.register("two")
        await all_see(watches, "two", RENEW)
        assert all(sources_of(client.watches) == {second.peer_id: 1} for client in clients)
        for watch in watches:
            watch.close()
        await trio.sleep(4 * LINGER)
        assert second.parts.watches.served(network.resource_id) is None, "nobody watches by it any more"
        nursery.cancel_scope.cancel()


async def test_a_client_waits_until_its_node_knows_enough(autojump_clock: trio.testing.MockClock) -> None:
    async with a_network(12) as network, trio.open_nursery() as nursery:
        [node, *_] = await network.others()
        network.simulated.stalled.update(await network.keepers())
        client = Client(network, 0, [node])
        await nursery.start(client.watches.run)
        watch = client.watches.watch(network.resource_id)
        with trio.move_on_after(5) as waited:
            await anext(watch)
        assert waited.cancelled_caught, "an empty snapshot would be wrong"
        network.simulated.stalled.clear()
        await network.register("value")
        await all_see([watch], "value", RENEW)
        nursery.cancel_scope.cancel()


async def test_renewals_take_one_call_per_source_however_much_is_watched(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with a_network(12) as network, trio.open_nursery() as nursery:
        [node, *_] = await network.others()
        client = Client(network, 0, [node])
        await nursery.start(client.watches.run)
        watches = [client.watches.watch(network.resource_id)]
        for number in range(60):
            created = await network.nodes[number % 12].registry.create_resource(f"resource {number}", factor=3)
            assert created.resource_id is not None, created.errors
            watches.append(client.watches.watch(created.resource_id))
        for watch in watches:
            await anext(watch)
        await trio.sleep(2 * RENEW)
        del network.simulated.calls[:]
        await trio.sleep(4 * RENEW)
        calls = Counter(caller for caller, _, method in network.simulated.calls if method == SUBSCRIBE)
        assert calls == {client.watches.peer_id: 4, node.peer_id: 4 * len(sources_of(node.parts.watches))}
        methods = {method for caller, _, method in network.simulated.calls if caller in calls}
        assert methods == {SUBSCRIBE}, "nothing else is asked for when nothing happens"
        nursery.cancel_scope.cancel()


async def test_an_answer_fits_into_a_frame_whatever_is_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with a_network(12) as network:
        [node, *watching] = await network.others()
        keeper = network.by_id[(await network.keepers())[0]]
        for other in watching[:PLACES]:
            assert await refusal(other, keeper, network.resource_id) is None
        many = [network.resource_id] * MAX_SUBSCRIPTIONS_IN_CALL
        requests = tuple(build(SubscriptionRequest(key_id, on_topic=False, serves=True)) for key_id in many)
        for peer in network.simulated.peers.values():
            peer.addresses = [f"/ip4/10.0.0.{number}/tcp/7000" + "/x" * 100 for number in range(8)]
        answer = await node.peer.call(keeper.peer_id, SUBSCRIBE, build(SubscribeBody(requests)), timeout=60)
        replies = parse(answer, SubscribeAnswer).replies
        assert len(replies) == len(many)
        assert len(replies[0].servers) == PLACES
        assert len(cbor2.dumps(answer)) < CallLimits().max_frame
