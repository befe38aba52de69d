"""Spreading what was written to one node alone to the rest of its neighbourhood. In virtual time."""

from __future__ import annotations

import pytest
import trio

from registry.model.values import Key
from registry.protocol.messages import Item
from registry.replication.rumor import LATELY, MAX_DUE, MOST_HEARD
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, compared, simulated_nodes
from tests.unit.registry.builders import NOW, a_key, a_record


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


async def write(node: SimulatedNode, item: Item) -> None:
    """As a script does: to this node alone."""
    assert await node.parts.replica.ingest.store([item], node.peer_id) == [None]
    node.parts.rumors.note(item)


async def holders(nodes: list[SimulatedNode], key: Key) -> int:
    return sum([(await node.store.resource(key.id)).key == key for node in nodes])


async def test_everyone_has_it_within_a_second(autojump_clock) -> None:
    async with simulated_nodes(8, clock=clock) as (_, nodes):
        key = a_key()
        await write(nodes[3], Item(key))
        await write(nodes[3], Item(key, a_record(key.id)))
        await trio.sleep(1)
        assert await holders(nodes, key) == 8
        for node in nodes:
            assert len((await node.store.resource(key.id)).slots) == 1


async def test_of_many_that_have_it_few_offer_it(autojump_clock) -> None:
    async with simulated_nodes(10, clock=clock) as (_, nodes):
        rounds = 20
        for number in range(rounds):
            key = a_key(str(number))
            for node in nodes[:9]:
                await write(node, Item(key))
            await trio.sleep(2)
            assert await holders(nodes, key) == 10
        assert sum(node.parts.rumors.offered for node in nodes) <= rounds * 4 * 9


async def test_one_peer_alone_cant_silence_an_offer(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, nodes):
        await compared(nodes)
        item = Item(a_key())
        await write(nodes[0], item)
        for _ in range(5):
            nodes[0].parts.rumors.heard(nodes[1].peer_id, [item])
        await trio.sleep(1)
        assert await holders(nodes, a_key()) == 3, "all but the one that said it had it"


async def test_peers_beyond_the_neighbourhood_cant_silence_an_offer(autojump_clock) -> None:
    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=4))
    async with simulated_nodes(10, settings, clock) as (_, nodes):
        await compared(nodes)
        item = Item(a_key())
        members = await nodes[0].peer.neighbourhood(item.key_id, 4)
        near = [node for node in nodes if node.peer_id in members]
        far = [node for node in nodes if node.peer_id not in members]
        await write(near[0], item)
        for node in (*far, near[1]):
            near[0].parts.rumors.heard(node.peer_id, [item])
        await trio.sleep(1)
        assert await holders(near, a_key()) == 3, "all but the one that said it had it"
        assert await holders(far, a_key()) == 0


async def test_two_members_that_offered_the_same_are_enough(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (_, nodes):
        await write(nodes[0], Item(a_key()))
        for node in nodes[1:3]:
            nodes[0].parts.rumors.heard(node.peer_id, [Item(a_key())])
        await trio.sleep(1)
        assert nodes[0].parts.rumors.offered == 0


@pytest.mark.parametrize(("seconds", "offered"), [(0.0, 3), (LATELY - 1, 3), (LATELY + 1, 0)])
async def test_what_a_member_put_just_before_it_died_is_told_to_all(
    autojump_clock, seconds: float, offered: int
) -> None:
    async with simulated_nodes(5, clock=clock) as (network, nodes):
        network.membership_changed()
        await trio.sleep(60)  # they have compared
        item = Item(a_key())
        assert await nodes[0].parts.replica.ingest.store([item], nodes[4].peer_id) == [None]
        nodes[0].parts.rumors.heard(nodes[4].peer_id, [item])
        await trio.sleep(seconds)
        assert await holders(nodes, a_key()) == 1, "as long as it lives that is its own business"
        network.down.add(nodes[4].peer_id)
        network.membership_changed()
        await trio.sleep(1)
        assert nodes[0].parts.rumors.offered == offered
        assert not offered or await holders(nodes[:4], a_key()) == 4


async def test_whoever_repeats_what_is_told_again_has_it_told_once(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, nodes):
        rumors = nodes[0].parts.rumors
        for _ in range(20):
            rumors.note_again([Item(a_key())])
            await trio.sleep(1)
        assert rumors.offered == 3


async def test_a_node_that_dies_after_a_write_that_all_have_makes_few_of_them_tell_it(autojump_clock) -> None:
    async with simulated_nodes(12, clock=clock) as (network, nodes):
        network.membership_changed()
        for number in range(20):
            item = Item(a_key(str(number)))
            for node in nodes[:11]:
                assert await node.parts.replica.ingest.store([item], nodes[11].peer_id) == [None]
                node.parts.rumors.heard(nodes[11].peer_id, [item])
        network.down.add(nodes[11].peer_id)
        network.membership_changed()
        await trio.sleep(2)
        assert sum(node.parts.rumors.offered for node in nodes) <= 20 * 5 * 10


async def test_those_who_say_that_they_have_it_are_bounded(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        item, rumors = Item(a_key()), nodes[0].parts.rumors
        await write(nodes[0], item)
        for number in range(MOST_HEARD):
            rumors.heard(f"peer {number}", [item])
        for node in nodes[1:]:
            rumors.heard(node.peer_id, [item])
        await trio.sleep(1)
        assert rumors.offered == 2, "those who came when it was full aren't remembered"
        assert await holders(nodes, a_key()) == 3


async def test_many_writes_share_frames(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        for number in range(200):
            await write(nodes[0], Item(a_key(str(number))))
        await trio.sleep(2)
        assert nodes[0].parts.rumors.offered == 400
        assert nodes[0].parts.send_queue.items == 400
        assert nodes[0].parts.send_queue.frames <= 30


async def test_a_flood_of_writes_is_offered_earlier_rather_than_kept(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (_, nodes):
        rumors = nodes[0].parts.rumors
        for number in range(MAX_DUE + 10):
            rumors.note(Item(a_key(str(number))))
        await trio.sleep(0.15)
        assert rumors.offered >= 10
