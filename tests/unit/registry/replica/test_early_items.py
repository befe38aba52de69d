"""What came too early: how long it waits, and how much of it there may be."""

from __future__ import annotations

import math

from registry.protocol.messages import Item
from registry.replica.early_items import LONGEST, MOST, MOST_BYTES, MOST_OF_ONE, EarlyItem, EarlyItems
from tests.unit.registry.builders import HOST, NOW, a_key, a_key_tombstone, a_metadata, a_record, a_tombstone, hosted

KEY = a_key()


def early(number: int = 0, source: str = "sender", value: str = "") -> EarlyItem:
    return EarlyItem(Item(KEY, a_record(KEY.id, issued=NOW + number, value=value)), source, keyless=False)


def test_an_item_waits_until_it_may_be_taken_and_is_let_go_then() -> None:
    items = EarlyItems()
    assert items.wakes_at() == math.inf
    assert items.keep(early(1), 100.0, 15.0)
    assert items.keep(early(2), 100.0, 5.0)
    assert items.keep(early(1, "another"), 101.0, 14.0), "it is there already"
    assert len(items) == 2
    assert items.wakes_at() == 105.0
    assert items.due(104.9) == []
    assert items.due(106.0) == [early(2)]
    assert items.due(115.0) == [early(1)]
    assert len(items) == 0
    assert items.wakes_at() == math.inf


def test_what_is_far_ahead_isnt_kept() -> None:
    items = EarlyItems()
    assert not items.keep(early(), 0.0, LONGEST + 1)
    assert items.keep(early(), 0.0, LONGEST)


def test_one_who_sends_much_takes_no_more_than_his_part_and_all_no_more_than_there_is() -> None:
    items = EarlyItems()
    assert [items.keep(early(number), 0.0, 1.0) for number in range(MOST_OF_ONE + 1)] == [True] * MOST_OF_ONE + [False]
    for number in range(2 * MOST):
        items.keep(early(1000 + number, f"sender {number}"), 0.0, 1.0)
    assert len(items) == MOST
    assert len(items.due(1.0)) == MOST
    assert [items.keep(early(number), 2.0, 1.0) for number in range(MOST_OF_ONE + 1)] == [True] * MOST_OF_ONE + [False]


def test_what_waits_takes_bounded_memory() -> None:
    items, value = EarlyItems(), "v" * 8_000
    kept = [items.keep(early(number, str(number), value), 0.0, 1.0) for number in range(MOST)]
    assert True in kept
    assert False in kept
    assert sum(each.item.size() for each in items.due(1.0)) <= MOST_BYTES
    assert items.keep(early(0, value=value), 2.0, 1.0), "there is room again"


def test_an_item_is_dated_by_the_latest_of_what_was_signed() -> None:
    metadata = a_metadata(KEY.id, issued=NOW + 5)
    for item, ahead in (
        (Item(KEY), 0),
        (Item(a_key(created=NOW + 9)), 9),
        (Item(a_key(created=NOW + 9), a_record(KEY.id)), 9),
        (Item(KEY, hosted(metadata, HOST, NOW + 7)), 7),
        (Item(KEY, hosted(metadata, HOST, NOW + 3)), 5),
        (Item(KEY, a_tombstone(KEY.id, issued=NOW + 4)), 4),
        (Item(a_key_tombstone(issued=NOW + 8)), 8),
    ):
        assert item.dated() == NOW + ahead
