"""Entries of an owner's index, and merging pages of them, against brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.model.owner_index import IndexEntry, ResourceStanding, ToldPage, listed, merged_page
from registry.settings import DAY, RegistrySettings
from tests.unit.registry.builders import NOW, a_key, a_key_tombstone

LABELS = ["", "a", "b", "ba", "z", "é", "\uffff", "\U0001f600"]
VALUES = {
    label: [a_key(label, created=NOW), a_key(label, created=NOW + 9), a_key_tombstone(label, issued=NOW + 4)]
    for label in LABELS
}
MERGES = settings(max_examples=150, deadline=None)


def entries() -> st.SearchStrategy[list[IndexEntry]]:
    """What one replica knows: of some labels, some of the values that there are."""
    of_each = [st.lists(st.sampled_from(VALUES[label]), max_size=3) for label in LABELS]
    return st.tuples(*of_each).map(lambda found: [IndexEntry.of(*values) for values in found if values])


def told(known: list[IndexEntry], after: str | None, size: int) -> ToldPage:
    """An honest replica's page."""
    ahead = sorted((each for each in known if after is None or each.label > after), key=lambda each: each.label)
    page = ahead[:size]
    return ToldPage(page, page[-1].label if len(ahead) > size else None)


def all_merged(replicas: list[list[IndexEntry]]) -> list[IndexEntry]:
    values: dict[str, list] = {}
    for entry in (entry for known in replicas for entry in known):
        values.setdefault(entry.label, []).extend(entry.values())
    return [IndexEntry.of(*values[label]) for label in sorted(values)]


@MERGES
@given(st.lists(entries(), min_size=1, max_size=4), st.integers(1, 5), st.lists(st.integers(1, 4), min_size=4))
def test_pages_of_several_replicas_come_to_what_they_know_together(replicas, limit, sizes) -> None:
    """Whatever each of them tells at once."""
    found: list[IndexEntry] = []
    after: str | None = None
    for _ in range(100):
        pages = [told(known, after, size) for known, size in zip(replicas, sizes, strict=False)]
        page, after = merged_page(pages, limit)
        assert len(page) <= limit
        found += page
        if after is None:
            break
    assert found == all_merged(replicas)


@MERGES
@given(st.lists(st.sampled_from(VALUES["b"]), min_size=1, max_size=5))
def test_an_entry_is_the_same_in_whatever_order_its_parts_come(values) -> None:
    whole = IndexEntry.of(*values)
    for some in list(permutations(values))[:24]:
        merged = IndexEntry.of(some[0])
        for value in some[1:]:
            merged = merged.merged(IndexEntry.of(value))
        assert merged == whole
        assert merged.digest() == whole.digest()
        assert merged.merged(whole) == whole


def test_a_removal_ends_what_it_follows_and_a_new_key_begins_anew() -> None:
    old, new, removal = VALUES["a"]
    assert IndexEntry.of(old, removal).key is None
    assert IndexEntry.of(old, removal, new).key is not None
    assert IndexEntry.of(new, removal).digest() != IndexEntry.of(new).digest()


def test_parts_of_several_resources_are_no_entry() -> None:
    with pytest.raises(InvalidValue):
        IndexEntry.of(a_key("a"), a_key("b"))
    with pytest.raises(InvalidValue):
        IndexEntry.of()


def test_what_is_too_old_is_left_out() -> None:
    key, removal = a_key("a", created=NOW + 9), a_key_tombstone("a", issued=NOW)
    entry = IndexEntry.of(key, removal)
    assert entry.fresh(NOW + 8, NOW - 1) is entry
    assert entry.fresh(NOW + 8, NOW) == IndexEntry.of(key)
    assert entry.fresh(NOW + 9, NOW - 1) == IndexEntry.of(removal)
    assert entry.fresh(NOW + 9, NOW) is None


@pytest.mark.parametrize(
    ("values", "age", "standing", "time"),
    [
        ([a_key()], DAY - 1, ResourceStanding.LIVE, NOW),
        ([a_key()], DAY, ResourceStanding.EXPIRED, NOW),
        ([a_key(), a_key_tombstone(issued=NOW + 5)], DAY, ResourceStanding.REMOVED, NOW + 5),
        ([a_key_tombstone(issued=NOW + 5), a_key(created=NOW + 6)], 10, ResourceStanding.LIVE, NOW + 6),
    ],
)
def test_a_resource_is_shown_as_it_is(values, age: int, standing: ResourceStanding, time: int) -> None:
    shown = listed(IndexEntry.of(*values), NOW + age, RegistrySettings())
    assert (shown.standing, shown.time, shown.resource_id) == (standing, time, a_key().id)
