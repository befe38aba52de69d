"""Shares of the places under a key, as pure decisions: whoever takes little isn't kept out by those who take much."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from registry.replica.shares import Rank, Room, Taken, room_for_record, room_for_slot
from registry.settings import RegistrySettings

RULES = RegistrySettings(
    slots_per_key=64, slots_per_issuer=16, records_per_key=32, records_per_issuer=8, tombstones_per_key=40
)
LITTLE = 4  # a quarter of an issuer's share of slots
COUNTS = st.integers(0, 200)
PREFERRED = [rank for rank in Rank if rank.is_preferred]


@st.composite
def taken(draw: st.DrawFn) -> Taken:
    slots = draw(COUNTS)
    records, tombstones = draw(st.integers(0, slots)), draw(st.integers(0, slots))
    by_issuer = draw(st.integers(0, slots))
    return Taken(slots, by_issuer, records, draw(st.integers(0, min(records, by_issuer))), tombstones)


@given(taken=taken(), rank=st.sampled_from(Rank), is_record=st.booleans())
def test_more_that_is_taken_never_makes_more_room(taken: Taken, rank: Rank, is_record: bool) -> None:
    if room_for_slot(taken, rank, RULES, is_record=is_record) is not Room.FREE:
        fuller = msgspec.structs.replace(taken, slots=taken.slots + 1, slots_by_issuer=taken.slots_by_issuer + 1)
        assert room_for_slot(fuller, rank, RULES, is_record=is_record) is not Room.FREE
    if room_for_record(taken, rank, RULES, is_hosted_here=False) is not Room.FREE:
        fuller = msgspec.structs.replace(taken, records=taken.records + 1)
        assert room_for_record(fuller, rank, RULES, is_hosted_here=False) is not Room.FREE


@given(taken=taken(), rank=st.sampled_from(PREFERRED), is_record=st.booleans())
def test_others_never_keep_a_preferred_issuer_out(taken: Taken, rank: Rank, is_record: bool) -> None:
    mine = msgspec.structs.replace(taken, slots_by_issuer=3, records_by_issuer=3)
    assert room_for_slot(mine, rank, RULES, is_record=is_record) in (Room.FREE, Room.TOMBSTONE_IF_ANY)
    assert room_for_record(mine, rank, RULES, is_hosted_here=False) is not Room.NONE


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_a_few_strangers_never_keep_out_one_who_has_little(steps: list[tuple[int, bool]]) -> None:
    """They take all they get, in any order: live records, or ended ones that hold something down and so never go."""
    slots, records = [0] * 4, [0] * 4

    def now(issuer: int | None) -> Taken:
        mine = (0, 0) if issuer is None else (slots[issuer], records[issuer])
        return Taken(sum(slots), mine[0], sum(records), mine[1], sum(slots) - sum(records))

    for issuer, ends_it in steps:
        is_free = all(
            room is Room.FREE
            for room in (
                room_for_record(now(issuer), Rank.STRANGER, RULES, is_hosted_here=False),
                room_for_slot(now(issuer), Rank.STRANGER, RULES, is_record=True),
            )
        )
        if is_free:
            slots[issuer] += 1
            records[issuer] += not ends_it
        assert max(slots) <= RULES.slots_per_issuer
        assert max(records) <= RULES.records_per_issuer
        assert sum(slots) <= RULES.slots_per_key
        assert sum(records) <= RULES.records_per_key
    assert room_for_slot(now(None), Rank.STRANGER, RULES, is_record=True) is Room.FREE
    assert room_for_record(now(None), Rank.STRANGER, RULES, is_hosted_here=False) is Room.FREE


@given(taken=taken())
def test_whoever_has_much_leaves_the_last_quarter_alone(taken: Taken) -> None:
    room = room_for_slot(taken, Rank.STRANGER, RULES, is_record=True)
    if room is Room.FREE and taken.slots_by_issuer >= LITTLE:
        assert taken.slots < RULES.slots_per_key * 3 // 4
    assert (room is Room.OWN_TOMBSTONE) == (taken.slots_by_issuer >= RULES.slots_per_issuer)


@given(taken=taken(), rank=st.sampled_from(Rank))
def test_a_tombstone_for_nothing_displaces_nothing_of_other_strangers(taken: Taken, rank: Rank) -> None:
    room = room_for_slot(taken, rank, RULES, is_record=False)
    assert rank.is_preferred or room in (Room.FREE, Room.OWN_TOMBSTONE)
    assert rank.is_preferred or taken.tombstones < RULES.tombstones_per_key or room is Room.OWN_TOMBSTONE
