"""The rules of storage under limits that are always reached: what they promise holds after any history."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import RegistryRefusal
from registry.model.values import KeyTombstone, Record, Slot, State, Tombstone
from registry.replica import rules
from registry.settings import RegistrySettings
from registry.storage import Transaction
from registry.storage.database import open_database
from tests.unit.registry.builders import NODE, NOW, OWNER, a_key, a_key_tombstone, a_record, a_tombstone, identity

with closing(open_database(Path(":memory:"))) as _empty:
    EMPTY: int = Transaction(_empty).used_bytes()
TIGHT = RegistrySettings(
    slots_per_key=4,
    slots_per_issuer=2,
    records_per_key=3,
    records_per_issuer=2,
    tombstones_per_key=4,
    max_disk_bytes=EMPTY + 4_352,
    disk_share=1.0,
)
ROOMY = msgspec.structs.replace(TIGHT, max_disk_bytes=2**30)
"""A disk that is full of what holds old records down has no room for others than the node itself."""
HEAVY = identity(70)
STRANGERS = [identity(71), identity(72), identity(73)]
HOSTS = [identity(74), identity(75), identity(76), NODE]
KEYS = [a_key("theirs", OWNER), a_key("own", NODE), a_key("junk", STRANGERS[0])]
VALUE = "x" * 6_000


Step = tuple[str, int, int, int, int]
"""What comes, of which key, issuer and host, and when."""


@cache
def values_of(step: Step) -> tuple[State | KeyTombstone, ...]:
    what, key_number, issuer_number, host_number, later = step
    key, issued = KEYS[key_number], NOW + later
    if what == "key tombstone":
        return (a_key_tombstone(KEYS[2].label, STRANGERS[0], issued),)
    issuer, host = [*STRANGERS, OWNER, HEAVY, NODE][issuer_number], HOSTS[host_number]
    record = a_record(key.id, issuer, host, issued, value=VALUE)
    tombstone = a_tombstone(key.id, issuer, host, issued)
    return {"record": (record,), "tombstone": (tombstone,), "both": (record, tombstone)}[what]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["record", "both", "both", "tombstone", "key tombstone"]),
        st.sampled_from([0, 0, 1, 2]),
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    min_size=20,
    max_size=50,
)


def with_keys(connection: sqlite3.Connection) -> Transaction:
    transaction = Transaction(connection)
    for key in KEYS:
        rules.republish_key(transaction, key, 0, NODE.peer_id, TIGHT, NOW)
    return transaction


def put(transaction: Transaction, value: State | KeyTombstone, limits: RegistrySettings = TIGHT) -> bool:
    """Whether it is stored now."""
    try:
        if isinstance(value, KeyTombstone):
            rules.put_key_tombstone(transaction, value, NODE.peer_id, limits, NOW)
        else:
            weight = 1 if value.slot.issued_by == HEAVY.peer_id else 0
            rules.put_state(transaction, value, weight, NODE.peer_id, limits, NOW)
    except RegistryRefusal:
        return False
    return True


def after(transaction: Transaction, steps: list[Step]) -> tuple[dict[Slot, int], dict[Slot, State]]:
    """Takes the steps; until when each slot's records were ended here, and what this node stored of its own."""
    ended_until: dict[Slot, int] = {}
    own: dict[Slot, State] = {}
    for value in (value for step in steps for value in values_of(step)):
        if isinstance(value, KeyTombstone):
            put(transaction, value)
            continue
        known = transaction.resource(value.key_id).slots.get(value.slot)
        if not put(transaction, value):
            continue
        if isinstance(value, Tombstone) and isinstance(known, Record):
            ended_until[value.slot] = max(ended_until.get(value.slot, -1), known.timestamp_issued)
        if value.slot.issued_by == NODE.peer_id:
            own[value.slot] = value
    return ended_until, own


@given(steps=STEPS)
@settings(max_examples=60)
def test_nothing_that_was_ended_here_comes_back_and_what_is_own_stays(steps: list[Step]) -> None:
    with closing(open_database(Path(":memory:"))) as connection:
        transaction = with_keys(connection)
        ended_until, own = after(transaction, steps)
        states = {state.slot: state for key in KEYS for state in transaction.resource(key.id).slots.values()}
        lasting = [slot for slot in ended_until if slot.key_id != KEYS[2].id]  # which is removed with all under it
        assert states.keys() >= set(lasting), "what holds an old record down stays"
        for slot, until in ended_until.items():
            if isinstance(states.get(slot), Record):
                assert states[slot].timestamp_issued > until
        kept = {slot: state for slot, state in own.items() if slot.key_id != KEYS[2].id}
        assert kept.items() <= states.items(), "nothing of this node's own goes"


@given(steps=STEPS)
@settings(max_examples=20)
def test_a_strangers_share_of_anothers_resource_is_never_exceeded(steps: list[Step]) -> None:
    with closing(open_database(Path(":memory:"))) as connection:
        transaction = with_keys(connection)
        after(transaction, steps)
        for stranger in STRANGERS:
            assert transaction.counts.slots_by(KEYS[0].id, stranger.peer_id) <= TIGHT.slots_per_issuer


@given(steps=STEPS)
@settings(max_examples=20)
def test_the_owner_and_whoever_is_trusted_can_register_after_anything(steps: list[Step]) -> None:
    with closing(open_database(Path(":memory:"))) as connection:
        transaction = with_keys(connection)
        for value in (value for step in steps for value in values_of(step)):
            if isinstance(value, KeyTombstone) or value.slot.issued_by in {one.peer_id for one in STRANGERS}:
                put(transaction, value, ROOMY)
        assert put(transaction, a_record(KEYS[0].id, HEAVY, HOSTS[0], NOW + 9), ROOMY)
        assert put(transaction, a_record(KEYS[0].id, NODE, HOSTS[0], NOW + 9), ROOMY)
        assert put(transaction, a_record(KEYS[0].id, OWNER, HOSTS[0], NOW + 9), ROOMY)
