"""Order, repetition and batching of updates don't matter: neither when merging nor in storage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from sqlite3 import Connection
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import NewerRecordOrTombstoneExists, ValuesLimitExceeded
from registry.model.merge import ResourceState, greater, greater_key, is_served, merged
from registry.model.values import Key, State, digest_of
from registry.replica import rules as write_rules
from registry.settings import RegistrySettings
from registry.storage.database import open_database
from registry.storage.transaction import Transaction
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    hosted,
    identity,
)

RULES = RegistrySettings()
KEY = a_key()
KEYS = [a_key(created=NOW + second, challenge=challenge) for second in (0, 1) for challenge in (b"", b"a", b"b")]
"""Keys of one id, some of the same second."""
STATES: list[State] = [
    state
    for issuer in (ISSUER, OWNER)
    for host in (HOST, NODE)
    for issued in (NOW, NOW + 1)
    for state in (
        a_record(KEY.id, issuer, host, issued, issued, "a"),
        a_record(KEY.id, issuer, host, issued, issued, "b"),
        a_record(KEY.id, issuer, host, issued, issued + 5, "a"),
        a_tombstone(KEY.id, issuer, host, issued),
        a_tombstone(KEY.id, issuer, host, issued, b"another"),
    )
]
"""Four slots, each with rivals of the same second."""
KEY_TOMBSTONES = [a_key_tombstone(issued=NOW + second) for second in (-1, 0, 1)]
SOME_KEY = st.none() | st.sampled_from(KEYS)
SOME_KEY_TOMBSTONE = st.none() | st.sampled_from(KEY_TOMBSTONES)
SOME_STATES = st.lists(st.sampled_from(STATES), max_size=15)
RESOURCES = st.builds(ResourceState.of, SOME_KEY, SOME_STATES, SOME_KEY_TOMBSTONE)


@given(a=RESOURCES, b=RESOURCES)
def test_merging_is_commutative(a: ResourceState, b: ResourceState) -> None:
    assert merged(a, b) == merged(b, a)
    assert merged(a, b).digest() == merged(b, a).digest()


@given(a=RESOURCES, b=RESOURCES, c=RESOURCES)
def test_merging_is_associative(a: ResourceState, b: ResourceState, c: ResourceState) -> None:
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(a=RESOURCES, b=RESOURCES)
def test_merging_is_idempotent(a: ResourceState, b: ResourceState) -> None:
    assert merged(a, a) == a
    assert merged(merged(a, b), b) == merged(a, b)
    assert merged(a, ResourceState()) == a


@given(states=SOME_STATES, shuffled=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_order_repetition_and_batching_do_not_matter(states: list[State], shuffled: object, cuts: list[int]) -> None:
    again = [*states, *states[: len(states) // 2]]
    shuffled.shuffle(again)
    batches = [ResourceState.of(None, batch) for batch in cut(again, cuts)]
    assert reduce(merged, batches, ResourceState()).digest() == ResourceState.of(None, states).digest()


def cut(states: Sequence[State], cuts: Sequence[int]) -> list[Sequence[State]]:
    places = [0, *sorted(min(place, len(states)) for place in cuts), len(states)]
    return [states[start:end] for start, end in itertools.pairwise(places)]


@given(one=st.sampled_from(STATES), other=st.sampled_from(STATES), third=st.sampled_from(STATES))
def test_states_of_a_slot_are_totally_ordered(one: State, other: State, third: State) -> None:
    assert (one.order() == other.order()) == (digest_of(one) == digest_of(other)) == (one == other)
    assert greater(one, other) == greater(other, one)
    assert greater(greater(one, other), third) == greater(one, greater(other, third))


@given(one=SOME_KEY, other=SOME_KEY)
def test_keys_are_totally_ordered(one: Key | None, other: Key | None) -> None:
    assert greater_key(one, other) == greater_key(other, one)
    assert greater_key(one, one) == one


def test_later_issued_state_wins_whatever_it_is() -> None:
    record, tombstone = a_record(KEY.id, issued=NOW + 1), a_tombstone(KEY.id, issued=NOW)
    assert greater(tombstone, record) is record
    record, tombstone = a_record(KEY.id, issued=NOW), a_tombstone(KEY.id, issued=NOW + 1)
    assert greater(record, tombstone) is tombstone


def test_tombstone_beats_record_of_the_same_second() -> None:
    tombstone = a_tombstone(KEY.id, issued=NOW)
    record = a_record(KEY.id, issued=NOW, created=NOW + 100)
    assert greater(record, tombstone) is tombstone
    assert greater(tombstone, record) is tombstone


def test_a_renewed_record_beats_what_it_renews_but_no_newer_metadata() -> None:
    old = a_record(KEY.id, issued=NOW)
    renewed = hosted(old.metadata, HOST, NOW + 100)
    assert greater(old, renewed) is renewed
    reissued = a_record(KEY.id, issued=NOW + 1)
    assert greater(renewed, reissued) is reissued


def test_states_of_the_same_times_are_ordered_by_digest() -> None:
    one, other = a_record(KEY.id, value="one"), a_record(KEY.id, value="other")
    assert greater(one, other) is max(one, other, key=digest_of)
    first, second = a_key(challenge=b"1"), a_key(challenge=b"2")
    assert greater_key(first, second) is max(first, second, key=digest_of)


def test_slots_are_apart_by_issuer_and_by_host() -> None:
    states = [a_record(KEY.id, issuer, host) for issuer in (ISSUER, OWNER) for host in (HOST, NODE)]
    assert len(ResourceState.of(KEY, states).slots) == 4


@given(one=RESOURCES, other=RESOURCES)
def test_digests_are_equal_exactly_when_the_states_are(one: ResourceState, other: ResourceState) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@given(states=SOME_STATES)
def test_records_and_tombstones_come_in_an_order_that_replicas_agree_on(states: list[State]) -> None:
    forwards, backwards = ResourceState.of(KEY, states), ResourceState.of(KEY, reversed(states))
    assert forwards.records(NOW, RULES) == backwards.records(NOW, RULES)
    assert forwards.tombstones() == backwards.tombstones()


def test_a_record_is_served_until_its_hosts_or_its_issuers_signature_is_too_old() -> None:
    record = a_record(KEY.id, issued=NOW)
    assert is_served(record, NOW + RULES.expired_age - 1, RULES)
    assert not is_served(record, NOW + RULES.expired_age, RULES)
    end = NOW + RULES.record_lifetime
    renewed = hosted(record.metadata, HOST, end - 10)
    assert is_served(renewed, end - 1, RULES)
    assert not is_served(renewed, end, RULES)


def put_all(connection: Connection, batches: Sequence[Sequence[State]], rules: RegistrySettings = RULES) -> bytes:
    """Puts the batches, one transaction each, into an empty database; the digest of what is there in the end."""
    transaction = Transaction(connection)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM states")
    transaction.put_key(KEY, NOW, 0)
    connection.execute("COMMIT")
    for batch in batches:
        connection.execute("BEGIN")
        for state in batch:
            try:
                write_rules.put_state(transaction, state, 0, NODE.peer_id, rules, NOW)
            except NewerRecordOrTombstoneExists:
                continue
        connection.execute("COMMIT")
    return transaction.resource(KEY.id).digest()


@given(states=SOME_STATES, shuffled=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 30), max_size=4))
@settings(max_examples=60, deadline=None)
def test_storage_ends_at_the_merge_of_what_came_whatever_its_order_repetition_and_batching(
    states: list[State], shuffled: object, cuts: list[int]
) -> None:
    again = [*states, *states[: len(states) // 2]]
    shuffled.shuffle(again)
    with TemporaryDirectory() as folder:
        connection = open_database(Path(folder) / "registry.sqlite")
        try:
            assert put_all(connection, cut(again, cuts)) == ResourceState.of(KEY, states).digest()
        finally:
            connection.close()


@given(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_storage_keeps_the_greatest_key_in_whatever_order_keys_come(keys: list[Key]) -> None:
    with TemporaryDirectory() as folder:
        connection = open_database(Path(folder) / "registry.sqlite")
        try:
            transaction = Transaction(connection)
            for key in keys:
                write_rules.republish_key(transaction, key, 0, NODE.peer_id, RegistrySettings(), NOW)
            stored = transaction.key(KEY.id)
            assert stored is not None
            assert stored.key == max(keys, key=Key.order)
        finally:
            connection.close()


def test_at_the_limit_the_newcomer_is_refused_so_order_decides_which_stay(tmp_path: Path) -> None:
    rules = msgspec.structs.replace(RULES, records_per_key=3)
    records = [a_record(KEY.id, issuer=identity(number), host=HOST) for number in range(10, 16)]
    connection = open_database(tmp_path / "registry.sqlite")
    transaction = Transaction(connection)
    transaction.put_key(KEY, NOW, 0)
    for record in records:
        with_limit(transaction, record, rules)
    assert set(transaction.resource(KEY.id).slots.values()) == set(records[:3])
    connection.close()


def with_limit(transaction: Transaction, state: State, rules: RegistrySettings) -> None:
    try:
        write_rules.put_state(transaction, state, 0, NODE.peer_id, rules, NOW)
    except ValuesLimitExceeded:
        return
