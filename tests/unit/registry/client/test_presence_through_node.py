"""A light client's presence by way of its node: both sides, over the simulated network."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from overlay.errors import CallRefused
from overlay.identity import Identity
from overlay.presence.evidence import Evidence, encode_evidence
from overlay.presence.statements import Presence, Version, Word, sign
from overlay.tasks import background
from registry.client import presence_through_node
from registry.client.presence_through_node import ClientStanding, PresenceThroughNode
from registry.errors import HostingRefused, NodeUnavailable
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.host_health import HostHealth
from registry.health.hosts_for_clients import COMPLAINTS, MOST_OF_CLIENT, HostsForClients
from registry.health.messages import HOSTS_CHANGED, HostsChangedBody, ToldStanding
from registry.protocol.messages import build
from registry.settings import RegistrySettings
from registry.storage import open_store
from tests.simulation.simulated_network import SimulatedNetwork, SimulatedPeer
from tests.unit.registry.builders import HOST, ISSUER, NODE, OWNER, STRANGER
from tests.unit.registry.health.builders import FakePresence, Standing


def evidence(host: Identity, incarnation: int, *witnesses: Identity, exceptions: bytes = b"") -> bytes:
    version = Version(incarnation)
    words = [sign(each, Word(each.peer_id, host.peer_id, version, True, 1, 30)) for each in witnesses]
    presence = sign(host, Presence(host.peer_id, version, exceptions=exceptions))
    return encode_evidence(Evidence(presence, tuple(words)))


class NodeSide:
    """A node that follows hosts for clients."""

    def __init__(
        self, peer: SimulatedPeer, presence: FakePresence, hosts: HostsForClients, health: HealthOfHosts
    ) -> None:
        self.peer = peer
        self.health = health
        self.presence = presence
        self.hosts = hosts

    def becomes(self, host: Identity, standing: Standing, incarnation: int = 1, *witnesses: Identity) -> None:
        signed = evidence(host, incarnation, *witnesses, exceptions=standing.exceptions)
        self.presence.evidence[host.peer_id] = signed
        self.presence.becomes(host.peer_id, standing)


class World:
    """Two nodes, and a client that acts through one of them."""

    def __init__(self, network: SimulatedNetwork, nodes: list[NodeSide], peer: SimulatedPeer) -> None:
        self.network = network
        self.nodes = nodes
        self.peer = peer
        self.linked = nodes[0]
        self.asked = 0
        self.told: list[ClientStanding] = []
        self.presence = PresenceThroughNode(peer, self, lambda _: None)
        self.presence.on_change(self.told.append)

    # The node API.

    @property
    def peer_id(self) -> str:
        return self.linked.peer.peer_id

    async def hosts(self, hosts: Sequence[str], seconds: float, *, timeout: float) -> tuple[ToldStanding, ...]:
        self.asked += 1
        if self.linked.peer.peer_id not in self.peer.members():
            raise NodeUnavailable("no node")
        return await self.linked.hosts.follow(self.peer.peer_id, hosts, seconds, timeout)

    async def complain(self, host: str, *, timeout: float) -> None:
        await trio.lowlevel.checkpoint()
        if self.linked.hosts.may_complain(self.peer.peer_id, host):
            self.linked.presence.complain(host)

    async def state(self, host: Identity = HOST) -> ClientStanding:
        await trio.sleep(0.5)
        return self.presence.state_of(host.peer_id)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    network = SimulatedNetwork()
    async with open_store(Path(":memory:"), inline=True) as store, background() as nursery:
        nodes = []
        for identity in (NODE, OWNER):
            peer, presence = network.add(identity.peer_id), FakePresence()
            own = HostHealth(peer, store, RegistrySettings(), time.time)
            health = HealthOfHosts(peer, own, presence)
            hosts = HostsForClients(peer, health)
            for part in (own, health, hosts):
                await nursery.start(part.run)
            nodes.append(NodeSide(peer, presence, hosts, health))
        world = World(network, nodes, network.add(ISSUER.peer_id))
        await nursery.start(world.presence.run)
        yield world


async def test_a_client_knows_what_its_node_knows_and_is_told_at_once_what_changes(autojump_clock: object) -> None:
    async with running() as world:
        node = world.nodes[0]
        node.becomes(HOST, Standing(exceptions=b"what fails"))
        world.presence.follow([HOST.peer_id])
        state = await world.state()
        assert (state.is_known, state.is_up, state.exceptions, state.accusers) == (True, True, b"what fails", ())
        node.becomes(HOST, Standing(is_up=False, since=0.1), 1, STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        state = world.presence.state_of(HOST.peer_id)
        assert (state.is_up, state.accusers) == (False, (STRANGER.peer_id,))
        node.becomes(HOST, Standing(), 2)
        await trio.testing.wait_all_tasks_blocked()
        assert world.presence.state_of(HOST.peer_id).is_up
        assert [standing.is_up for standing in world.told] == [True, False, True]
        assert world.asked == 1


async def test_without_words_a_host_is_down_by_the_nodes_own(autojump_clock: object) -> None:
    async with running() as world:
        world.nodes[0].becomes(HOST, Standing(is_up=False))
        world.presence.follow([HOST.peer_id])
        assert (await world.state()).accusers == (NODE.peer_id,)


async def test_of_a_host_without_presence_nothing_is_known(autojump_clock: object) -> None:
    async with running() as world:
        world.presence.follow([HOST.peer_id])
        assert not world.presence.is_settled(HOST.peer_id)
        assert await world.state() == ClientStanding(HOST.peer_id)
        assert world.presence.is_settled(HOST.peer_id), "the node has waited for it"


async def test_what_a_node_makes_up_about_services_does_not_count(autojump_clock: object) -> None:
    async with running() as world:
        node = world.nodes[0]
        node.presence.evidence[HOST.peer_id] = evidence(STRANGER, 9, exceptions=b"made up")
        node.presence.becomes(HOST.peer_id, Standing(exceptions=b"made up"))
        world.presence.follow([HOST.peer_id])
        assert (await world.state()).exceptions == b""


async def test_word_of_an_earlier_run_does_not_hide_a_later_one(autojump_clock: object) -> None:
    async with running() as world:
        node = world.nodes[0]
        node.becomes(HOST, Standing(), 2)
        world.presence.follow([HOST.peer_id])
        assert (await world.state()).is_up
        node.becomes(HOST, Standing(is_up=False), 1, STRANGER)
        assert (await world.state()).is_up
        node.becomes(HOST, Standing(is_up=False), 2, STRANGER)
        assert not (await world.state()).is_up


async def test_another_node_is_asked_when_the_first_is_gone(autojump_clock: object) -> None:
    async with running() as world:
        first, second = world.nodes
        first.becomes(HOST, Standing())
        second.becomes(HOST, Standing())
        world.presence.follow([HOST.peer_id])
        assert (await world.state()).is_up
        world.linked = second
        world.network.crash(first.peer.peer_id)
        world.network.membership_changed()
        await trio.sleep(2)
        second.becomes(HOST, Standing(is_up=False), 1, STRANGER)
        assert not (await world.state()).is_up


async def test_nobody_else_tells_a_client_of_hosts(autojump_clock: object) -> None:
    async with running() as world:
        world.nodes[0].becomes(HOST, Standing())
        world.presence.follow([HOST.peer_id])
        assert (await world.state()).is_up
        told = ToldStanding(HOST.peer_id, False, True, 1.0, evidence(HOST, 1))
        before = len(world.told)
        body = build(HostsChangedBody((told,)))
        with pytest.raises(CallRefused, match="another node"):
            await world.nodes[1].peer.call(world.peer.peer_id, HOSTS_CHANGED, body, timeout=1)
        assert (await world.state()).is_up
        assert len(world.told) == before


async def test_complaints_count_of_what_is_followed_and_not_too_many(autojump_clock: object) -> None:
    async with running() as world:
        world.nodes[0].becomes(HOST, Standing())
        world.presence.complain(HOST.peer_id)
        await trio.sleep(0.1)
        assert world.nodes[0].presence.complained == []
        world.presence.follow([HOST.peer_id])
        await world.state()
        for _ in range(100):
            world.presence.complain(HOST.peer_id)
        await trio.sleep(0.1)
        assert 1 <= len(world.nodes[0].presence.complained) <= COMPLAINTS[1] + 1


async def test_a_client_follows_so_many_hosts_and_the_node_forgets_them_in_time(autojump_clock: object) -> None:
    async with running() as world:
        node, names = world.nodes[0], [f"host {number}" for number in range(MOST_OF_CLIENT + 1)]
        await node.hosts.follow("a client", names[:MOST_OF_CLIENT], 30, 5)
        with pytest.raises(HostingRefused):
            await node.hosts.follow("a client", names[MOST_OF_CLIENT:], 30, 5)
        assert len(await node.hosts.follow("a client", names[:1], 30, 5)) == 1
        await trio.sleep(60)
        assert len(await node.hosts.follow("a client", names[MOST_OF_CLIENT:], 30, 5)) == 1


async def test_hosts_are_asked_for_again_before_the_node_forgets_them(autojump_clock: object) -> None:
    async with running() as world:
        world.nodes[0].becomes(HOST, Standing())
        world.presence.follow([HOST.peer_id])
        await trio.sleep(3 * presence_through_node.FOLLOWED_FOR)
        world.nodes[0].becomes(HOST, replace(Standing(), is_up=False), 1, STRANGER)
        assert not (await world.state()).is_up
        assert world.asked <= 8


@pytest.mark.parametrize("seconds", [0.0, 1.0, 600.0])
async def test_no_client_has_its_node_follow_more_hosts_than_are_its_share(
    seconds: float, autojump_clock: object
) -> None:
    async with running() as world:
        node = world.nodes[0]
        for batch in range(3 * MOST_OF_CLIENT // 64):
            with suppress(HostingRefused):
                await node.hosts.follow("a client", [f"host {batch} {number}" for number in range(64)], seconds, 0.1)
        assert node.health.followed <= MOST_OF_CLIENT + 64
