"""Reading what was written through the same node a moment ago, in virtual time."""

from __future__ import annotations

import gc

import trio

from registry.model.values import Record
from registry.protocol.messages import PUT, READ, Item
from registry.quorum.recent_writes import MAX_BYTES, MAX_SLOTS, OVERHEAD, REMEMBERED_FOR, RecentWrites
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import NOW, a_key, a_key_tombstone, a_record, a_tombstone, identity


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


async def refuse(caller: str, body: object) -> object:
    """Takes no put."""
    await trio.lowlevel.checkpoint()
    return [[["overloaded", "full"]]]


async def stall(caller: str, body: object) -> object:
    """Answers no call."""
    await trio.sleep_forever()


async def test_ones_own_fresh_write_is_read_with_an_ack_of_three_through_the_same_node(autojump_clock) -> None:
    async with simulated_nodes(8, clock=clock) as (network, nodes):
        network.delay = 0.005
        for number in range(30):
            node = nodes[number % 8]
            created = await node.registry.create_resource(f"label {number}", factor=1)
            assert created.resource_id is not None
            assert (await node.registry.register_service(created.resource_id, "v", node.peer_id, "s", factor=1)).success
            records, errors = await node.registry.resolve_resource(created.resource_id, 3)
            assert len(records or ()) == 1, (number, errors)


async def test_a_node_of_many_that_is_no_replica_reads_its_own_fresh_write_with_an_ack_of_five(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        network.delay = 0.02
        for number in range(10):
            node = nodes[number]
            created = await node.registry.create_resource(f"label {number}", factor=1)
            assert created.resource_id is not None
            assert (await node.registry.register_service(created.resource_id, "v", node.peer_id, "s", factor=1)).success
            records, errors = await node.registry.resolve_resource(created.resource_id, 5)
            assert len(records or ()) == 1, (number, errors)


async def test_a_nodes_own_clients_never_read_an_older_state_than_they_wrote(autojump_clock) -> None:
    """Of two replicas the one that is asked refuses all writes; the node is neither."""
    few = NodeSettings(registry=RegistrySettings(neighbourhood_size=2, responsibility_margin=0))
    async with simulated_nodes(6, few, clock) as (_, nodes):
        key = a_key(created=int(clock()))
        members = await nodes[0].peer.neighbourhood(key.id, 2)
        writer = next(node for node in nodes if node.peer_id not in members)
        old = a_record(key.id, issued=int(clock()), created=int(clock()), value="old")
        assert (await writer.parts.writer.write(Item(key, old), factor=2, timeout=5)).stored == 2

        await trio.sleep(1)
        nearest, farther = [next(node for node in nodes if node.peer_id == member) for member in members]
        nearest.peer.intercept(PUT, refuse)
        new = a_record(key.id, issued=int(clock()), created=int(clock()), value="new")
        assert (await writer.parts.writer.write(Item(key, new), factor=1, timeout=5)).stored == 1
        farther.peer.intercept(READ, stall)
        outcome = await writer.parts.reader.read(key.id, ack=1, timeout=5)
        assert [state.metadata.value for state in outcome.resource.slots.values() if isinstance(state, Record)] == [
            "new"
        ]


async def test_what_no_replica_took_is_not_read(autojump_clock) -> None:
    few = NodeSettings(registry=RegistrySettings(neighbourhood_size=2, responsibility_margin=0))
    async with simulated_nodes(6, few, clock) as (_, nodes):
        key = a_key(created=int(clock()))
        members = await nodes[0].peer.neighbourhood(key.id, 2)
        for node in nodes:
            if node.peer_id in members:
                node.peer.intercept(PUT, refuse)
        writer = next(node for node in nodes if node.peer_id not in members)
        assert (await writer.parts.writer.write(Item(key), factor=1, timeout=5)).stored == 0
        assert (await writer.parts.reader.read(key.id, ack=1, timeout=5)).resource.is_empty()


async def test_the_last_minute_is_remembered_and_the_winner_of_each_slot(autojump_clock) -> None:
    await trio.lowlevel.checkpoint()
    recent, key = RecentWrites(), a_key()
    recent.remember(Item(key, a_tombstone(key.id, issued=NOW + 2)))
    recent.remember(Item(key, a_record(key.id, issued=NOW + 1)))
    [state] = recent.of(key.id).slots.values()
    assert state.timestamp_issued == NOW + 2, "the one that wins, not the one that came last"
    await trio.sleep(REMEMBERED_FOR / 2)
    recent.remember(Item(key, a_record(key.id, issuer=identity(7))))
    assert len(recent.of(key.id).slots) == 2
    await trio.sleep(REMEMBERED_FOR / 2 + 1)
    assert len(recent.of(key.id).slots) == 1
    recent.remember(Item(a_key_tombstone(issued=NOW + 9)))
    assert recent.of(key.id).key is None
    await trio.sleep(REMEMBERED_FOR + 1)
    assert recent.of(key.id).is_empty()


async def test_what_a_wrong_clock_signed_for_the_future_is_no_part_of_what_was_written(autojump_clock) -> None:
    """As a removal for the day after tomorrow, which only this machine and liars took."""
    await trio.lowlevel.checkpoint()
    recent, key = RecentWrites(), a_key()
    recent.remember(Item(key))
    recent.remember(Item(a_key_tombstone(issued=NOW + 2 * 86_400)))
    assert recent.of(key.id, NOW + 2 * 86_400).key is None
    assert recent.of(key.id, NOW + 30).key == key


async def test_what_is_remembered_is_bounded_by_items_and_bytes(autojump_clock) -> None:
    await trio.lowlevel.checkpoint()
    recent = RecentWrites()
    key = a_key()
    for number in range(MAX_SLOTS + 5):
        recent.remember(Item(key, a_record(key.id, issuer=identity(number + 1))))
    assert len(recent.of(key.id).slots) == MAX_SLOTS
    large = [a_key(f"large {number}", challenge=b"x" * 4096) for number in range(MAX_BYTES // 4096)]
    for key in large:
        recent.remember(Item(key))
    kept = [key for key in large if not recent.of(key.id).is_empty()]
    assert 0 < len(kept) <= MAX_BYTES // (4096 + OVERHEAD)
    assert kept[-1] == large[-1]


async def test_what_was_written_is_not_kept_with_how_far_the_write_came(autojump_clock) -> None:
    """The last 1,024 writes kept 64 MiB, for as long as a node ran."""

    def kept() -> int:
        gc.collect()
        return sum(type(value) is Item and value.key_or_tombstone in keys for value in gc.get_objects())

    async with simulated_nodes(3, clock=clock) as (_, nodes):
        keys = [a_key(f"large {number}") for number in range(20)]
        await trio.sleep(5)
        outcomes = [await nodes[0].parts.writer.write(Item(key), factor=3, timeout=5) for key in keys]
        await trio.sleep(REMEMBERED_FOR + 5)
        last = await nodes[0].parts.writer.write(Item(a_key("the last")), factor=3, timeout=5)
        assert last.stored == 3, "which has what is over a minute old forgotten"
        assert await nodes[0].parts.writer.progress(outcomes[0].write_id, timeout=1), "how far it came is known"
        assert kept() == 0
