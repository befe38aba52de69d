"""Policies: their one form, how they order keys, and what makes a key invalid."""

from __future__ import annotations

from collections.abc import Sequence

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.decoding import decode_key, decode_key_or_tombstone
from registry.model.merge import ResourceState, greater_key, kept_key_tombstones, merged
from registry.model.values import Key, KeyTombstone, encode
from registry.model.verification import key_tombstone_is_genuine
from registry.permission.errors import InvalidPolicy
from registry.permission.policy import (
    ANY_HOST,
    FOR_EVER,
    MAX_ALLOWED,
    MAX_DENIALS,
    MAX_HOSTS,
    MAX_POLICY,
    MAX_REVISION,
    MAX_ROOTS,
    POLICY_TYPE,
    Denial,
    Policy,
    encode_policy,
)
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NOW,
    OWNER,
    STRANGER,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    identity,
    keys_of,
    public_key,
)

FULL = Policy(
    revision=MAX_REVISION,
    open=True,
    allow=keys_of(*map(identity, range(100, 100 + MAX_ALLOWED))),
    roots=keys_of(*map(identity, range(200, 200 + MAX_ROOTS))),
    deny=tuple(
        sorted(
            Denial(public_key(identity(number)), public_key(HOST), FOR_EVER) for number in range(300, 300 + MAX_DENIALS)
        )
    ),
    hosts=keys_of(*map(identity, range(400, 400 + MAX_HOSTS))),
    previous=b"p" * 32,
)


def raw_key(challenge: bytes, kind: str = POLICY_TYPE) -> bytes:
    """The encoding of a key whose challenge nobody checked."""
    return cbor2.dumps(["key", "sample", OWNER.peer_id, NOW, challenge, kind, b"s" * 64], canonical=True)


@pytest.mark.parametrize("policy", [Policy(revision=1), Policy(revision=7, open=True, allow=keys_of(ISSUER)), FULL])
def test_a_policy_survives_in_a_key(policy: Policy) -> None:
    key = decode_key(encode(a_key(policy=policy)))
    assert key.policy == policy
    assert key.revision == policy.revision


def test_a_policy_with_all_lists_full_fits_into_a_challenge() -> None:
    assert len(encode_policy(FULL)) <= MAX_POLICY


@pytest.mark.parametrize("kind", ["", "any other", "Policy/1", "a policy/1"])
def test_any_other_challenge_leaves_a_resource_open(kind: str) -> None:
    key = decode_key(raw_key(b"\xff", kind))
    assert key.policy is None
    assert key.revision == 0


def test_of_a_later_version_the_revision_is_read() -> None:
    key = decode_key(raw_key(cbor2.dumps([5, "what", {"nobody": "knows"}]), "policy/2"))
    assert key.revision == 5
    assert key.order() > a_key(policy=Policy(revision=4)).order()


FIELDS = msgspec.to_builtins(Policy(revision=1, allow=keys_of(ISSUER)), builtin_types=(bytes,))


def with_field(position: int, value: object) -> bytes:
    return cbor2.dumps([*FIELDS[:position], value, *FIELDS[position + 1 :]], canonical=True)


@pytest.mark.parametrize(
    ("challenge", "kind", "code"),
    [
        (b"", POLICY_TYPE, Code.POLICY_FORM),
        (b"\xff", POLICY_TYPE, Code.POLICY_FORM),
        (cbor2.dumps({"revision": 1}), POLICY_TYPE, Code.POLICY_FORM),
        (cbor2.dumps([*FIELDS, 1]), POLICY_TYPE, Code.POLICY_UNKNOWN_FIELDS),
        (cbor2.dumps(FIELDS[:-1]), POLICY_TYPE, Code.POLICY_FORM),
        (b"\x98\x08" + cbor2.dumps(FIELDS)[1:], POLICY_TYPE, Code.POLICY_FORM),
        (cbor2.dumps(FIELDS) + b"\x00", POLICY_TYPE, Code.POLICY_FORM),
        (with_field(0, 0), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(0, MAX_REVISION + 1), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(0, True), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(1, 1), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(2, [b"short"]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(2, [b"b" * 32, b"a" * 32]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(2, [b"a" * 32] * 2), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(2, [bytes([number]) * 32 for number in range(25)]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(3, [bytes([number]) * 32 for number in range(25)]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(4, [[bytes([number]) * 32, b"", 1] for number in range(25)]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(4, [[b"a" * 32, b"", 1], [b"a" * 32, b"", 2]]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(4, [[b"a" * 32, b"", -1]]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(4, [[b"a" * 32, b"h", 1]]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(4, [[public_key(OWNER), ANY_HOST, 1]]), POLICY_TYPE, Code.POLICY_LOCKS_OWNER_OUT),
        (with_field(4, [[public_key(OWNER), public_key(HOST), 1]]), POLICY_TYPE, Code.POLICY_LOCKS_OWNER_OUT),
        (with_field(5, [bytes([number]) * 32 for number in range(9)]), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(6, 4), POLICY_TYPE, Code.POLICY_FORM),
        (with_field(7, b"p"), POLICY_TYPE, Code.POLICY_FORM),
        (cbor2.dumps([0]), "policy/2", Code.POLICY_FORM),
        (cbor2.dumps([]), "policy/2", Code.POLICY_FORM),
        (cbor2.dumps(FIELDS), "policy/01", Code.POLICY_FORM),
        (cbor2.dumps(FIELDS), "policy/", Code.POLICY_FORM),
    ],
)
def test_a_malformed_policy_makes_the_key_invalid(challenge: bytes, kind: str, code: Code) -> None:
    for make in (
        lambda: decode_key(raw_key(challenge, kind)),
        lambda: Key("a", OWNER.peer_id, 1, challenge, kind, b""),
    ):
        with pytest.raises(InvalidPolicy) as raised:
            make()
        assert raised.value.code is code
        assert str(raised.value)


@given(challenge=st.binary(max_size=300), kind=st.sampled_from((POLICY_TYPE, "policy/2", "policy/x")))
def test_no_challenge_raises_anything_else(challenge: bytes, kind: str) -> None:
    try:
        key = decode_key(raw_key(challenge, kind))
    except InvalidValue:
        return
    assert key.revision > 0


POLICIES = [
    None,
    *(Policy(revision=revision, allow=allow) for revision in (1, 2) for allow in ((), keys_of(ISSUER), keys_of(HOST))),
]
KEYS = st.builds(
    lambda policy, created: a_key(created=NOW + created, policy=policy), st.sampled_from(POLICIES), st.integers(0, 3)
)
KEY_TOMBSTONES = st.builds(
    lambda issued, revision: a_key_tombstone(issued=NOW + issued, revision=revision),
    st.integers(0, 3),
    st.integers(0, 3),
)
STATES = [
    *(a_record(a_key().id, ISSUER, HOST, NOW + second) for second in range(4)),
    *(a_tombstone(a_key().id, ISSUER, HOST, NOW + second) for second in (1, 3)),
    a_record(a_key().id, STRANGER, HOST, NOW + 2),
]
RESOURCES = st.builds(
    lambda key, states, ended: ResourceState.of(key, states, *ended),
    st.none() | KEYS,
    st.lists(st.sampled_from(STATES), max_size=4),
    st.lists(KEY_TOMBSTONES, max_size=3),
)


@given(a=RESOURCES, b=RESOURCES, c=RESOURCES)
def test_merging_is_a_join_with_policies_and_removals_too(a: ResourceState, b: ResourceState, c: ResourceState) -> None:
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, a) == a
    assert merged(merged(a, b), b) == merged(a, b)


@given(keys=st.lists(KEYS, min_size=1, max_size=4), later=st.integers(1, 4), which=st.integers(0, 3))
def test_signing_a_key_anew_never_changes_which_policy_wins(keys: Sequence[Key], later: int, which: int) -> None:
    renewed = keys[which % len(keys)]
    anew = msgspec.structs.replace(renewed, timestamp_created=renewed.timestamp_created + later)
    before = max(keys, key=Key.order)
    after = max((*keys, anew), key=Key.order)
    assert before.policy == after.policy


@given(keys=st.lists(KEYS, min_size=1, max_size=5), ended=KEY_TOMBSTONES)
def test_a_removal_ends_a_lower_set_of_keys(keys: Sequence[Key], ended: KeyTombstone) -> None:
    killed = [ended.kills_key(key) for key in sorted(keys, key=Key.order)]
    assert killed == sorted(killed, reverse=True)


@given(ended=st.lists(KEY_TOMBSTONES, min_size=1, max_size=6), key=KEYS)
def test_the_two_removals_kept_end_whatever_any_ended(ended: Sequence[KeyTombstone], key: Key) -> None:
    kept = kept_key_tombstones(ended)
    assert len(kept) <= 2
    assert any(one.kills_key(key) for one in kept) == any(one.kills_key(key) for one in ended)
    for state in STATES:
        assert any(one.kills(state) for one in kept) == any(one.kills(state) for one in ended)


def test_a_policy_outranks_whatever_has_none_however_late() -> None:
    policy, late = a_key(policy=Policy(revision=1)), a_key(created=NOW + 1000)
    assert greater_key(policy, late) == greater_key(late, policy) == policy


def test_a_removal_without_a_revision_is_encoded_and_signed_as_before_there_were_any() -> None:
    plain, of_policy = a_key_tombstone(), a_key_tombstone(revision=3)
    assert len(cbor2.loads(encode(plain))) == 6
    assert decode_key_or_tombstone(encode(plain)) == plain
    assert decode_key_or_tombstone(encode(of_policy)) == of_policy
    assert key_tombstone_is_genuine(of_policy)
    assert not key_tombstone_is_genuine(msgspec.structs.replace(of_policy, revision=4)), "the revision is signed"
    assert not key_tombstone_is_genuine(msgspec.structs.replace(of_policy, revision=0)), "and can't be left out"
