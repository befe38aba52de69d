"""What a change of the members makes due, and who is the first to compare it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from types import FrameType

from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.density import ENDS, Density
from overlay.discovery.keyspace import POSITION_BITS
from registry.replication.block_view import NEVER_DENSE
from registry.replication.due import DueAfterChange, due_after_change
from registry.replication.ranges import EVERYWHERE, Range, covers, union

SIZE = 3
EIGHTH = 1 << POSITION_BITS - 3
POSITIONS = 40  # looked at in each case


def found(before: dict[str, int], after: dict[str, int], size: int = SIZE) -> DueAfterChange:
    steps = due_after_change("here", before, after, size, reach=size + 1, crowdings=(NEVER_DENSE, NEVER_DENSE))
    while True:
        try:
            next(steps)
        except StopIteration as done:
            due: DueAfterChange = done.value
            return due


def test_without_a_change_nothing_is_due() -> None:
    members = {"here": 0, "a": 3 * EIGHTH}
    assert found(members, members) == ({}, {})


def test_of_those_who_kept_a_block_the_nearest_is_the_first_to_compare_it_with_a_newcomer() -> None:
    members = {"here": 0, "a": 2 * EIGHTH}
    first, later = found(members, {**members, "newcomer": 4 * EIGHTH})
    assert first == {"newcomer": (Range(0, 2 * EIGHTH), Range(4 * EIGHTH, 6 * EIGHTH))}
    assert later == {"newcomer": (Range(2 * EIGHTH, 4 * EIGHTH), Range(6 * EIGHTH, 8 * EIGHTH))}
    assert found({"here": 0}, {"here": 0, "newcomer": EIGHTH}) == ({"newcomer": EVERYWHERE}, {})


def test_where_all_keepers_are_new_nobody_is_the_first() -> None:
    members = {"here": 0, "a": 6 * EIGHTH}
    assert found(members, {**members, "newcomer": 7 * EIGHTH}, size=1) == (
        {},
        {"newcomer": (Range(5 * EIGHTH, 6 * EIGHTH), Range(7 * EIGHTH, 8 * EIGHTH))},
    )


def nearest(position: int, members: dict[str, int], count: int = SIZE) -> list[str]:
    return sorted(members, key=lambda member: members[member] ^ position)[:count]


numbers = st.sets(st.integers(0, 9), max_size=6)


@given(st.integers(0, 2**32), numbers, numbers, st.integers(1, 9))
def test_whoever_became_a_keeper_is_compared_with(seed: int, before: set[int], after: set[int], stayed: int) -> None:
    """By ranges, as sorting all members by their distance to each key tells."""
    randomness = random.Random(seed)
    positions = {number: randomness.getrandbits(POSITION_BITS) for number in range(10)}
    here = {"here": randomness.getrandbits(POSITION_BITS)}
    old = here | {f"member {number}": positions[number] for number in before | {stayed}}
    new = here | {f"member {number}": positions[number] for number in after | {stayed}}
    first, later = found(old, new)
    assert {*first, *later} <= new.keys() - here.keys()
    for _ in range(POSITIONS):
        position = randomness.getrandbits(POSITION_BITS)
        if "here" in (*nearest(position, old, SIZE + 1), *nearest(position, new, SIZE + 1)):
            for peer_id in {*nearest(position, new)} - {*nearest(position, old), "here"}:
                assert covers(union(first.get(peer_id, ()), later.get(peer_id, ())), position)


def calls_of_each_step(steps: Iterator[None]) -> list[int]:
    """How many functions each step calls: a measure of its time that is the same on each machine."""
    called = [0]

    def count(_: FrameType, event: str, __: object) -> None:
        called[-1] += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in steps:
            called.append(0)
    finally:
        sys.setprofile(before)
    return called


def test_a_newcomer_amid_a_hundred_ground_ids_takes_little_and_holds_nobody_up() -> None:
    randomness = random.Random(1)
    crowd = randomness.getrandbits(16) << 240
    members = {f"honest {number}": randomness.getrandbits(256) for number in range(9)}
    members |= {f"ground {number:03}": crowd | randomness.getrandbits(240) for number in range(100)}
    before, after = {"here": 0, **members}, {"here": 0, **members, "ground 100": crowd | 1}
    crowding = Density(10).crowding(ENDS)
    called = calls_of_each_step(due_after_change("here", before, after, 20, reach=28, crowdings=(crowding, crowding)))
    assert sum(called) < 500_000
    assert max(called) < 20_000
