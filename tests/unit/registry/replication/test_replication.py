"""Comparing, catching up and churn between nodes that come and go, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from overlay.discovery.density import BEGINS, CROWD, ENDS
from overlay.discovery.keyspace import POSITION_BITS, nearest, peer_position, resource_position
from overlay.errors import CallRefused
from registry.codes import Code
from registry.model.delta import Orders, delta
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.protocol.address_groups import AddressGroups
from registry.protocol.messages import READ, Item, ReadBody, StatePage, build, parse
from registry.replica.catch_up import CATCH_UP, CatchUp
from registry.replication.anti_entropy import TOLD_BY
from registry.replication.messages import COMPARE, REPLICATE, CompareAnswer, CompareBody, ReplicateBody, Summary
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.world import START, World, WorldNode
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER, a_key, a_key_tombstone, a_record, a_tombstone

SETTINGS = NodeSettings(registry=RegistrySettings(neighbourhood_size=3, responsibility_margin=1, clock_skew=10))
KEY = a_key()
RECORD = a_record(KEY.id)
LATER = a_record(KEY.id, issued=NOW + 5)


@asynccontextmanager
async def world(folder: Path, count: int, settings: NodeSettings = SETTINGS) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        made = World(nursery, random.Random(1), settings, folder, lambda event: None)
        for _ in range(count):
            await made.add()
        await trio.sleep(CATCH_UP + 8)
        yield made
        nursery.cancel_scope.cancel()


async def registered(world: World, node: WorldNode, label: str = "sample") -> str:
    assert node.parts is not None
    created = await node.parts.registry.create_resource(label, factor=3)
    assert created.resource_id is not None, created.errors
    done = await node.parts.registry.register_service(created.resource_id, "v", node.peer_id, None, factor=3)
    assert done.success, done.errors
    return created.resource_id


def keepers(world: World, resource_id: str) -> list[WorldNode]:
    peers = nearest(resource_position(resource_id), world.network.alive(), 3)
    return sorted((node for node in world.up() if node.peer_id in peers), key=lambda node: peers.index(node.peer_id))


async def known(node: WorldNode, resource_id: str) -> ResourceState:
    assert node.store is not None
    return await node.store.resource(resource_id)


async def test_whoever_moves_up_after_a_departure_gets_a_copy(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        gone = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await made.crash(gone)
        await trio.sleep(10)
        states = {(await known(node, resource_id)).digest() for node in keepers(made, resource_id)}
        assert len(keepers(made, resource_id)) == 3
        assert len(states) == 1
        assert ResourceState().digest() not in states


async def test_whoever_moves_up_gets_a_copy_though_it_keeps_the_region_where_density_wavers(
    autojump_clock, tmp_path: Path
) -> None:
    """Such a resource was written to its nearest alone, but all of its region count as keepers: here, everybody."""
    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=CROWD, clock_skew=10))
    async with world(tmp_path, CROWD + 4, settings) as made:
        resource_id = await registered(made, made.nodes[0])
        members = made.network.alive()
        position = resource_position(resource_id)
        nearest_first = nearest(position, members, len(members))
        farthest = (peer_position(nearest_first[CROWD - 1]) ^ position) / 2.0**POSITION_BITS
        made.network.crowds, made.network.size = True, CROWD * (BEGINS + ENDS) / 2 / farthest
        density = made.network.peers[members[0]].density()
        positions = [peer_position(member) for member in members]
        assert not density.is_dense(position, positions, BEGINS)
        assert density.is_dense(position, positions, ENDS)
        by_id = {node.peer_id: node for node in made.up()}
        assert (await known(by_id[nearest_first[CROWD]], resource_id)).key is None
        for peer_id in [peer_id for peer_id in nearest_first[:CROWD] if peer_id != made.nodes[0].peer_id][:2]:
            await made.crash(by_id[peer_id])
        await trio.sleep(2)
        moved_up = by_id[nearest_first[CROWD]].parts
        assert moved_up is not None
        assert moved_up.replica.takeover.is_new_to(resource_id), "what it has doesn't count before it was compared"
        await trio.sleep(8)
        for peer_id in nearest(position, made.network.alive(), CROWD):
            assert (await known(by_id[peer_id], resource_id)).key is not None


async def test_a_replica_that_was_away_for_a_moment_gets_what_it_missed(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        away = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        parts = made.nodes[0].parts
        assert parts is not None
        await made.crash(away)
        done = await parts.registry.unregister_service(resource_id, made.nodes[0].peer_id, factor=2)
        assert done.success
        await made.start(away)
        await trio.sleep(5)
        assert (await known(away, resource_id)).records(int(away.clock()), SETTINGS.registry) == []


async def test_many_writes_that_fail_together_dont_put_the_comparison_off(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 4) as made:
        resource_id = await registered(made, made.nodes[0])
        one, other = made.up()[:2]
        assert one.parts is not None
        replication = one.parts.replication
        for _ in range(50):
            replication.note_failure(other.peer_id, [resource_id])
        assert replication.status().pending > 0
        await trio.sleep(4)
        assert replication.status().pending == 0


async def test_only_what_differs_is_sent(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 3) as made:
        resource_id = await registered(made, made.nodes[0])
        await trio.sleep(1)
        before = [(method, source) for source, _, method in made.network.calls if method == REPLICATE]
        for node in made.up():
            assert node.parts is not None
            await node.parts.upkeep.run_now("replicate_3600")
        await trio.sleep(5)
        assert sum(node.parts.replication.status().repaired for node in made.up() if node.parts) == 0
        assert len({(await known(node, resource_id)).digest() for node in made.up()}) == 1
        ends = [call for call in made.network.calls if call[2] == REPLICATE][len(before) :]
        assert len(ends) <= 6, "nothing but word that the comparison is over"


async def test_a_node_counts_once_it_was_compared_with_and_not_before(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 4) as made:
        resource_id = await registered(made, made.nodes[0])
        replica = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await made.crash(replica)
        made.network.delay = 0.0
        await made.start(replica)
        reader = made.network.peers[made.nodes[0].peer_id]
        before = trio.current_time()
        page = parse(
            await reader.call(replica.peer_id, READ, build(ReadBody(key_id=resource_id)), timeout=5), StatePage
        )
        assert page.caught_up
        assert 0 < trio.current_time() - before <= CATCH_UP, "the answer waited for a comparison"


async def test_of_those_with_nothing_to_compare_the_three_nearest_tell_a_newcomer_so(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 12) as made:
        before = len(made.network.calls)
        newcomer = await made.add()
        joined = trio.current_time()
        assert newcomer.parts is not None
        assert await newcomer.parts.replica.catch_up.wait()
        assert trio.current_time() - joined < CATCH_UP, "it was told"
        await trio.sleep(CATCH_UP + 8)
        words = {(source, target) for source, target, method in made.network.calls[before:] if method == REPLICATE}
        peers = {node.peer_id for node in made.up()}
        near = {peer: nearest(peer_position(peer), peers - {peer}, TOLD_BY) for peer in peers}
        here = newcomer.peer_id
        assert words == {(peer, here) for peer in near[here]} | {(here, peer) for peer in peers if here in near[peer]}


async def test_nodes_that_all_start_at_once_dont_wait_for_each_other(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 4) as made:
        resource_id = await registered(made, made.nodes[0])
        for node in list(made.up()):
            await made.crash(node)
        for node in made.nodes:
            await made.start(node)
        parts = made.nodes[3].parts
        assert parts is not None
        before = trio.current_time()
        resolved = await parts.registry.resolve_resource(resource_id, 3)
        assert len(resolved.records or ()) == 1, resolved.errors
        assert trio.current_time() - before <= CATCH_UP + 0.5


async def test_without_comparisons_a_node_counts_after_two_seconds(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made, trio.open_nursery() as nursery:
        network = made.network.peers[made.nodes[0].peer_id]
        catch_up = CatchUp(AddressGroups(network))
        before = trio.current_time()
        nursery.start_soon(catch_up.run, network)
        assert await catch_up.wait()
        assert trio.current_time() - before == pytest.approx(CATCH_UP)
        await made.crash(made.nodes[1])
        await trio.sleep(0.1)
        assert not catch_up.is_caught_up, "whoever lost all others was away"
        nursery.cancel_scope.cancel()


async def test_clocks_too_far_apart_arent_compared(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        peer = made.network.peers[made.nodes[0].peer_id]
        now = int(START + trio.current_time()) + 21
        body = build(CompareBody(now, ExpiryHorizon.at(now, SETTINGS.registry), ()))
        with pytest.raises(CallRefused, match="clock"):
            await peer.call(made.nodes[1].peer_id, COMPARE, body, timeout=5)


async def test_the_stricter_time_counts_on_both_sides(autojump_clock, tmp_path: Path) -> None:
    """A record that has expired by one clock and not by the other is no difference."""
    async with world(tmp_path, 3) as made:
        resource_id = await registered(made, made.nodes[0])
        peer, asked = made.network.peers[made.nodes[1].peer_id], made.nodes[2]
        mine = await known(made.nodes[1], resource_id)
        horizon = ExpiryHorizon.at(int(asked.clock()), SETTINGS.registry)
        later = msgspec.structs.replace(horizon, hosted=2**40, issued=2**40)
        entry = (resource_id, later.alive(mine).digest())
        body = build(CompareBody(int(asked.clock()), later, (entry,)))
        answer = parse(await peer.call(asked.peer_id, COMPARE, body, timeout=5), CompareAnswer)
        assert answer.summaries == ()
        assert answer.horizon == later


async def test_garbage_is_refused_by_comparing_too(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        peer, target = made.network.peers[made.nodes[0].peer_id], made.nodes[1].peer_id
        for method in (COMPARE, REPLICATE):
            for body in (None, 7, [], [[]], [-1, [], []], [1, [0] * 5, [["x" * 2000, b""]]], [[["a", "b"]], "yes"]):
                with pytest.raises(CallRefused, match="malformed"):
                    await peer.call(target, method, body, timeout=5)
        many = build(CompareBody(1, ExpiryHorizon(0, 0, 0, 0, 0), ()))
        many[2] = [["x", b""]] * 513
        with pytest.raises(CallRefused, match="malformed"):
            await peer.call(target, COMPARE, many, timeout=5)


async def test_forged_states_arent_stored_by_replication_either(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        peer, target = made.network.peers[made.nodes[0].peer_id], made.nodes[1]
        from registry.protocol.messages import PutAnswer, PutBody
        from tests.unit.registry.builders import hosted

        forged = hosted(RECORD.metadata, OWNER, NOW)
        body = build(ReplicateBody(PutBody.of([Item(KEY, forged)]).items, last=True))
        answer = parse(await peer.call(target.peer_id, REPLICATE, body, timeout=5), PutAnswer)
        assert answer.errors[0] is not None
        assert answer.errors[0].code == Code.RECORD_SIGNATURE
        assert "Invalid record signature" in answer.errors[0].text
        assert (await known(target, KEY.id)).is_empty()


@pytest.mark.parametrize(
    ("mine", "theirs", "sent"),
    [
        (ResourceState.of(KEY, [RECORD]), ResourceState(), [Item(KEY, RECORD)]),
        (ResourceState.of(KEY, []), ResourceState(), [Item(KEY)]),
        (ResourceState.of(KEY, [RECORD]), ResourceState.of(KEY, [RECORD]), []),
        (ResourceState.of(KEY, [RECORD]), ResourceState.of(KEY, [LATER]), []),
        (ResourceState.of(KEY, [LATER]), ResourceState.of(KEY, [RECORD]), [Item(KEY, LATER)]),
        (ResourceState.of(a_key(created=NOW + 1), []), ResourceState.of(KEY, []), [Item(a_key(created=NOW + 1))]),
        (ResourceState.of(KEY, [], a_key_tombstone()), ResourceState.of(KEY, [RECORD]), [Item(a_key_tombstone())]),
        (
            ResourceState.of(None, [LATER], a_key_tombstone()),
            ResourceState.of(None, [], a_key_tombstone()),
            [Item(a_key_tombstone(), LATER)],
        ),
        (
            ResourceState.of(KEY, [a_tombstone(KEY.id, ISSUER, HOST, NOW)]),
            ResourceState.of(KEY, [RECORD]),
            [Item(KEY, a_tombstone(KEY.id, ISSUER, HOST, NOW))],
        ),
        (ResourceState.of(None, [RECORD]), ResourceState(), []),
    ],
)
def test_what_is_sent_is_what_the_other_lacks(mine: ResourceState, theirs: ResourceState, sent: list[Item]) -> None:
    assert [Item(*write) for write in delta(mine, Summary.of(0, theirs).orders())] == sent
    assert Summary.of(0, theirs).orders() == Orders.of(theirs)


async def test_a_node_that_is_far_from_what_it_has_hands_it_over_when_it_comes_back(
    autojump_clock, tmp_path: Path
) -> None:
    """Nobody who keeps the resource has it, and this node isn't near it by any margin."""
    async with world(tmp_path, 9) as made:
        node = made.nodes[0]
        labels = (a_key(str(number), created=START) for number in range(1000))
        key = next(
            key for key in labels if node.peer_id == nearest(resource_position(key.id), made.network.alive(), 9)[-1]
        )
        assert node.parts is not None
        assert await node.parts.replica.ingest.store([Item(key)], node.peer_id) == [None]
        await made.crash(node)
        await trio.sleep(5)
        await made.start(node)
        await trio.sleep(10)
        assert [(await known(keeper, key.id)).key for keeper in keepers(made, key.id)] == [key] * 3


async def test_what_is_far_from_a_node_is_handed_over_hourly(autojump_clock, tmp_path: Path) -> None:
    async with world(tmp_path, 9) as made:
        node = made.nodes[0]
        labels = (a_key(str(number), created=START) for number in range(1000))
        key = next(
            key for key in labels if node.peer_id == nearest(resource_position(key.id), made.network.alive(), 9)[-1]
        )
        assert node.parts is not None
        assert await node.parts.replica.ingest.store([Item(key)], node.peer_id) == [None]
        await node.parts.upkeep.run_now("replicate_3600")
        assert [(await known(keeper, key.id)).key for keeper in keepers(made, key.id)] == [key] * 3


async def test_an_old_surplus_copy_doesnt_bring_back_what_was_ended_meanwhile(autojump_clock, tmp_path: Path) -> None:
    """A replica is pushed out by newcomers, misses an unregistration, and moves up again when they die."""
    async with world(tmp_path, 3) as made:
        resource_id = await registered(made, made.nodes[0])
        while sum(node in keepers(made, resource_id) for node in made.nodes[:3]) > 1:
            await made.add()
            await trio.sleep(10)
        stays = next(node for node in keepers(made, resource_id) if node in made.nodes[:3])
        outside = [node for node in made.nodes[:3] if node is not stays]
        host = made.nodes[0].parts
        assert host is not None
        done = await host.registry.unregister_service(resource_id, made.nodes[0].peer_id, factor=3)
        assert done.success, done.errors
        stale = next(node for node in outside if node is not made.nodes[0])
        assert len((await known(stale, resource_id)).records(int(stale.clock()), SETTINGS.registry)) == 1
        for node in keepers(made, resource_id):
            if node is not stays:
                await made.crash(node)
        assert stale.parts is not None
        resolved = await stale.parts.registry.resolve_resource(resource_id, 1)
        assert resolved.records == (), resolved.errors
        await trio.sleep(20)
        assert (await known(stale, resource_id)).records(int(stale.clock()), SETTINGS.registry) == []
