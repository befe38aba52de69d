"""What watchers are told of records whose hosts go and come, and of services that pass and don't."""

from __future__ import annotations

import time
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from registry.health.exceptions import ExceptionList
from registry.health.health_reader import RecordHealth
from registry.health.state import Health, HealthState, HostedService
from registry.model.values import Record, Slot, State
from registry.protocol.messages import Item
from registry.settings import NodeSettings, RegistrySettings
from registry.watch.pending_events import PendingEvents
from registry.watch.view import View
from registry.watch.watch_event import EventKind, WatchEvent
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import HOST, NOW, OWNER, a_key, a_record, a_tombstone
from tests.unit.registry.health.builders import CRITICAL, PASSES, WARNING, FakePresence, Standing, bad

KEY = a_key()
RECORD = a_record(KEY.id, issuer=HOST)
ISSUERS = (HOST, OWNER)


class Watching:
    """A watcher's events of records on HOST, and how those are."""

    def __init__(self, *, include_down: bool = False) -> None:
        self.view = View(KEY.id, RegistrySettings())
        self.view.merge(Item(KEY).as_resource(), NOW)
        self.view.make_ready()
        self.health: dict[Slot, RecordHealth] = {}
        self.events = PendingEvents(self.view, None, self.health_of, include_down=include_down)
        self.seen: dict[Slot, Record] = {}
        self.status: dict[Slot, tuple[bool, HealthState]] = {}

    def health_of(self, record: Record) -> RecordHealth:
        return self.health_in(record.slot)

    def health_in(self, slot: Slot) -> RecordHealth:
        return self.health.get(slot, RecordHealth())

    def becomes(self, slot: Slot, *, is_up: bool = True, state: HealthState = PASSES) -> None:
        self.health[slot] = RecordHealth(is_up, 5.0, health=Health(state, NOW))

    def take(self, state: State) -> None:
        self.view.take(Item(KEY, state), NOW)

    def pending(self) -> Iterator[WatchEvent]:
        while (event := self.events.next(NOW)) is not None:
            yield event

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.pending()]

    def listen(self) -> None:
        """Follows the events, each of which has to change something, and not to what was there before."""
        for event in self.pending():
            if event.record is None:
                assert event.kind is EventKind.SNAPSHOT
                self.seen = {record.slot: record for record in event.records}
                self.status = {slot: (told.is_up, told.health.state) for slot, told in event.healths.items()}
                assert self.status == {slot: self.status_of(slot) for slot in self.seen}
                continue
            slot = event.record.slot
            before, status = self.seen.get(slot), self.status.get(slot)
            if event.kind is EventKind.REMOVED:
                assert self.seen.pop(slot) == event.record
                del self.status[slot]
                continue
            assert event.health is not None
            told = (event.health.is_up, event.health.health.state)
            match event.kind:
                case EventKind.ADDED:
                    assert before is None
                    self.status[slot] = told
                case EventKind.UPDATED:
                    assert before is not None
                    assert before.timestamp_issued < event.record.timestamp_issued
                case EventKind.UP | EventKind.DOWN:
                    assert status is not None
                    assert (status[0], told[0]) == (event.kind is EventKind.DOWN, event.kind is EventKind.UP)
                    self.status[slot] = told
                case _:
                    assert event.kind is EventKind.HEALTH
                    assert status is not None
                    assert (status[0], status[1] != told[1]) == (told[0], True)
                    self.status[slot] = told
            self.seen[slot] = event.record

    def status_of(self, slot: Slot) -> tuple[bool, HealthState]:
        health = self.health_in(slot)
        return health.is_up, health.health.state


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.one_of(
            st.tuples(st.integers(0, 6), st.booleans()),
            st.tuples(st.booleans(), st.sampled_from([PASSES, WARNING, CRITICAL])),
        ),
        st.booleans(),
    ),
    max_size=30,
)


@given(STEPS, st.booleans())
def test_events_lead_to_what_is_there_and_how_it_is(steps: list[tuple[int, tuple, bool]], include_down: bool) -> None:
    watching = Watching(include_down=include_down)
    watching.listen()
    for number, step, listens in steps:
        issuer = ISSUERS[number]
        match step:
            case (bool() as is_up, HealthState() as state):
                watching.becomes(Slot(KEY.id, issuer.peer_id, HOST.peer_id), is_up=is_up, state=state)
            case (age, True):
                watching.take(a_tombstone(KEY.id, issuer, issued=NOW + age))
            case (age, _):
                watching.take(a_record(KEY.id, issuer, issued=NOW + age, value=f"value {age}"))
        if listens:
            watching.listen()
    watching.listen()
    live = watching.view.visible
    usable = {slot for slot in live if watching.health_in(slot).is_usable}
    assert usable <= watching.seen.keys() <= live.keys()
    assert watching.seen == {slot: live[slot] for slot in watching.seen}
    assert watching.status == {slot: watching.status_of(slot) for slot in watching.seen}
    assert watching.events.shown(NOW).keys() == (live.keys() if include_down else usable)
    if include_down:
        assert watching.seen.keys() == live.keys()


def test_a_host_that_goes_and_comes_is_told_and_its_record_stays() -> None:
    watching = Watching()
    watching.take(RECORD)
    assert watching.kinds() == ["snapshot"]
    watching.becomes(RECORD.slot, is_up=False)
    assert watching.kinds() == ["down"]
    assert watching.events.shown(NOW) == {}
    watching.becomes(RECORD.slot)
    assert watching.kinds() == ["up"]
    watching.becomes(RECORD.slot, state=CRITICAL)
    assert watching.kinds() == ["health"]
    watching.becomes(RECORD.slot, is_up=False, state=CRITICAL)
    watching.take(a_record(KEY.id, issuer=HOST, issued=NOW + 1, value="new"))
    assert watching.kinds() == ["updated", "down"]
    watching.take(a_tombstone(KEY.id, issuer=HOST, issued=NOW + 2))
    assert watching.kinds() == ["removed"]


def test_what_does_not_work_from_the_beginning_is_told_when_it_does_unless_all_is_wanted() -> None:
    for include_down, kinds in ((False, ["added"]), (True, ["up"])):
        watching = Watching(include_down=include_down)
        watching.take(RECORD)
        watching.becomes(RECORD.slot, is_up=False)
        assert [len(event.records) for event in watching.pending()] == [int(include_down)]
        watching.becomes(RECORD.slot)
        assert watching.kinds() == kinds


def test_who_does_not_listen_while_it_flaps_hears_the_last_state_or_nothing() -> None:
    watching = Watching()
    watching.take(RECORD)
    assert watching.kinds() == ["snapshot"]
    for is_up in (False, True, False, True):
        watching.becomes(RECORD.slot, is_up=is_up)
    assert watching.kinds() == []


async def test_watchers_are_woken_when_presence_changes(autojump_clock: object) -> None:
    presence, settings = FakePresence(), NodeSettings(registry=RegistrySettings(neighbourhood_size=2))
    async with simulated_nodes(2, settings, time.time, lambda _: presence) as (_, nodes):
        reader, host = nodes
        resource_id = (await reader.registry.create_resource("web", factor=2)).resource_id or ""
        assert (await host.registry.register_service(resource_id, "", host.peer_id, None, factor=2)).success
        async with reader.registry.watch(resource_id) as events:
            assert len((await anext(events)).records) == 1
            presence.becomes(host.peer_id, Standing(is_up=False, since=7.0))
            event = await anext(events)
            assert (event.kind, event.health) == (EventKind.DOWN, RecordHealth(False, 7.0))
            assert events.records == ()
            told = ExceptionList(host.peer_id)
            told.put(HostedService(resource_id, host.peer_id), bad(WARNING))
            presence.becomes(host.peer_id, Standing(since=8.0, exceptions=told.told()))
            event = await anext(events)
            assert (event.kind, event.health) == (EventKind.UP, RecordHealth(True, 8.0, health=bad(WARNING)))
            assert len(events.records) == 1
            presence.becomes(host.peer_id, Standing(since=8.0))
            assert (await anext(events)).kind is EventKind.HEALTH
