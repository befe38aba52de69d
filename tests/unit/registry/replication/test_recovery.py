"""Replicas that refused or lost something get it from others once the cause is over, in virtual time."""

from __future__ import annotations

import itertools
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio

from overlay.discovery.keyspace import nearest, resource_position
from overlay.errors import Refusal
from registry.codes import Code
from registry.model.merge import ResourceState
from registry.protocol.address_groups import AddressGroups
from registry.protocol.messages import PUT, Item, PutAnswer, PutBody, build, parse
from registry.protocol.network import Handler
from registry.replica.behind import FIRST_DELAY
from registry.replication.messages import PULL
from registry.replication.recovery import OTHERS, Recovery
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import simulated_nodes
from tests.simulation.world import WorldNode
from tests.unit.registry.builders import a_key, a_record
from tests.unit.registry.replication.test_replication import keepers, known, registered, world

RECOVERED_WITHIN = 10.0  # seconds after the end of the cause


async def wait_for_values(node: WorldNode, resource_id: str, values: set[str]) -> None:
    """Fails unless a node has them in time; in virtual time looking again and again costs nothing."""
    with trio.fail_after(RECOVERED_WITHIN):
        while await values_at(node, resource_id) != values:  # noqa: ASYNC110 - as commits come
            await trio.sleep(0.1)


async def update(node: WorldNode, resource_id: str, value: str, factor: int) -> None:
    assert node.parts is not None
    done = await node.parts.registry.register_service(resource_id, value, node.peer_id, None, factor=factor)
    assert done.success, done.errors


async def values_at(node: WorldNode, resource_id: str) -> set[str]:
    resource = await known(node, resource_id)
    return {record.metadata.value for record in resource.slots.values() if hasattr(record, "metadata")}


def change(node: WorldNode, statement: str) -> None:
    """Changes a node's database behind its back."""
    with closing(sqlite3.connect(node.path)) as other, other:
        other.execute(statement)


def rot(node: WorldNode) -> None:
    """One byte of each record on a node's disk isn't what was written, and nothing else changes with it."""
    with closing(sqlite3.connect(node.path)) as other, other:
        triggers = other.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            other.execute(f"DROP TRIGGER {name}")
        other.execute("UPDATE states SET body = CAST(substr(body, 1, 40) || x'00' || substr(body, 42) AS BLOB)")
        for _, sql in triggers:
            other.execute(sql)


async def test_a_replica_whose_rows_rotted_has_them_again_and_hides_nothing_meanwhile(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        rotten = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await made.crash(rotten)
        rotten.path = tmp_path / "rotten.sqlite"
        assert rotten.image is not None
        await trio.Path(rotten.path).write_bytes(rotten.image)
        rot(rotten)
        rotten.image = await trio.Path(rotten.path).read_bytes()
        await made.start(rotten)
        await trio.sleep(8)
        assert rotten.parts is not None
        resolved = await rotten.parts.registry.resolve_resource(resource_id, 3)
        assert [record.metadata.value for record in resolved.records or ()] == ["v"], resolved.errors
        assert rotten.store is not None
        await wait_for_values(rotten, resource_id, {"v"})
        await trio.sleep(RECOVERED_WITHIN)
        assert rotten.store.damaged == 1
        assert not rotten.parts.replica.behind.causes()
        states = {(await known(node, resource_id)).digest() for node in keepers(made, resource_id)}
        assert len(states) == 1
        assert ResourceState().digest() not in states


async def test_a_replica_whose_clock_was_slow_gets_what_it_refused_once_its_clock_is_right(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        slow = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        slow.skew = -600.0
        await trio.sleep(5)
        await update(made.nodes[0], resource_id, "newer", factor=2)
        await trio.sleep(25)
        assert await values_at(slow, resource_id) == {"v"}, "it refused what is ten minutes ahead of its clock"
        slow.skew = 0.0
        await wait_for_values(slow, resource_id, {"newer"})


async def test_a_replica_whose_clock_was_slow_for_a_moment_gets_what_it_refused_then(
    autojump_clock, tmp_path: Path
) -> None:
    """A moment so short that nobody is told that the clock changed."""
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        slow = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        await trio.sleep(5)
        slow.skew = -600.0
        await update(made.nodes[0], resource_id, "newer", factor=2)
        slow.skew = 0.0
        await wait_for_values(slow, resource_id, {"newer"})


@pytest.mark.parametrize("which", [0, 3, 7])  # of eight, by their ids: all ask the same ones
async def test_replicas_have_what_was_dated_ahead_once_it_may_be_taken(
    autojump_clock, tmp_path: Path, which: int
) -> None:
    """The others refused it too, and have nothing to give."""
    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=8, responsibility_margin=1, clock_skew=10))
    async with world(tmp_path, 12, settings) as made:
        resource_id = await registered(made, made.nodes[0])
        await trio.sleep(5)
        peers = nearest(resource_position(resource_id), made.network.alive(), 8)
        fast = next(node for node in made.up() if node.peer_id == sorted(peers)[which])
        others = [node for node in made.up() if node.peer_id in peers and node is not fast]
        key, now = (await known(fast, resource_id)).key, int(fast.clock())
        assert key is not None
        ahead = Item(key, a_record(resource_id, issued=now, created=now + 20, value="ahead"))  # they allow 10
        for node in others:
            answer = await made.network.peers[fast.peer_id].call(
                node.peer_id, PUT, build(PutBody.of([ahead])), timeout=5
            )
            assert [error and error.code for error in parse(answer, PutAnswer).errors] == [Code.RECORD_FROM_FUTURE]
        assert fast.parts is not None
        fast.skew = 15.0
        assert await fast.parts.replica.ingest.store([ahead], fast.peer_id) == [None]
        fast.skew = 0.0
        await trio.sleep(9)
        assert [await values_at(node, resource_id) for node in others] == [{"v"}] * len(others)
        await trio.sleep(2)
        assert [await values_at(node, resource_id) for node in others] == [{"v", "ahead"}] * len(others)


async def test_a_stranger_who_sends_what_is_dated_ahead_keeps_no_replica_behind_after_its_disk_failed(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        victim = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        stranger = next(node for node in made.nodes if node is not victim and node not in keepers(made, resource_id))
        kept_there = made.network.peers[victim.peer_id].is_responsible
        signed = a_key("x")
        forged = [msgspec.structs.replace(signed, label=f"x{number}") for number in range(20_000)]
        forged = [key for key in forged if kept_there(key.id, 3, 1)][:4_000]
        assert len(forged) == 4_000
        assert victim.parts is not None

        async def attack() -> None:
            for start in itertools.cycle(range(0, len(forged), 64)):
                created = int(victim.clock()) + 128
                items = [
                    Item(msgspec.structs.replace(key, timestamp_created=created)) for key in forged[start : start + 64]
                ]
                await made.network.peers[stranger.peer_id].call(
                    victim.peer_id, PUT, build(PutBody.of(items)), timeout=5
                )
                await trio.sleep(64 * 110 / len(forged))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack)
            await trio.sleep(130)
            change(
                victim,
                "CREATE TRIGGER failing BEFORE INSERT ON states BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END",
            )
            await update(made.nodes[0], resource_id, "newer", factor=2)
            await trio.sleep(1)
            assert victim.parts.replica.behind.is_behind(resource_id)
            change(victim, "DROP TRIGGER failing")
            with trio.fail_after(RECOVERED_WITHIN):
                while victim.parts.replica.behind.is_behind(resource_id):  # noqa: ASYNC110 - virtual time
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def test_a_replica_whose_disk_failed_for_a_while_gets_what_it_missed_and_doesnt_count_meanwhile(
    autojump_clock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        failing = next(node for node in keepers(made, resource_id) if node is not made.nodes[0])
        assert failing.parts is not None
        change(
            failing, "CREATE TRIGGER failing BEFORE INSERT ON states BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
        await update(made.nodes[0], resource_id, "newer", factor=2)
        await trio.sleep(25)
        assert await values_at(failing, resource_id) == {"v"}
        assert not failing.parts.replica.counts_for(resource_id)
        change(failing, "DROP TRIGGER failing")
        await wait_for_values(failing, resource_id, {"newer"})
        assert await failing.parts.replica.wait_until_it_counts(resource_id)


async def test_many_resources_of_which_a_failing_disk_lost_something_one_by_one_count_again_in_time(
    autojump_clock, tmp_path: Path
) -> None:
    """Each was asked for at its own moment, of those who compare with the same peer every two seconds only."""
    async with world(tmp_path, 5) as made:
        failing = made.nodes[1]
        assert failing.parts is not None
        behind = failing.parts.replica.behind
        all_ids = [await registered(made, made.nodes[0], f"sample {number}") for number in range(40)]
        resource_ids = [resource_id for resource_id in all_ids if failing in keepers(made, resource_id)]
        assert len(resource_ids) > 12
        change(
            failing, "CREATE TRIGGER failing BEFORE INSERT ON states BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
        for resource_id in resource_ids:
            await update(made.nodes[0], resource_id, "newer", factor=2)
            await trio.sleep(0.7)
        await trio.sleep(15)
        assert all(map(behind.is_behind, resource_ids))
        change(failing, "DROP TRIGGER failing")
        with trio.fail_after(RECOVERED_WITHIN):
            while behind.causes():  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
        for resource_id in resource_ids:
            assert await values_at(failing, resource_id) == {"newer"}


async def test_those_who_never_compare_hold_nobody_up_and_are_asked_last_from_then_on(autojump_clock) -> None:
    async def never(caller: str, body: object) -> object:
        await trio.sleep_forever()

    async with simulated_nodes(6, None, time.time) as (_, nodes), trio.open_nursery() as nursery:
        await trio.sleep(20)
        lacking, *others = sorted(nodes, key=lambda node: node.peer_id, reverse=True)
        for node in others[-2:]:  # who are asked first, of those who keep as much
            node.peer.intercept(PULL, never)
        recovery = Recovery(lacking.peer, AddressGroups(lacking.peer), neighbourhood_size=20, responsibility_margin=2)
        await nursery.start(recovery.run)
        for number, patience in enumerate((RECOVERED_WITHIN, FIRST_DELAY + OTHERS / 2)):
            recovery.note(f"resource {number}", Code.STORAGE)
            with trio.fail_after(patience):
                while recovery.behind.causes():  # noqa: ASYNC110 - in virtual time
                    await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


async def test_words_of_rounds_in_which_most_refuse_come_together(autojump_clock) -> None:
    """While its own disk failed, honest ones couldn't compare with it either: nobody is better than who never does."""
    is_mended = False

    async def never(caller: str, body: object) -> object:
        raise Refusal(Code.INTERNAL, "not today")

    async with simulated_nodes(6, None, time.time) as (_, nodes), trio.open_nursery() as nursery:
        await trio.sleep(20)
        lacking, *others = sorted(nodes, key=lambda node: node.peer_id, reverse=True)
        for node in others[:2]:
            honest = node.peer.intercept(PULL, never)

            async def once_mended(caller: str, body: object, honest: Handler = honest) -> object:
                return await (honest if is_mended else never)(caller, body)

            node.peer.intercept(PULL, once_mended)
        for node in others[2:]:  # who are asked first, of those who keep as much
            node.peer.intercept(PULL, never)
        recovery = Recovery(lacking.peer, AddressGroups(lacking.peer), neighbourhood_size=20, responsibility_margin=2)
        await nursery.start(recovery.run)
        recovery.note("resource", Code.STORAGE)
        await trio.sleep(60)
        assert recovery.behind.is_behind("resource")
        is_mended = True
        with trio.fail_after(RECOVERED_WITHIN):
            while recovery.behind.causes():  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


async def test_who_keeps_something_in_reserve_alone_isnt_behind_for_good_if_its_replicas_dont_know_it(
    autojump_clock,
) -> None:
    async def unknown(caller: str, body: object) -> object:
        raise Refusal(Code.NOT_RESPONSIBLE, "this peer compares with its neighbours alone")

    async with simulated_nodes(6, None, time.time) as (_, nodes), trio.open_nursery() as nursery:
        await trio.sleep(20)
        lacking, *others = nodes
        for node in others:
            node.peer.intercept(PULL, unknown)
        ids = [f"resource{number}" for number in range(50)]
        replica_of = next(key_id for key_id in ids if lacking.peer.is_responsible(key_id, 3))
        reserve_of = next(key_id for key_id in ids if not lacking.peer.is_responsible(key_id, 3))
        recovery = Recovery(lacking.peer, AddressGroups(lacking.peer), neighbourhood_size=3, responsibility_margin=3)
        await nursery.start(recovery.run)
        recovery.note_lost([replica_of, reserve_of])
        await trio.sleep(10)
        assert recovery.behind.is_behind(reserve_of), "others may yet know it"
        await trio.sleep(50)
        assert not recovery.behind.is_behind(reserve_of)
        assert recovery.behind.is_behind(replica_of), "it is read from"
        nursery.cancel_scope.cancel()
