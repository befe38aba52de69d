"""What was signed while the clock was ahead: what becomes of it once the clock is right, in virtual time."""

from __future__ import annotations

from pathlib import Path

import trio

from overlay.clock.comparison import Standing
from registry.client.timestamps import TimestampLog
from registry.model.values import Record, Slot
from registry.model.verification import record_is_genuine
from registry.replica.countersign import sign_record
from registry.storage import Transaction
from tests.simulation.world import START, World, WorldNode
from tests.unit.registry.builders import identity
from tests.unit.registry.replication.test_replication import SETTINGS, known, registered, world

DAY = 86_400
AHEAD = 2.0 * DAY
SETTLED = SETTINGS.registry.clock_skew + 8.0  # seconds after the clock was set right


def present() -> float:
    return START + trio.current_time()


async def alone_and_ahead(made: World, node: WorldNode) -> None:
    """The node starts anew where nobody tells it the time."""
    await made.crash(node)
    node.skew = AHEAD
    made.split({node.peer_id: 1})
    made.network.isolates = False  # type: ignore[attr-defined]
    await made.start(node)
    await trio.sleep(5)


async def back(made: World, node: WorldNode) -> None:
    """Among others, and then with the right time."""
    made.split({})
    await trio.sleep(20)
    assert node.network is not None
    assert node.network.compared_clock.verdict().standing is Standing.OFF
    node.skew = 0.0
    await trio.sleep(SETTLED)


async def own_after(node: WorldNode, after: float) -> set[str]:
    """The resources of which the node has statements of its own for later than a time."""
    assert node.store is not None
    return await node.store.read(lambda transaction: transaction.signed_after(node.peer_id, int(after), node.peer_id))


async def test_all_that_an_identity_signed_ahead_is_signed_for_the_present_and_means_the_same(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        node, reader = made.nodes[5], made.nodes[2]
        theirs = await registered(made, made.nodes[0])
        assert node.parts is not None
        removed = (await node.parts.registry.create_resource("removed", factor=3)).resource_id
        anew = (await node.parts.registry.create_resource("anew", factor=3)).resource_id
        ended = (await node.parts.registry.create_resource("ended", factor=3)).resource_id
        assert removed is not None
        assert anew is not None
        assert ended is not None
        for resource_id in (removed, ended):
            done = await node.parts.registry.register_service(resource_id, "before", node.peer_id, None, factor=3)
            assert done.success, done.errors
        await trio.sleep(2)

        await alone_and_ahead(made, node)
        registry = node.parts.registry
        for done in (
            await registry.remove_resource(removed),
            await registry.remove_resource(anew),
            await registry.unregister_service(ended, node.peer_id),
        ):
            assert done.success, done.errors
        assert (await registry.create_resource("anew")).resource_id == anew
        assert (await registry.register_service(anew, "after", node.peer_id, None)).success
        assert await own_after(node, present() + DAY) == {removed, anew, ended}

        await back(made, node)
        assert await own_after(node, present() + SETTINGS.registry.clock_skew) == set()
        assert reader.parts is not None
        gone = await reader.parts.registry.resolve_resource(removed, 2)
        assert not gone.records
        assert not (await reader.parts.registry.resolve_resource(ended, 2)).records
        found = await reader.parts.registry.resolve_resource(anew, 2)
        assert [record.metadata.value for record in found.records or ()] == ["after"], found.errors
        assert [record.metadata.value for record in await records(reader, theirs)] == ["v"]


async def records(node: WorldNode, resource_id: str) -> list[Record]:
    assert node.parts is not None
    return list((await node.parts.registry.resolve_resource(resource_id, 2)).records or ())


async def test_no_time_is_given_twice_to_a_slot_that_went_back(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        node = made.nodes[5]
        await alone_and_ahead(made, node)
        assert node.parts is not None
        assert node.store is not None
        resource_id = (await node.parts.registry.create_resource("sample")).resource_id
        assert resource_id is not None
        assert (await node.parts.registry.register_service(resource_id, "ahead", node.peer_id, None)).success
        slot = Slot(resource_id, node.peer_id, node.peer_id)
        ahead = (await known(node, resource_id)).slots[slot].timestamp_issued
        await back(made, node)
        log = TimestampLog(node.store, node.parts.replica.ingest, node.peer_id)
        times = [(await known(node, resource_id)).slots[slot].timestamp_issued]
        assert abs(times[0] - present()) < SETTLED
        times += [await log.reserve(slot, -1, now) for now in (int(present()), ahead - 1, ahead, ahead)]
        assert times[-3:] == [ahead - 1, ahead + 1, ahead + 2]
        assert times == sorted(set(times))


async def test_what_is_in_the_future_of_a_clock_that_went_back_stays_where_nobody_says_which_is_right(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        node = made.nodes[5]
        await alone_and_ahead(made, node)
        assert node.parts is not None
        resource_id = (await node.parts.registry.create_resource("sample")).resource_id
        assert resource_id is not None
        before = (await known(node, resource_id)).digest()
        node.skew = -400.0 * DAY
        await trio.sleep(100)
        assert (await known(node, resource_id)).digest() == before


async def test_what_it_hosts_for_others_is_signed_anew_as_their_host_alone(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        node, issuer = made.nodes[5], made.nodes[0]
        resource_id = await registered(made, issuer)
        assert issuer.parts is not None
        done = await issuer.parts.registry.register_service(resource_id, "hosted", node.peer_id, None, factor=3)
        assert done.success, done.errors
        slot = Slot(resource_id, issuer.peer_id, node.peer_id)
        record = (await known(node, resource_id)).slots[slot]
        await alone_and_ahead(made, node)
        assert node.store is not None
        assert isinstance(record, Record)

        def renewed_ahead(transaction: Transaction) -> None:
            assert isinstance(record, Record)
            transaction.put_state(sign_record(node.identity, record.metadata, int(node.clock())), 0)

        await node.store.write(renewed_ahead)
        await back(made, node)
        state = (await known(node, resource_id)).slots[slot]
        assert isinstance(state, Record)
        assert state.metadata == record.metadata
        assert 0 <= present() - state.timestamp_created < SETTLED


async def test_what_was_issued_ahead_under_another_key_of_the_nodes_is_signed_by_both(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        node, reader = made.nodes[5], made.nodes[2]
        node.issuers = (identity(77),)
        await alone_and_ahead(made, node)
        assert node.parts is not None
        resource_id = (await node.parts.registry.create_resource("sample")).resource_id
        assert resource_id is not None
        registry = node.parts.registries[identity(77).peer_id]
        for each in (registry, node.parts.registry):
            assert (await each.register_service(resource_id, "ahead", node.peer_id, None)).success
        await back(made, node)
        assert reader.parts is not None
        states = (await reader.parts.node_api.read(resource_id, ack=2, timeout=6)).resource.slots
        assert states.keys() == {Slot(resource_id, by, node.peer_id) for by in (node.peer_id, identity(77).peer_id)}
        for state in states.values():
            assert isinstance(state, Record)
            assert max(state.timestamp_issued, state.timestamp_created) <= present()
            assert record_is_genuine(state)
        assert await own_after(node, present()) == set()
