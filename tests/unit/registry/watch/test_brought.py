"""How much sources may tell of a watched resource, and whose share gives way."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.model.merge import ResourceState
from registry.model.values import Key, Record, Slot
from registry.settings import RegistrySettings
from registry.watch.brought import LEAST_COUNTED, MOST_BYTES, Brought
from registry.watch.view import View
from tests.unit.registry.builders import NOW, a_key, a_record, identity

HONEST, LIAR = "honest", "liar"
KEY = a_key()


def records(first: int, count: int, size: int = 60_000) -> list[Record]:
    return [a_record(KEY.id, issuer=identity(first + number), value="x" * size) for number in range(count)]


RECORDS = records(10_000, 50, size=1)


def told(*states: Record, key: Key = KEY) -> ResourceState:
    return ResourceState.of(key, states)


def test_a_source_that_tells_ever_more_takes_no_ever_more_memory_and_nothing_from_others() -> None:
    view, honest = View(KEY.id, RegistrySettings()), records(1, 20)
    view.merge(told(*records(1_000, 500), *honest), NOW + 1, source=LIAR)  # what is honest it tells first, and last
    view.merge(told(*honest), NOW + 1, source=HONEST)
    for round_number in range(2, 6):
        view.merge(told(*records(1_000 * round_number, 500)), NOW + 1, source=LIAR)
        assert view.state.size() < MOST_BYTES + 2**20
    assert {record.slot for record in honest} <= view.visible.keys()


def test_many_small_states_are_too_much_too() -> None:
    brought = Brought()
    brought.note(LIAR, records(1, MOST_BYTES // LEAST_COUNTED + 10, size=1))
    assert len(brought.giving_way()) == 10
    assert not brought.giving_way()


def test_what_is_not_known_any_more_makes_room() -> None:
    brought, many = Brought(), records(1, 500)
    brought.note(LIAR, many)
    brought.forget_all_but({many[0].slot})
    brought.note(LIAR, records(1_000, 500))
    assert not brought.giving_way()


def test_what_this_peer_stores_itself_counts_for_nobody() -> None:
    view = View(KEY.id, RegistrySettings())
    view.merge(told(*records(1, 600)), NOW + 1)
    assert len(view.state.slots) == 600


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 12)), max_size=12))
def test_who_tells_less_than_a_share_loses_nothing(rounds: list[tuple[str, int, int]]) -> None:
    brought, known = Brought(20 * LEAST_COUNTED), dict[Slot, Record]()
    by_source: Mapping[str, set[Slot]] = {source: set() for source in "abc"}
    for source, first, count in rounds:
        states = RECORDS[first : first + count]
        by_source[source].update(state.slot for state in states)
        known.update((state.slot, state) for state in states)
        brought.forget_all_but(known)
        brought.note(source, states)
        for slot in brought.giving_way():
            del known[slot]
        assert len(known) <= 20
        if len(by_source[source]) <= 6:  # below a third
            assert {state.slot for state in states} <= known.keys()
