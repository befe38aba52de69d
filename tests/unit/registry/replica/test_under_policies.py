"""Replicas under policies, over any order, repetition and loss of what was signed: the rules of storing and comparing
as they run, on several real databases, with a clock that goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.membership.certificate import encode_chain
from registry.codes import Code
from registry.errors import DiskFull, RateExceeded, RegistryRefusal
from registry.model.delta import Orders, delta
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState, merged
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, KeyOrTombstone, KeyTombstone, Record, State, Tombstone
from registry.permission.errors import RefusedByPolicy
from registry.permission.policy import ANY_HOST, FOR_EVER, Denial, Policy
from registry.replica import collecting, rules
from registry.replica.sender_limits import SenderLimits
from registry.settings import RegistrySettings
from registry.storage.database import IN_MEMORY, open_database
from registry.storage.transaction import Transaction
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    STRANGER,
    a_certificate,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    identity,
    keys_of,
    public_key,
)

RULES = RegistrySettings()
ROOMY = RegistrySettings(disk_share=1.0, slots_per_issuer=100, records_per_issuer=100, records_per_key=100)
ROOT, OTHER_ROOT = identity(40), identity(41)
ID = a_key().id
DENIED = Denial(public_key(ISSUER), public_key(HOST), FOR_EVER)
EVERYWHERE = Denial(public_key(STRANGER), ANY_HOST, NOW + 2)
CERTIFIED = encode_chain([a_certificate(ROOT, STRANGER, expires_at=NOW + 8)])
OTHERWISE = encode_chain([a_certificate(OTHER_ROOT, STRANGER, expires_at=NOW + 50)])

KEYS = [
    a_key(),
    a_key(created=NOW + 4),
    a_key(policy=Policy(revision=1, allow=keys_of(ISSUER), roots=keys_of(ROOT, OTHER_ROOT)), created=NOW + 1),
    a_key(policy=Policy(revision=1, allow=keys_of(STRANGER)), created=NOW + 3),
    a_key(policy=Policy(revision=2, allow=keys_of(ISSUER), roots=keys_of(ROOT), deny=(DENIED,)), created=NOW + 2),
    a_key(
        policy=Policy(revision=3, open=True, deny=(Denial(public_key(STRANGER), ANY_HOST, NOW + 2),)), created=NOW + 4
    ),
]
STATES: list[State] = [
    a_record(ID, OWNER, HOST, NOW + 1),
    *(a_record(ID, ISSUER, HOST, NOW + second) for second in (1, 3)),
    a_record(ID, ISSUER, HOST, NOW + 1, NOW + 3),
    a_tombstone(ID, ISSUER, HOST, NOW + 2),
    a_record(ID, STRANGER, NODE, NOW + 1),
    a_record(ID, STRANGER, NODE, NOW + 2, solution=CERTIFIED),
    a_record(ID, STRANGER, NODE, NOW + 3, solution=OTHERWISE),
    a_record(ID, STRANGER, NODE, NOW + 3, NOW + 5, solution=OTHERWISE),
    a_tombstone(ID, STRANGER, NODE, NOW + 4),
    a_record(ID, STRANGER, NODE, NOW + 5),
]
REMOVALS = [a_key_tombstone(issued=NOW + second, revision=revision) for second, revision in ((2, 2), (1, 3), (3, 0))]
Put = tuple[KeyOrTombstone, State | None]
ALONE: list[Put] = [(one, None) for one in (*KEYS, *REMOVALS)]
PUTS = st.sampled_from(ALONE) | st.tuples(st.sampled_from(KEYS), st.sampled_from(STATES))
START = NOW + 6


@contextmanager
def replicas(count: int) -> Iterator[list[Transaction]]:
    with ExitStack() as stack:
        connections = [stack.enter_context(opened()) for _ in range(count)]
        yield [Transaction(connection) for connection in connections]


@contextmanager
def opened() -> Iterator[sqlite3.Connection]:
    connection = open_database(IN_MEMORY)
    try:
        yield connection
    finally:
        connection.close()


def put(at: Transaction, item: Put, now: int) -> Code | None:
    """As `registry.replica.ingest` stores what verified; why it was refused."""
    key_or_tombstone, state = item
    try:
        if isinstance(key_or_tombstone, KeyTombstone):
            rules.put_key_tombstone(at, key_or_tombstone, NODE.peer_id, RULES, now)
        elif state is None:
            rules.register_key(at, key_or_tombstone, 0, identity(99).peer_id, RULES, now)
        else:
            rules.republish_key(at, key_or_tombstone, 0, identity(99).peer_id, RULES, now)
        if state is not None:
            rules.put_state(at, state, 0, identity(99).peer_id, RULES, now, keyless=True)
    except RegistryRefusal as error:
        return error.code
    return None


def lacking(mine: Transaction, theirs: Transaction, now: int, *, untold: int = 0) -> list[Put]:
    """What one sends another once they have compared and differ. Of the other's slots, in their order, those aren't
    told whose bits are set in `untold`, as of a resource that has more than one answer holds."""
    horizon = ExpiryHorizon.at(now, RULES)
    here, there = horizon.fresh(mine.resource(ID)), horizon.fresh(theirs.resource(ID))
    if horizon.alive(here).digest() == horizon.alive(there).digest():
        return []
    orders = Orders.of(there)
    slots = sorted(orders.states)
    told = {slot: orders.states[slot] for number, slot in enumerate(slots) if not untold >> number & 1}
    return delta(here, orders._replace(states=told), here.withheld(now))


def compared(mine: Transaction, theirs: Transaction, now: int) -> list[tuple[Put, Code | None]]:
    """What one sends another that compares differently, and what that said to it."""
    return [(item, put(theirs, item, now)) for item in lacking(mine, theirs, now)]


def settle(all_of_them: Sequence[Transaction], now: int) -> None:
    for _ in range(8):
        before = [one.resource(ID).digest() for one in all_of_them]
        for mine, theirs in permutations(all_of_them, 2):
            compared(mine, theirs, now)
        if [one.resource(ID).digest() for one in all_of_them] == before:
            return
    raise AssertionError("they go on changing each other")


def shown(one: ResourceState, now: int) -> list[Record]:
    return one.records(now, RULES) if one.key is not None else []


class Acknowledged:
    """What replicas said yes to."""

    def __init__(self) -> None:
        self.items: list[Put] = []
        self.tombstones: list[Tombstone] = []
        self.removals: list[KeyTombstone] = []
        self.keys: list[Key] = []

    def note(self, item: Put) -> None:
        self.items.append(item)
        key_or_tombstone, state = item
        if isinstance(key_or_tombstone, KeyTombstone):
            self.removals.append(key_or_tombstone)
        elif state is None:
            self.keys.append(key_or_tombstone)
        if isinstance(state, Tombstone):
            self.tombstones.append(state)

    def check(self, resource: ResourceState, now: int) -> None:
        served = shown(resource, now)
        for record in served:
            assert why_withheld(resource.key, record, now) is None
            assert all(one.slot != record.slot or one.order() < record.order() for one in self.tombstones)
            assert not any(one.kills(record) for one in self.removals)
        if resource.key is not None:
            assert not any(one.kills_key(resource.key) for one in self.removals)
        heard = (*self.removals, *resource.key_tombstones)  # by comparing, too
        alive = [key for key in self.keys if not any(one.kills_key(key) for one in heard)]
        if alive:
            assert resource.key is not None
            assert resource.key.order() >= max(key.order() for key in alive), "a key's revision never falls"


@given(
    lots=st.lists(st.lists(PUTS, max_size=14), min_size=2, max_size=3),
    passing=st.integers(0, 6),
    again=st.randoms(use_true_random=False),
)
def test_whatever_arrives_in_whatever_order_replicas_settle_and_show_only_what_is_permitted(
    lots: list[list[Put]], passing: int, again: object
) -> None:
    now, acknowledged = START, Acknowledged()
    with replicas(len(lots)) as all_of_them:
        for one, lot in zip(all_of_them, lots, strict=True):
            for item in lot:
                if put(one, item, now) is None:
                    acknowledged.note(item)
            before = shown(one.resource(ID), now)
            collecting.clear_expired(one, now + passing, RULES)
            later = shown(one.resource(ID), now + passing)
            assert set(later) <= set(before), "time and collecting never grow what is shown"
        now += passing
        settle(all_of_them, now)
        resources = [one.resource(ID) for one in all_of_them]
        assert len({tuple(shown(one, now)) for one in resources}) == 1
        for one in resources:
            acknowledged.check(one, now)
        for mine, theirs in permutations(all_of_them, 2):
            assert compared(mine, theirs, now) == [], "after settling a round sends nothing"
        kept = shown(all_of_them[0].resource(ID), now)
        again.shuffle(acknowledged.items)
        for one in all_of_them:
            for item in acknowledged.items:
                put(one, item, now)
        settle(all_of_them, now)
        for one in all_of_them:
            assert shown(one.resource(ID), now) == kept, "offering again what was acknowledged shows nothing else"


@given(
    lots=st.lists(st.lists(PUTS, max_size=12), min_size=2, max_size=2),
    cached=st.none() | st.sampled_from(KEYS),
    lie=st.tuples(st.sampled_from(KEYS), st.sampled_from(STATES)),
)
def test_a_reader_with_one_honest_answer_shows_nothing_unpermitted_or_ended(
    lots: list[list[Put]], cached: Key | None, lie: tuple[Key, State]
) -> None:
    with replicas(2) as all_of_them:
        for one, lot in zip(all_of_them, lots, strict=True):
            for item in lot:
                put(one, item, START)
        settle(all_of_them, START)
        honest = all_of_them[0].resource(ID)
        liar = ResourceState.of(lie[0], [lie[1]])
        read = merged(merged(honest, liar), ResourceState.of(cached, []))
        for record in shown(read, START):
            if honest.key is not None:
                ruling = read.key if read.key is not None and read.key.order() > honest.key.order() else honest.key
                assert why_withheld(ruling, record, START) is None
            known = honest.slots.get(record.slot)
            assert known is None or known.order() <= record.order()
            assert not any(one.kills(record) for one in honest.key_tombstones)


def test_strangers_dont_keep_withheld_rows_alive() -> None:
    closed = a_key(policy=Policy(revision=1))
    with replicas(1) as [one]:
        assert put(one, (a_key(), a_record(ID, STRANGER, NODE, NOW)), START) is None
        assert put(one, (closed, None), START) is None
        for later in (a_record(ID, STRANGER, NODE, NOW, NOW + 5), a_record(ID, STRANGER, NODE, NOW + 5)):
            assert put(one, (closed, later), START) is Code.ISSUER_NOT_ALLOWED
        assert put(one, (closed, a_record(ID, STRANGER, HOST, NOW)), START) is Code.ISSUER_NOT_ALLOWED
        assert put(one, (closed, a_tombstone(ID, STRANGER, NODE, NOW + 6)), START) is None, "its end is always taken"
        assert put(one, (closed, a_tombstone(ID, STRANGER, HOST, NOW + 6)), START) is None, "of what is unknown too"


def test_an_unmodified_owner_creates_its_resource_anew_and_changes_nothing() -> None:
    closed = a_key(policy=Policy(revision=1))
    with replicas(1) as [one]:
        put(one, (closed, None), START)
        assert put(one, (a_key(created=NOW + 5), None), START) is None
        assert one.resource(ID).key == closed
        assert put(one, (a_key(policy=Policy(revision=2)), None), START) is None
        assert put(one, (closed, None), START) is Code.NEWER_KEY_EXISTS


def test_a_removed_policy_comes_back_neither_by_its_own_key_nor_open() -> None:
    with replicas(1) as [one]:
        put(one, (a_key(policy=Policy(revision=2)), None), START)
        put(one, (a_key_tombstone(issued=NOW + 1, revision=3), None), START)
        assert one.resource(ID).key is None
        for stale in (a_key(policy=Policy(revision=2), created=NOW + 5), a_key(created=NOW + 5)):
            assert put(one, (stale, None), START) is Code.KEY_REMOVED
        assert put(one, (a_key(policy=Policy(revision=3, open=True)), None), START) is None


def test_withheld_records_count_for_no_limit_and_are_never_pushed_out() -> None:
    narrow = RegistrySettings(records_per_key=2)
    before, closed = a_key(), a_key(policy=Policy(revision=1, allow=keys_of(ISSUER)))
    with replicas(1) as [one]:
        rules.register_key(one, before, 0, identity(99).peer_id, narrow, START)
        held = [a_record(ID, identity(number), HOST, NOW) for number in (50, 51)]
        for record in held:
            rules.put_state(one, record, 0, identity(99).peer_id, narrow, START)
        rules.register_key(one, closed, 0, identity(99).peer_id, narrow, START)
        for host in (HOST, NODE):
            rules.put_state(one, a_record(ID, ISSUER, host, NOW), 0, identity(99).peer_id, narrow, START)
        with pytest.raises(RegistryRefusal) as raised:
            rules.put_state(one, a_record(ID, ISSUER, STRANGER, NOW), 0, identity(99).peer_id, narrow, START)
        assert raised.value.code is Code.VALUES_LIMIT_EXCEEDED
        resource = one.resource(ID)
        assert all(resource.slots[record.slot] == record for record in held)
        assert {record.metadata.issued_by for record in shown(resource, START)} == {ISSUER.peer_id}


def test_a_key_with_a_policy_isnt_collected_for_being_empty() -> None:
    late = NOW + RULES.expired_age + 1
    with replicas(2) as [one, other]:
        put(one, (a_key(policy=Policy(revision=1)), None), START)
        put(other, (a_key(), None), START)
        for each in (one, other):
            collecting.clear_expired(each, late, RULES)
        assert one.resource(ID).key is not None
        assert other.resource(ID).key is None
        collecting.clear_expired(one, NOW + RULES.key_lifetime, RULES)
        assert one.resource(ID).key is None


def test_a_refusal_says_why_and_what_to_do() -> None:
    error = RefusedByPolicy(ID, Code.ISSUER_NOT_ALLOWED, ISSUER.peer_id, HOST.peer_id)
    assert ISSUER.peer_id in str(error)
    assert "ask the owner" in str(error)
    assert error.code is Code.ISSUER_NOT_ALLOWED


def test_half_of_what_a_sender_may_bring_is_reserved_for_issuers_that_a_policy_names() -> None:
    """Strangers whose tombstones a sender passes on would else keep out those of issuers that are allowed."""
    few = RegistrySettings(tombstone_rate=1, tombstone_burst=2)
    limits = SenderLimits(NODE.peer_id, few)
    closed = a_key(policy=Policy(revision=1, allow=keys_of(ISSUER), roots=keys_of(ROOT)))
    with replicas(1) as [one]:
        put(one, (closed, None), START)

        def takes(tombstone: Tombstone) -> bool:
            try:
                limits.check(one, tombstone, "sender", 0.0, START)
            except RateExceeded:
                return False
            return True

        theirs = [takes(a_tombstone(ID, identity(number), HOST)) for number in range(80, 83)]
        assert theirs == [True, True, False]
        chain = encode_chain([a_certificate(ROOT, STRANGER)])
        named = [a_tombstone(ID, ISSUER, HOST), a_tombstone(ID, STRANGER, HOST, solution=chain)]
        assert all(map(takes, named))
        assert not takes(a_tombstone(ID, ISSUER, NODE)), "that has its end too"


def test_a_full_disk_makes_room_for_the_end_that_a_named_issuer_tells_and_not_for_a_strangers() -> None:
    closed = a_key(policy=Policy(revision=1, allow=keys_of(ISSUER)))
    with replicas(1) as [one]:
        put(one, (closed, None), START)
        greedy = a_key("greedy", identity(90))
        put(one, (greedy, None), START)
        for number in range(40):
            rules.put_state(
                one, a_record(greedy.id, identity(90), identity(number + 200), value="x" * 5000), 0, "", ROOMY, START
            )
        full = msgspec.structs.replace(ROOMY, max_disk_bytes=one.used_bytes())

        def is_stored(tombstone: Tombstone) -> bool:
            try:
                return rules.put_state(one, tombstone, 0, "", full, START)
            except DiskFull:
                return False

        assert not is_stored(a_tombstone(ID, STRANGER, HOST))
        assert is_stored(a_tombstone(ID, ISSUER, HOST))
