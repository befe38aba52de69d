"""Messages of later versions: what is known of them counts, and what isn't known fails alone or is left out."""

from __future__ import annotations

import random
from typing import Any, Final

import cbor2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from registry.codes import Code, Kind
from registry.model.merge import ResourceState
from registry.model.values import MAX_VALUE, Slot, as_builtins, encode
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import (
    MAX_ERRORS,
    MAX_PAGE,
    PUT,
    READ,
    Item,
    PutAnswer,
    PutBody,
    ReadAnswer,
    ReadBody,
    StatePage,
    WriteOutcome,
    build,
    parse,
)
from registry.replication.messages import REPLICATE
from registry.settings import NodeSettings, RegistrySettings
from registry.watch.messages import ANNOUNCE, SUBSCRIBE, AnnounceBody, SubscribeBody, SubscriptionRequest
from registry.watch.watch_event import EventKind
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, a_key, a_key_tombstone, a_record, a_tombstone, identity

KEY: Final = a_key()
RECORDS: Final = [a_record(KEY.id, issuer=identity(number)) for number in range(10, 20)]
ITEMS: Final = [Item(KEY, record) for record in RECORDS]
LATER_VALUE: Final = cbor2.dumps(["lease", KEY.id, NOW])
LATER_FIELDS: Final = cbor2.dumps([*as_builtins(RECORDS[0]), "a field that the signature covers"])

ERRORS = st.builds(ErrorInfo, st.sampled_from([code.value for code in Code]) | st.text(max_size=9), st.text(max_size=9))
NAMES = st.text(max_size=20)
ITEM = st.sampled_from([*ITEMS, Item(KEY), Item(a_key_tombstone()), Item(KEY, a_tombstone(KEY.id))])
BODIES = (
    st.lists(ITEM, max_size=9).map(PutBody.of)
    | st.builds(PutAnswer, st.lists(st.none() | ERRORS, max_size=9).map(tuple))
    | st.builds(ReadBody, NAMES, st.binary(max_size=32), st.none() | st.tuples(NAMES, NAMES, NAMES))
    | st.lists(st.sampled_from(RECORDS)).map(lambda records: StatePage.of(ResourceState.of(KEY, records), None))
    | st.builds(WriteOutcome, st.integers(0, 99), st.integers(0, 99), st.lists(ERRORS, max_size=9).map(tuple))
)


def over_the_wire(body: object) -> Any:
    return cbor2.loads(cbor2.dumps(body))


@given(BODIES, st.lists(st.none() | st.text() | st.binary() | st.lists(st.integers(0, 9)), max_size=3))
def test_bodies_come_through_with_and_without_fields_behind_the_known_ones(body: Any, more: list[object]) -> None:
    received = parse([*over_the_wire(build(body)), *more], type(body))
    assert over_the_wire(build(received)) == over_the_wire(build(body))
    if isinstance(body, PutBody):
        assert received.decoded() == body.decoded()
        assert all(isinstance(item, Item) for item in received.decoded())


def test_of_a_put_what_is_not_understood_is_refused_by_itself() -> None:
    pairs = over_the_wire(build(PutBody.of(ITEMS)))[0]
    pairs[3] = [b"", LATER_VALUE]
    pairs[5] = [LATER_VALUE, b""]
    pairs[6][0] = encode(KEY)  # else it would repeat what isn't understood
    pairs[7] = ["a proof", 1]
    pairs[8].append("how to keep it")
    pairs[9][1] = b"garbage"
    decoded = parse([pairs], PutBody).decoded()
    assert [number for number, item in enumerate(decoded) if item != ITEMS[number]] == [3, 5, 7, 9]
    refused = [item for item in decoded if isinstance(item, ErrorInfo)]
    assert [error.code for error in refused] == [Code.UNKNOWN_KIND] * 3 + [Code.INVALID]
    assert [error.kind for error in refused] == [Kind.ASKED] * 3 + [Kind.FINAL], "another replica may understand it"


def test_what_repeats_a_key_that_is_not_understood_is_refused_with_it() -> None:
    decoded = PutBody(((LATER_VALUE, b""), (b"", encode(RECORDS[0])))).decoded()
    assert [error.code for error in decoded if isinstance(error, ErrorInfo)] == [Code.UNKNOWN_KIND] * 2


def test_of_a_page_what_is_understood_counts() -> None:
    page = StatePage.of(ResourceState.of(KEY, RECORDS), None)
    states = [LATER_VALUE, *page.states, LATER_FIELDS, b"garbage", 7]
    more = parse([True, False, LATER_VALUE, states, False, LATER_VALUE], StatePage)
    assert more.decoded() == (None, [], sorted(RECORDS, key=lambda record: record.slot))


@given(st.integers(0, 4), st.booleans())
def test_the_next_page_begins_after_the_last_slot_understood_or_not(count: int, more: bool) -> None:
    slots = [Slot("key", "issuer", str(number)) for number in range(5)]
    page = StatePage(True, same=False, key=b"", states=(LATER_VALUE,), more=more, last=slots[count])
    assert page.next_after(None) == (slots[count] if more else None)
    assert page.next_after(slots[2]) == (slots[count] if more and count > 2 else None), "never round in circles"


def test_pages_lead_through_a_resource_of_any_size() -> None:
    long = [a_record(KEY.id, issuer=identity(number), value="x" * MAX_VALUE) for number in range(10, 30)]
    resource = ResourceState.of(KEY, long)
    after: Slot | None = None
    seen: list[Slot] = []
    for _ in range(1 + resource.size() // MAX_PAGE):
        page = StatePage.of(resource, after)
        seen.extend(state.slot for state in page.decoded()[2])
        after = page.next_after(after)
        if after is None:
            break
    assert seen == sorted(resource.slots)


def test_of_many_errors_the_first_count() -> None:
    errors = [["failed", str(number)] for number in range(MAX_ERRORS + 9)]
    page = build(StatePage(holds_key=False, same=False, key=b"", states=(), more=False))
    for received in (parse([1, 2, errors], WriteOutcome), parse([1, page, errors], ReadAnswer)):
        assert [error.text for error in received.errors] == [str(number) for number in range(MAX_ERRORS)]


class FromTheFuture:
    """Says what a node of this version says as a later version might: with more fields, more kinds and new faults."""

    def __init__(self) -> None:
        self.randomness = random.Random(5)
        self.spoke: set[tuple[str, bool]] = set()

    def __call__(self, method: str, body: object, is_answer: bool) -> object:
        if not isinstance(body, list | tuple):
            return body
        self.spoke.add((method, is_answer))
        fields: list[Any] = list(body)
        if method in (PUT, REPLICATE) and is_answer:
            fields[0] = [error and ["on-strike", *error[1:], "until monday"] for error in fields[0]]
        elif method in (PUT, REPLICATE):
            entries = [[*entry, {"kept": "well"}] for entry in fields[0]]
            if entries:
                fields[0] = [*entries, [LATER_VALUE, b""], ["a proof"], [encode(KEY), LATER_FIELDS]]
        elif method == READ and is_answer:
            states = [*fields[3], LATER_FIELDS, LATER_VALUE, ["a proof"]]
            self.randomness.shuffle(states)
            fields[3] = states
        elif method == ANNOUNCE and not is_answer:
            entries = [[*entry, "urgent"] for entry in fields[0]]
            kinds = [[fields[0][0][0], cbor2.dumps(["presence", 1])], ["a proof"]]
            fields[0] = [*kinds, *entries, *kinds]
        elif method == SUBSCRIBE:
            fields[0] = [[*entry, "and more"] for entry in fields[0]]
        return [*fields, {"of": "later"}, 7]


async def shown(node: SimulatedNode, resource_id: str, ack: int) -> list[str]:
    found = await node.parts.reader.read(resource_id, ack=ack, timeout=5)
    records = found.resource.records(int(trio.current_time() + NOW), node.parts.replica.settings)
    return sorted(record.metadata.value for record in records)


@pytest.mark.parametrize("later", [1, 3, 5])
async def test_nodes_of_this_and_of_a_later_version_work_together(
    later: int, autojump_clock: trio.testing.MockClock
) -> None:
    def clock() -> float:
        return NOW + trio.current_time()

    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=4))
    async with simulated_nodes(6, settings, clock) as (network, nodes):
        futures = {node.peer_id: FromTheFuture() for node in nodes[:later]}
        network.rewrites.update(futures)
        for number, creator in enumerate((nodes[0], nodes[-1])):
            created = await creator.registry.create_resource(f"label {number}", factor=4)
            assert created.resource_id is not None, created.errors
            resource_id = created.resource_id
            watches = [node.registry.watch(resource_id) for node in nodes]
            for watch in watches:
                assert (await anext(watch)).kind is EventKind.SNAPSHOT
            await trio.sleep(3)
            for step, node in enumerate(nodes):
                done = await node.registry.register_service(resource_id, f"v{step}", node.peer_id, None, factor=4)
                assert done.success, done.errors
                began = trio.current_time()
                for watch in watches:
                    event = await anext(watch)
                    assert event.kind is EventKind.ADDED
                    assert event.record is not None
                    assert event.record.metadata.value == f"v{step}"
                assert trio.current_time() - began < 1, "announced, not found out at a renewal"
            values = [f"v{step}" for step in range(len(nodes))]
            for node in nodes:
                assert await shown(node, resource_id, ack=4) == values
            for watch in watches:
                watch.close()
        assert network.rewrites == futures
        for future in futures.values():
            assert {(ANNOUNCE, False), (SUBSCRIBE, False), (PUT, False)} <= future.spoke
        spoken = set().union(*(future.spoke for future in futures.values()))
        assert {(READ, True), (PUT, True), (SUBSCRIBE, True)} <= spoken


async def test_a_refusal_of_a_later_version_is_told_as_failed(autojump_clock: trio.testing.MockClock) -> None:
    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=3))
    async with simulated_nodes(3, settings) as (network, nodes):

        def refusing(method: str, body: object, is_answer: bool) -> object:
            return [[["on-strike", "no"]] * 9] if method == PUT and is_answer else body

        for node in nodes[1:]:
            network.rewrites[node.peer_id] = refusing
        created = await nodes[0].registry.create_resource("label", factor=3)
        assert created.resource_id is None
        assert any("no on" in error for error in created.errors), created.errors


def test_of_requests_and_announcements_each_counts_for_itself() -> None:
    [known, *unknown] = parse([[["key", True, False, False, False, "more"], 7, ["key"]]], SubscribeBody).decoded()
    assert known == SubscriptionRequest("key", on_topic=True)
    assert [error.code for error in unknown if isinstance(error, ErrorInfo)] == [Code.INVALID] * 2
    body = parse([[["key", b"payload", "more"], 7, ["key"], ["key", b"other"]]], AnnounceBody)
    assert body.decoded() == [("key", b"payload"), ("key", b"other")]
