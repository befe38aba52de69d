"""Watching in virtual time: what is told, in which order, and from whom after some are gone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import cbor2
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from overlay.pubsub.topics import Verdict
from registry.errors import InvalidValue, UnknownKind
from registry.model.merge import ResourceState
from registry.model.values import Key, Record, State, Tombstone, as_builtins, encode
from registry.protocol.messages import PUT, Item
from registry.settings import NodeSettings, RegistrySettings
from registry.watch.announcement import announced, announcement_of
from registry.watch.messages import SUBSCRIBE
from registry.watch.pending_events import PendingEvents
from registry.watch.source_machine import RENEW
from registry.watch.validator import SLOT_BURST, AnnouncementValidator
from registry.watch.view import View
from registry.watch.watch_event import EventKind, WatchEvent
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import HOST, NOW, OWNER, a_key, a_key_tombstone, a_record, a_tombstone, identity

KEY = a_key()
SETTINGS = NodeSettings(registry=RegistrySettings(neighbourhood_size=3))


def a_ready_view() -> View:
    """A view that is fed by hand."""
    view = View(KEY.id, SETTINGS.registry)
    view.merge(ResourceState(key=KEY), NOW)
    view.make_ready()
    return view


def pending(events: PendingEvents) -> Iterator[WatchEvent]:
    while (event := events.next(NOW)) is not None:
        yield event


def test_a_renewal_is_no_event() -> None:
    view = a_ready_view()
    view.take(Item(KEY, a_record(KEY.id)), NOW)
    events = PendingEvents(view)
    assert [event.kind for event in pending(events)] == [EventKind.SNAPSHOT]
    renewed = a_record(KEY.id, created=NOW + 5)
    assert view.take(Item(KEY, renewed), NOW)
    assert list(pending(events)) == []
    assert list(view.visible.values()) == [renewed]


def test_nothing_is_told_before_enough_is_known() -> None:
    view = View(KEY.id, SETTINGS.registry)
    events = PendingEvents(view)
    view.take(Item(KEY, a_record(KEY.id)), NOW)
    assert list(pending(events)) == []
    revision = view.revision
    view.make_ready()
    assert view.revision > revision
    assert [len(event.records) for event in pending(events)] == [1]


def test_what_expires_is_told_as_expired_and_what_was_ended_as_removed() -> None:
    view, now = a_ready_view(), NOW
    record = a_record(KEY.id)
    view.take(Item(KEY, record), now)
    events = PendingEvents(view)
    assert next(pending(events)).records == (record,)
    assert view.next_expiry(now) == SETTINGS.registry.expired_age
    now += SETTINGS.registry.expired_age
    view.refresh(now)
    assert list(pending(events)) == [WatchEvent(EventKind.EXPIRED, record)]
    assert view.next_expiry(now) is None
    later = a_record(KEY.id, issued=now, created=now)
    view.take(Item(KEY, later), now)
    assert list(pending(events)) == [WatchEvent(EventKind.ADDED, later)]
    view.take(Item(KEY, a_tombstone(KEY.id, issued=now + 1)), now)
    assert list(pending(events)) == [WatchEvent(EventKind.REMOVED, later)]


def test_removing_the_resource_removes_its_records() -> None:
    view = a_ready_view()
    record = a_record(KEY.id)
    view.take(Item(KEY, record), NOW)
    events = PendingEvents(view)
    assert len(list(pending(events))) == 1
    view.take(Item(a_key_tombstone(issued=NOW + 1)), NOW)
    assert list(pending(events)) == [WatchEvent(EventKind.REMOVED, record)]


def test_a_view_of_more_than_replicas_would_keep_takes_no_further_slots() -> None:
    view = View(KEY.id, RegistrySettings(records_per_key=1))
    known = [a_record(KEY.id, issuer=identity(number), host=identity(number)) for number in range(10, 13)]
    taken = [view.take(Item(KEY, record), NOW) for record in known]
    assert taken == [True, True, False]
    assert view.is_full()
    newer = a_record(KEY.id, issuer=identity(10), host=identity(10), issued=NOW + 1)
    assert view.take(Item(KEY, newer), NOW), "slots that are known are kept up to date"


STATES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 6), st.booleans(), st.booleans()).map(
        lambda parts: (parts[0], parts[1], parts[2], parts[3])
    ),
    max_size=25,
)


@given(STATES)
def test_whatever_the_order_events_lead_to_the_state_without_repeating_or_going_back(
    updates: list[tuple[int, int, bool, bool]],
) -> None:
    view = a_ready_view()
    events = PendingEvents(view)
    seen = {record.slot: record for event in pending(events) for record in event.records}
    for slot, age, ended, listens in updates:
        value = f"value {age}"
        issuer = (OWNER, HOST)[slot % 2]
        state: State = (
            a_tombstone(KEY.id, issuer=issuer, issued=NOW + age)
            if ended
            else a_record(KEY.id, issuer=issuer, issued=NOW + age, value=value)
        )
        view.take(Item(KEY, state), NOW)
        if listens:
            for event in pending(events):
                follow(seen, event)
    for event in pending(events):
        follow(seen, event)
    assert seen == view.visible


def follow(seen: dict[object, Record], event: WatchEvent) -> None:
    assert event.record is not None
    slot = event.record.slot
    before = seen.get(slot)
    if event.kind is EventKind.REMOVED:
        assert seen.pop(slot) == event.record
        return
    assert (before is None) == (event.kind is EventKind.ADDED)
    if before is not None:
        assert before.timestamp_issued < event.record.timestamp_issued
        assert before.metadata.value != event.record.metadata.value
    seen[slot] = event.record


@pytest.mark.parametrize("state", [a_record(KEY.id), a_tombstone(KEY.id)])
def test_an_announcement_is_read_as_it_was_written(state: State) -> None:
    assert announced(KEY.id, announcement_of(Item(KEY, state))) == (Item(KEY, state), True)
    key_tombstone = Item(a_key_tombstone())
    assert announced(key_tombstone.key_id, announcement_of(key_tombstone)) == (key_tombstone, True)


@pytest.mark.parametrize(
    "payload",
    [
        cbor2.dumps(["presence", b"signed", 7], canonical=True),
        cbor2.dumps(["presence"], canonical=True),
        cbor2.dumps([cbor2.dumps(["policy", 1]), encode(a_record(KEY.id))], canonical=True),
        cbor2.dumps([cbor2.dumps([*as_builtins(KEY), "more"]), encode(a_record(KEY.id))], canonical=True),
        cbor2.dumps([encode(KEY), cbor2.dumps(["lease", KEY.id])], canonical=True),
        cbor2.dumps([encode(KEY), cbor2.dumps([*as_builtins(a_record(KEY.id)), 1])], canonical=True),
    ],
)
async def test_what_only_a_later_version_understands_is_ignored_without_blame(payload: bytes) -> None:
    with pytest.raises(UnknownKind):
        announced(KEY.id, payload)
    validator, taken = await validator_of(takes=True)
    assert await validator.validate(KEY.id, payload, "peer") is Verdict.IGNORE
    assert taken == []


async def test_what_is_known_of_an_announcement_with_more_fields_is_taken_but_not_passed_on() -> None:
    item = Item(KEY, a_record(KEY.id))
    assert item.state is not None
    payload = cbor2.dumps([encode(KEY), encode(item.state), {"hops": 3}], canonical=True)
    assert announced(KEY.id, payload) == (item, False)
    validator, taken = await validator_of(takes=True)
    assert await validator.validate(KEY.id, payload, "peer") is Verdict.IGNORE
    assert taken == [item]
    loosely = cbor2.dumps([encode(KEY), encode(item.state), {"b": 1, "a": 2}])  # one value, two forms
    assert await validator.validate(KEY.id, loosely, "peer") is Verdict.REJECT


def forged(value: Key | Record | Tombstone) -> Key | Record | Tombstone:
    field = "issuer_signature" if isinstance(value, Tombstone) else "signature"
    return msgspec.structs.replace(value, **{field: bytes(64)})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        announcement_of(Item(KEY)),  # a key alone is no news
        announcement_of(Item(forged(KEY), a_record(KEY.id))),  # type: ignore[arg-type]
        announcement_of(Item(KEY, forged(a_record(KEY.id)))),  # type: ignore[arg-type]
        announcement_of(Item(KEY, forged(a_tombstone(KEY.id)))),  # type: ignore[arg-type]
        announcement_of(Item(KEY, a_record("another key"))),
        announcement_of(Item(a_key("another"), a_record(KEY.id))),
        announcement_of(Item(KEY, a_record(KEY.id))) + b"\x00",
        cbor2.dumps([]),
        cbor2.dumps([1, b""]),
        cbor2.dumps([encode(KEY)]),
        cbor2.dumps([encode(KEY), cbor2.dumps(as_builtins(a_record(KEY.id))[:-1])], canonical=True),
        cbor2.dumps([encode(KEY), encode(forged(a_record(KEY.id))), "more"], canonical=True),
        announcement_of(Item(a_key_tombstone(), a_record(KEY.id))),
    ],
)
def test_what_no_honest_peer_announces_is_invalid(payload: bytes) -> None:
    with pytest.raises(InvalidValue):
        announced(KEY.id, payload)


@asynccontextmanager
async def watching_network() -> AsyncIterator[tuple[SimulatedNetwork, list[SimulatedNode], str]]:
    async with simulated_nodes(6, SETTINGS) as (network, nodes):
        created = await nodes[0].registry.create_resource("watched", factor=3)
        assert created.resource_id is not None, created.errors
        yield network, nodes, created.resource_id


async def test_lost_sources_are_replaced_at_once_and_what_was_missed_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watching_network() as (network, nodes, resource_id):
        keepers = await nodes[0].registry.neighbours(resource_id)
        outside = next(node for node in nodes if node.peer_id not in keepers)
        issuer = next(node for node in nodes if node.peer_id != outside.peer_id and node.peer_id not in keepers)
        async with outside.registry.watch(resource_id) as watch:
            assert (await anext(watch)).kind is EventKind.SNAPSHOT
            watches = outside.parts.watches
            with trio.fail_after(RENEW / 2):
                while watches.statistics().sources != dict.fromkeys(keepers[:2], 1):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            network.down.add(keepers[0])
            network.membership_changed()
            began = trio.current_time()
            with trio.fail_after(RENEW / 2):
                while keepers[0] in (now := watches.statistics().sources) or len(now) != 2:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            done = await issuer.registry.register_service(resource_id, "v", issuer.peer_id, None, factor=2)
            assert done.success, done.errors
            event = await anext(watch)
            assert event.kind is EventKind.ADDED
            assert trio.current_time() - began < RENEW / 2


async def test_what_is_lost_on_the_way_is_told_after_the_next_renewal(autojump_clock: trio.testing.MockClock) -> None:
    async with watching_network() as (network, nodes, resource_id):
        keepers = await nodes[0].registry.neighbours(resource_id)
        outside = next(node for node in nodes if node.peer_id not in keepers)

        async def lost(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            return None

        outside.peer.intercept("registry.announce", lost)
        async with outside.registry.watch(resource_id) as watch:
            await anext(watch)
            await trio.sleep(2)
            del network.calls[:]
            while (outside.peer_id, keepers[0], SUBSCRIBE) not in network.calls:  # noqa: ASYNC110 - a renewal
                await trio.sleep(0.5)
            done = await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, None, factor=3)
            assert done.success, done.errors
            began = trio.current_time()
            assert (await anext(watch)).kind is EventKind.ADDED
            assert RENEW - 2 < trio.current_time() - began <= RENEW + 1


def hold_puts(node: SimulatedNode, go_on: trio.Event) -> None:
    """Has a node take nothing before that event."""

    async def held(caller: str, body: object) -> object:
        await go_on.wait()
        return await taking(caller, body)

    taking = node.peer.intercept(PUT, held)


async def test_what_is_written_through_a_node_is_told_there_once_one_replica_has_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not after all that the write waits for. The two replicas that tell the watch take nothing yet."""
    order: list[str] = []
    go_on = trio.Event()
    async with watching_network() as (_, nodes, resource_id):
        keepers = await nodes[0].registry.neighbours(resource_id)
        outside = next(node for node in nodes if node.peer_id not in keepers)
        async with outside.registry.watch(resource_id) as watch, trio.open_nursery() as nursery:
            assert (await anext(watch)).records == ()
            await trio.sleep(2)
            sources = outside.parts.watches.statistics().sources
            assert len(sources) == 2
            for node in nodes:
                if node.peer_id in sources:
                    hold_puts(node, go_on)
            keeper = next(node for node in nodes if node.peer_id in keepers)
            key = (await keeper.store.resource(resource_id)).key
            assert key is not None
            now = int(time.time())
            record = a_record(resource_id, issued=now, created=now)

            async def write() -> None:
                written = await outside.parts.writer.write(Item(key, record), factor=3, timeout=5)
                order.append(f"{written.stored} replicas have it")

            nursery.start_soon(write)
            with trio.move_on_after(0.5):
                assert (await anext(watch)).record == record
                order.append("told")
            go_on.set()
        assert order == ["told", "3 replicas have it"]


async def test_what_a_replica_writes_is_told_there_with_its_own_commit(autojump_clock: trio.testing.MockClock) -> None:
    """The other replicas take nothing yet. Nothing that waits for a while tells it: the time stands still."""
    go_on = trio.Event()
    async with watching_network() as (_, nodes, resource_id):
        keepers = await nodes[0].registry.neighbours(resource_id)
        keeper = next(node for node in nodes if node.peer_id == keepers[0])
        async with keeper.registry.watch(resource_id) as watch, trio.open_nursery() as nursery:
            assert (await anext(watch)).records == ()
            await trio.sleep(2)
            for node in nodes:
                if node is not keeper:
                    hold_puts(node, go_on)
            began = trio.current_time()
            register = partial(keeper.registry.register_service, factor=3)
            nursery.start_soon(register, resource_id, "v", keeper.peer_id, None)
            assert (await anext(watch)).kind is EventKind.ADDED
            assert trio.current_time() == began
            go_on.set()


async def test_a_subscription_ends_with_its_watch_or_when_it_is_not_renewed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watching_network() as (network, nodes, resource_id):
        keepers = await nodes[0].registry.neighbours(resource_id)
        outside = [node for node in nodes if node.peer_id not in keepers]
        for node in outside[:2]:
            watch = node.registry.watch(resource_id)
            await anext(watch)
            await trio.sleep(2)
            assert sum(each.parts.subscriptions.count() for each in nodes) == 2
            if node is outside[1]:
                network.muted.add(node.peer_id)
            else:
                watch.close()
            await trio.sleep(100)
            assert sum(each.parts.subscriptions.count() for each in nodes) == 0


async def validator_of(takes: bool) -> tuple[AnnouncementValidator, list[Item]]:
    taken: list[Item] = []

    async def take(item: Item, source: str) -> bool:
        await trio.lowlevel.checkpoint()
        taken.append(item)
        return takes

    validator = AnnouncementValidator(RegistrySettings(), lambda: float(NOW), [take])
    return validator, taken


async def test_old_but_true_announcements_do_not_use_up_the_rate_of_the_next_one() -> None:
    news = [False] * 100 + [True]

    async def take(item: Item, source: str) -> bool:
        await trio.lowlevel.checkpoint()
        return news.pop(0)

    validator = AnnouncementValidator(RegistrySettings(), lambda: float(NOW), [take])
    payload = announcement_of(Item(KEY, a_record(KEY.id)))
    verdicts = [await validator.validate(KEY.id, payload, "peer") for _ in range(101)]
    assert verdicts == [Verdict.IGNORE] * 100 + [Verdict.ACCEPT]


async def test_news_of_one_record_is_forwarded_within_a_rate() -> None:
    validator, taken = await validator_of(takes=True)
    payload = announcement_of(Item(KEY, a_record(KEY.id)))
    verdicts = [await validator.validate(KEY.id, payload, "peer") for _ in range(100)]
    assert verdicts.count(Verdict.ACCEPT) == SLOT_BURST
    assert len(taken) == 100


async def test_a_wall_clock_that_is_set_back_leaves_the_rate_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async def take(item: Item, source: str) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    ahead = [60.0]
    validator = AnnouncementValidator(RegistrySettings(), lambda: NOW + ahead[0], [take])
    payload = announcement_of(Item(KEY, a_record(KEY.id)))
    for _ in range(SLOT_BURST):
        assert await validator.validate(KEY.id, payload, "peer") is Verdict.ACCEPT
    assert await validator.validate(KEY.id, payload, "peer") is Verdict.IGNORE
    ahead[0] = 0.0
    await trio.sleep(1)
    assert await validator.validate(KEY.id, payload, "peer") is Verdict.ACCEPT


@pytest.mark.parametrize("created", [NOW + 3600, NOW - 86_400])
async def test_what_is_from_the_future_or_too_old_is_ignored_without_blame(created: int) -> None:
    validator, taken = await validator_of(takes=True)
    payload = announcement_of(Item(KEY, a_record(KEY.id, created=created)))
    assert await validator.validate(KEY.id, payload, "peer") is Verdict.IGNORE
    assert taken == []


@pytest.mark.parametrize("resource_id", ["", "web", "x" * 1025, "\ud800"])
async def test_what_is_no_resource_id_cannot_be_watched(resource_id: str) -> None:
    async with simulated_nodes(1, SETTINGS) as (_, [node]):
        with pytest.raises(InvalidValue, match="is no resource id"):
            node.registry.watch(resource_id)
