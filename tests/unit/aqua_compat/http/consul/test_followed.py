"""What is known of a followed service is what its records and their health say, after whatever came."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from cachetools import LRUCache

from aqua_compat.http.consul.catalog import Survey
from aqua_compat.http.consul.entries import SERVICE_EXAMPLE, Entry, EntryWriter
from aqua_compat.http.consul.expression import parse
from aqua_compat.http.consul.followed import FollowedService
from aqua_compat.http.consul.replies import ENCODED_AT_ONCE, encoded
from aqua_compat.http.consul.surveyed import services_in, services_of_node
from registry.health.health_reader import RecordHealth
from registry.health.state import Health, HealthState
from registry.model.endpoints import Instance, write_instances
from registry.model.values import Record, Slot
from registry.watch.watch_event import EventKind, WatchEvent
from tests.unit.aqua_compat.http.test_feeds import PEERS, ScriptedWatch, a_record

WRITER = EntryWriter("aqua", lambda peer_id: [f"/ip4/10.0.0.{PEERS.index(peer_id) + 1}/tcp/7000"])


def a_value(seed: random.Random) -> str:
    if seed.random() < 0.2:
        return seed.choice(["http://192.0.2.7:80", "not an address", ""])
    instances = [
        Instance(id=f"i{number}", address="192.0.2.1", port=80 + number, tags=(seed.choice("abc"),))
        for number in range(seed.randrange(1, 4))
    ]
    return write_instances(instances)


class World:
    """The records that there are, and how each host says its services are."""

    def __init__(self) -> None:
        self.records: dict[Slot, Record] = {}
        self.healths: dict[str, RecordHealth] = {}

    def health_of(self, slot: Slot, instances: Iterable[str]) -> RecordHealth:
        known = self.healths.get(slot.peer_id, RecordHealth())
        return RecordHealth(known.is_up, known.up_or_down_for, (), known.health, dict.fromkeys(instances, known.health))

    def entries(self) -> list[Entry]:
        """By hand, from nothing."""
        return [
            entry
            for slot, record in sorted(self.records.items())
            for entry in WRITER.entries("web", record, partial(self.health_of, slot))
        ]


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_known_is_what_there_is_and_its_version_grows_when_that_changes(
    seed: int, autojump_clock
) -> None:
    chance, world, watch = random.Random(seed), World(), ScriptedWatch()
    told: list[None] = []
    followed = FollowedService("web", cast("Any", watch), WRITER, world.health_of, lambda: told.append(None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.run)
        await trio.testing.wait_all_tasks_blocked()
        assert followed.version == 0
        watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT))
        for _ in range(60):
            await trio.testing.wait_all_tasks_blocked()
            before, version, digest = followed.entries, followed.version, followed.digest
            peer = chance.randrange(len(PEERS))
            slot = a_record(peer, "").slot
            if chance.random() < 0.4:
                state = chance.choice([HealthState.PASSING, HealthState.WARNING, HealthState.CRITICAL])
                health = Health(state, chance.randrange(3), chance.choice(["", "slow"]))
                world.healths[PEERS[peer]] = RecordHealth(chance.random() < 0.8, chance.random(), (), health)
                followed.note_health(PEERS[peer])
            elif slot in world.records and chance.random() < 0.4:
                kind = chance.choice([EventKind.REMOVED, EventKind.EXPIRED])
                watch.send.send_nowait(WatchEvent(kind, world.records.pop(slot)))
            else:
                record = world.records[slot] = a_record(peer, a_value(chance))
                watch.send.send_nowait(WatchEvent(chance.choice([EventKind.ADDED, EventKind.UPDATED]), record))
            await trio.testing.wait_all_tasks_blocked()
            assert followed.entries == world.entries()
            assert (followed.version > version) is (followed.entries != before)
            assert len(told) == followed.version
            assert (followed.digest != digest) is (followed.entries != before)
        nursery.cancel_scope.cancel()


async def test_who_waits_is_woken_by_a_change_and_by_nothing_else(autojump_clock) -> None:
    world, watch = World(), ScriptedWatch()
    told: list[None] = []
    followed = FollowedService("web", cast("Any", watch), WRITER, world.health_of, lambda: told.append(None))
    woken = trio.Event()

    async def wait() -> None:
        await followed.wait_beyond(1)
        woken.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.run)
        record = a_record(1, "192.0.2.7:80")
        watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=(record,)))
        await followed.wait_beyond(0)
        nursery.start_soon(wait)
        watch.send.send_nowait(WatchEvent(EventKind.HEALTH, record, health=RecordHealth(up_or_down_for=7.0)))
        watch.send.send_nowait(WatchEvent(EventKind.UPDATED, a_record(1, "192.0.2.7:80")))
        followed.note_health(PEERS[1])
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        watch.send.send_nowait(WatchEvent(EventKind.REMOVED, record))
        await trio.testing.wait_all_tasks_blocked()
        assert woken.is_set()
        nursery.cancel_scope.cancel()


async def test_what_a_host_says_while_a_snapshot_is_written_is_told_with_it(autojump_clock) -> None:
    """Many records are written while others have their turn."""
    world, watch = World(), ScriptedWatch()
    many = write_instances([Instance(id=str(number), address="192.0.2.1", port=80) for number in range(64)])
    records = tuple(a_record(peer, many) for peer in range(len(PEERS)))
    world.records = {record.slot: record for record in records}
    turns = 0

    def health_of(slot: Slot, instances: Iterable[str]) -> RecordHealth:
        written.add(slot)
        return world.health_of(slot, instances)

    written = set[Slot]()
    followed = FollowedService("web", cast("Any", watch), WRITER, health_of, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.run)
        watch.send.send_nowait(WatchEvent(EventKind.SNAPSHOT, records=records))
        while len(written) < len(records):
            turns += len(written) > 0
            for slot in written:  # of which it is written already how it was
                world.healths[slot.peer_id] = RecordHealth(health=Health(HealthState.WARNING, 1, ""))
                followed.note_health(slot.peer_id)
            await trio.lowlevel.checkpoint()
        await followed.wait_beyond(0)
        assert turns > 1
        assert followed.entries == world.entries()
        nursery.cancel_scope.cancel()


class NeverCompared(dict[str, Any]):
    def __eq__(self, other: object) -> bool:
        raise AssertionError("what has thousands of instances would be compared for minutes")

    __hash__ = None  # type: ignore[assignment]


async def test_what_is_told_of_all_services_compares_no_instances_with_each_other() -> None:
    instances = [
        Instance(id=str(number), address="192.0.2.1", port=80, tags=(f"t{number % 2}",)) for number in range(9)
    ]
    entries = WRITER.entries("web", a_record(1, write_instances(instances)), lambda _: RecordHealth())
    odd = [
        entry._replace(health=entry.health | {"Service": NeverCompared(entry.health["Service"])}) for entry in entries
    ]
    survey = Survey(1, {"web": tuple(odd)}, LRUCache(1))
    term = parse("t1 in Tags", SERVICE_EXAMPLE)
    assert await services_in(survey, term=term) == {"web": ["t1"]}
    told = await services_of_node(survey, name=PEERS[1], members=tuple, node=lambda _: {}, term=term)
    assert list(told["Services"]) == ["1", "3", "5", "7"]


async def test_a_long_list_is_encoded_in_parts_as_it_is_in_one() -> None:
    for count in (0, 1, ENCODED_AT_ONCE, 2 * ENCODED_AT_ONCE, 2 * ENCODED_AT_ONCE + 1):
        values = [{"number": number} for number in range(count)]
        assert await encoded(values) == msgspec.json.encode(values)
    assert await encoded({"a": []}) == b'{"a":[]}'


def test_a_state_that_isnt_known_is_critical_and_a_node_that_is_down_too() -> None:
    record = a_record(1, "http://192.0.2.7:80/path")

    def status(health: RecordHealth) -> tuple[str, list[str]]:
        [entry] = WRITER.entries("web", record, lambda _: health)
        assert entry.service_id == "web"
        return entry.status, [check["Status"] for check in entry.health["Checks"]]

    assert status(RecordHealth()) == ("passing", ["passing", "passing"])
    assert status(RecordHealth(health=Health(HealthState.UNKNOWN))) == ("critical", ["passing", "critical"])
    assert status(RecordHealth(health=Health(HealthState.WARNING))) == ("warning", ["passing", "warning"])
    assert status(RecordHealth(is_up=False)) == ("critical", ["critical", "passing"])


def test_a_node_is_told_where_others_reach_it_best() -> None:
    addresses = ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"]
    for count, best in ((3, "8.8.8.8"), (2, "10.0.0.1"), (1, "127.0.0.1"), (0, "fallback")):
        assert EntryWriter("aqua", lambda _, count=count: addresses[:count]).node("p", "fallback")["Address"] == best
