"""Key tombstones: an owner removes a resource, in whatever order its parts arrive.

The rule: docs/design.md, State and merging.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import permutations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidKeyTombstoneSignature, InvalidValue, RegistryRefusal
from registry.model.decoding import decode_key_or_tombstone
from registry.model.merge import ResourceState, merged
from registry.model.values import Key, KeyTombstone, State, encode
from registry.model.verification import check_key_tombstone
from registry.replica import collecting
from registry.replica import rules as write_rules
from registry.settings import RegistrySettings
from registry.storage.database import open_database
from registry.storage.transaction import Transaction
from tests.paths import DATA
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    STRANGER,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
)

RULES = RegistrySettings()
DAY = 86_400
VECTORS = json.loads((DATA / "signing-vectors.json").read_text())["key_tombstones"]

PARTS: list[Key | KeyTombstone | State] = [
    *(a_key(created=NOW + second) for second in (0, 1, 2)),
    *(a_key_tombstone(issued=NOW + second) for second in (0, 1)),
    *(a_record(a_key().id, ISSUER, HOST, NOW + second) for second in (0, 1, 2)),
    a_tombstone(a_key().id, ISSUER, HOST, NOW + 1),
    a_record(a_key().id, OWNER, NODE, NOW + 1),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_key_tombstone_signs_as_its_vector(vector: dict[str, object]) -> None:
    fields = {name: vector[name] for name in ("key_id", "label", "owner_peer_id", "timestamp_issued")}
    key_tombstone = KeyTombstone(**fields, signature=bytes(vector["signature"]))  # type: ignore[arg-type, call-overload]
    assert key_tombstone.signed_bytes().hex() == vector["digest"]
    check_key_tombstone(key_tombstone, key_tombstone.timestamp_issued, RULES)


def test_key_tombstone_survives_cbor() -> None:
    assert decode_key_or_tombstone(encode(a_key_tombstone())) == a_key_tombstone()


def test_the_id_must_be_that_of_label_and_owner() -> None:
    with pytest.raises(InvalidValue, match="isn't that of this label and owner"):
        KeyTombstone(a_key("other").id, "sample", OWNER.peer_id, NOW, b"")


def test_only_the_owner_can_sign() -> None:
    stolen = msgspec.structs.replace(a_key_tombstone(), signature=STRANGER.sign(a_key_tombstone().signed_bytes()))
    with pytest.raises(InvalidKeyTombstoneSignature):
        check_key_tombstone(stolen, NOW, RULES)


def test_it_beats_keys_and_states_up_to_its_second_and_none_after() -> None:
    key_tombstone = a_key_tombstone(issued=NOW + 1)
    later = a_record(a_key().id, ISSUER, HOST, NOW + 2)
    state = ResourceState.of(a_key(created=NOW + 1), [a_record(a_key().id, OWNER, NODE, NOW + 1), later], key_tombstone)
    assert state.key is None
    assert list(state.slots.values()) == [later]
    assert merged(state, ResourceState.of(a_key(created=NOW + 2), [])).key == a_key(created=NOW + 2)


@given(parts=st.lists(st.sampled_from(PARTS), max_size=7), data=st.data())
def test_every_order_and_grouping_of_arrival_ends_alike(
    parts: list[Key | KeyTombstone | State], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(parts))
    one, other = ResourceState(), ResourceState()
    for part in parts:
        one = merged(one, single(part))
    for part in shuffled:
        other = merged(single(part), other)
    assert one == other
    assert one.digest() == other.digest()


@given(parts=st.lists(st.sampled_from(PARTS), min_size=2, max_size=6))
def test_storage_ends_alike_whatever_the_order_between_replicas(parts: list[Key | KeyTombstone | State]) -> None:
    """As replicas exchange them: a state with the key or key tombstone that its sender has."""
    keyed = [(part, next((p for p in parts if isinstance(p, Key | KeyTombstone)), None)) for part in parts]
    if keyed[0][1] is None:
        return
    states = {frozen(stored(order)) for order in list(permutations(keyed))[:24]}
    assert len(states) == 1


def test_it_is_kept_as_long_as_anything_that_it_could_kill() -> None:
    lifetime = RULES.key_tombstone_lifetime
    assert lifetime >= RULES.key_lifetime + 2 * RULES.clock_skew
    check_key_tombstone(a_key_tombstone(), NOW + lifetime - 1, RULES)
    with pytest.raises(RegistryRefusal, match="expired"):
        check_key_tombstone(a_key_tombstone(), NOW + lifetime, RULES)


def test_collection_drops_it_after_that() -> None:
    with connected() as transaction:
        write_rules.put_key_tombstone(transaction, a_key_tombstone(), NODE.peer_id, RULES, NOW)
        assert (
            collecting.clear_expired(transaction, NOW + RULES.key_tombstone_lifetime - 1, RULES).count_tombstones == 0
        )
        assert transaction.key_tombstones(a_key().id) == (a_key_tombstone(),)
        assert collecting.clear_expired(transaction, NOW + RULES.key_tombstone_lifetime, RULES).count_tombstones == 1
        assert transaction.key_tombstones(a_key().id) == ()


def single(part: Key | KeyTombstone | State) -> ResourceState:
    if isinstance(part, Key):
        return ResourceState.of(part, [])
    return ResourceState.of(None, [], part) if isinstance(part, KeyTombstone) else ResourceState.of(None, [part])


def frozen(state: ResourceState) -> bytes:
    return state.digest()


@cache
def database_in_memory() -> sqlite3.Connection:
    """An empty database, made once: its schema takes longer than what a test does in it."""
    return open_database(Path(":memory:"))


@contextmanager
def connected() -> Iterator[Transaction]:
    """A transaction on an empty database in memory, of which nothing stays."""
    connection = database_in_memory()
    connection.execute("BEGIN")
    try:
        yield Transaction(connection)
    finally:
        connection.execute("ROLLBACK")


def stored(parts: Sequence[tuple[Key | KeyTombstone | State, Key | KeyTombstone | None]]) -> ResourceState:
    with connected() as transaction:
        for part, key_or_tombstone in parts:
            for piece in (key_or_tombstone, part):
                try:
                    put(transaction, piece)
                except RegistryRefusal:
                    continue
        return transaction.resource(a_key().id)


def put(transaction: Transaction, piece: Key | KeyTombstone | State | None) -> None:
    if isinstance(piece, Key):
        write_rules.republish_key(transaction, piece, 0, NODE.peer_id, RULES, NOW)
    elif isinstance(piece, KeyTombstone):
        write_rules.put_key_tombstone(transaction, piece, NODE.peer_id, RULES, NOW)
    elif piece is not None:
        write_rules.put_state(transaction, piece, 0, NODE.peer_id, RULES, NOW, keyless=True)
