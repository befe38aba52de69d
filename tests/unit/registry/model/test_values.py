"""The form of values: judged once, at the edge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from fractions import Fraction

import base58
import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidValue, UnknownKind
from registry.model.decoding import decode_key, decode_metadata, decode_state
from registry.model.fields import MAX_NAME, U63_MAX
from registry.model.values import (
    CACHED_BYTES,
    MAX_BLOB,
    MAX_LABEL,
    MAX_PROOF,
    MAX_VALUE,
    Key,
    Record,
    RecordMetadata,
    Tombstone,
    as_builtins,
    digest_of,
    encode,
)
from registry.permission.policy import is_policy
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER, a_key, a_metadata, a_record, a_tombstone

PEERS = st.sampled_from([OWNER.peer_id, ISSUER.peer_id, HOST.peer_id])
SECONDS = st.integers(0, U63_MAX)
TEXT = st.text(max_size=60)
OPTION = st.lists(TEXT, max_size=1).map(tuple)
SIGNATURE = st.binary(max_size=64)
KINDS = TEXT.filter(lambda kind: not is_policy(kind))
KEYS = st.builds(Key, TEXT, PEERS, SECONDS, st.binary(max_size=60), KINDS, SIGNATURE)
METADATA = st.builds(
    RecordMetadata, TEXT, PEERS, PEERS, SECONDS, st.binary(max_size=60), TEXT, OPTION, OPTION, SIGNATURE
)
RECORDS = st.builds(Record, METADATA, SECONDS, SIGNATURE)
TOMBSTONES = st.builds(Tombstone, TEXT, PEERS, PEERS, SECONDS, st.binary(max_size=60), SIGNATURE)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=70)
    | st.sampled_from([OWNER.peer_id, "key", "record", "metadata", "tombstone", cbor2.undefined, Fraction(1, 2)])
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals()
    | st.builds(cbor2.CBORTag, st.integers(100, 200), st.integers())
    | st.builds(cbor2.CBORSimpleValue, st.integers(0, 19))
)
OBJECTS = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text() | st.integers(), inner, max_size=5)
)
TAGS = st.integers(0, 40) | st.sampled_from([100, 256, 258, 260, 261, 1004, 43000, 55799])
TAGGED = st.builds(
    lambda tag, content: b"\xd9" + tag.to_bytes(2, "big") + content,
    TAGS,
    st.binary(max_size=30) | OBJECTS.map(cbor2.dumps),
)
"""Whatever meaning the codec gives to a tag, on content that needn't fit it."""


def mutated(values: st.SearchStrategy[Key | Record | Tombstone]) -> st.SearchStrategy[object]:
    """The arrays of real values with one element, at any depth, put in the place of another."""

    @st.composite
    def mutate(draw: Callable[[st.SearchStrategy], object]) -> object:
        array = as_builtins(draw(values))
        inner = array[1] if isinstance(array[1], list) and draw(st.booleans()) else array
        place = draw(st.integers(0, len(inner)))
        if place == len(inner) or draw(st.booleans()):
            inner.insert(place, draw(OBJECTS))
        else:
            inner[place] = draw(OBJECTS)
        return array

    return mutate()


@given(key=KEYS)
def test_key_survives_cbor(key: Key) -> None:
    assert decode_key(encode(key)) == key
    assert encode(decode_key(encode(key))) == encode(key)


@given(state=RECORDS | TOMBSTONES)
def test_state_survives_cbor(state: Record | Tombstone) -> None:
    assert decode_state(encode(state)) == state
    assert encode(decode_state(encode(state))) == encode(state)


@given(metadata=METADATA)
def test_metadata_survives_cbor(metadata: RecordMetadata) -> None:
    assert decode_metadata(encode(metadata)) == metadata


def test_value_too_large_for_the_caches_survives_cbor_alike() -> None:
    record = a_record("id", value="v" * (CACHED_BYTES + 1))
    assert decode_state(encode(record)) == record
    assert digest_of(record) == digest_of(decode_state(encode(record)))


def test_encoding_is_the_tagged_array_in_canonical_cbor() -> None:
    tombstone = a_tombstone("id")
    fields = [getattr(tombstone, name) for name in Tombstone.__struct_fields__]
    assert encode(tombstone) == cbor2.dumps(["tombstone", *fields], canonical=True)


def test_an_encoding_in_another_form_becomes_the_same_value_with_the_same_digest() -> None:
    tombstone = a_tombstone("id")
    # An array whose length takes a byte more than it must is the same array.
    items = as_builtins(tombstone)
    loose = b"\x98" + bytes([len(items)]) + b"".join(map(cbor2.dumps, items))
    assert loose != encode(tombstone)
    assert digest_of(decode_state(loose)) == digest_of(tombstone)


@given(one=KEYS | RECORDS | TOMBSTONES, other=KEYS | RECORDS | TOMBSTONES)
def test_digests_differ_where_values_do(one: Key | Record | Tombstone, other: Key | Record | Tombstone) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)


@given(raw=OBJECTS | mutated(KEYS) | mutated(RECORDS) | mutated(TOMBSTONES))
def test_any_object_parses_or_is_an_invalid_value(raw: object) -> None:
    for decode in (decode_key, decode_state, decode_metadata):
        try:
            value = decode(cbor2.dumps(raw))
        except InvalidValue:
            continue
        assert encode(value)


@given(blob=st.binary(max_size=200) | OBJECTS.map(cbor2.dumps) | TAGGED)
def test_any_bytes_decode_or_are_an_invalid_value(blob: bytes) -> None:
    for decode in (decode_key, decode_state, decode_metadata):
        try:
            value = decode(blob)
        except InvalidValue:
            continue
        assert encode(value)


@given(state=RECORDS | TOMBSTONES, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_damaged_encoding_decodes_or_is_an_invalid_value(state: Record | Tombstone, at: int, byte: int) -> None:
    blob = bytearray(encode(state))
    blob[at % len(blob)] = byte
    try:
        value = decode_state(bytes(blob))
    except InvalidValue:
        return
    assert encode(value)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x81" * 20_000 + b"\x00",  # nested too deeply
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # an array that claims 2**64 - 1 items
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",  # bytes that claim 8 EiB
        b"\xd8\x1c\x81\xd8\x1d\x00",  # an array that holds itself
        b"\xc0\x60",  # a date that is none
        b"\xd8\x23\x61\x28",  # a regular expression that is none
        b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",  # a decimal with an enormous exponent
        b"\xd8\x1e\x82\x01\x00",  # a fraction by zero
        b"\x62\xff\xff",  # text that isn't UTF-8
        b"\xc2\x59\x40\x00" + b"\xff" * 0x4000,  # a number of 39,000 digits
        encode(a_tombstone("id"))[:-1],
        b"\x00" * (MAX_BLOB + 1),
    ],
)
def test_hostile_cbor_is_an_invalid_value(blob: bytes) -> None:
    for decode in (decode_key, decode_state, decode_metadata):
        with pytest.raises(InvalidValue):
            decode(blob)


def test_bytes_given_as_text_are_invalid() -> None:
    array = as_builtins(a_tombstone("id"))
    array[-1] = "aGk="
    with pytest.raises(InvalidValue, match="bytes"):
        decode_state(cbor2.dumps(array))


def test_a_key_is_no_state_and_a_state_no_key() -> None:
    with pytest.raises(InvalidValue):
        decode_state(cbor2.dumps(as_builtins(a_key())))
    with pytest.raises(InvalidValue):
        decode_key(cbor2.dumps(as_builtins(a_tombstone("id"))))


KEY, TOMBSTONE, RECORD = a_key(), a_tombstone("id"), a_record("id")
VALUES = {"key": KEY, "metadata": RECORD.metadata, "record": RECORD, "tombstone": TOMBSTONE}
TEXT_LIMITS = [
    ("key", "label", MAX_LABEL),
    ("key", "challenge_type", MAX_NAME),
    ("metadata", "value", MAX_VALUE),
    ("metadata", "key_id", MAX_NAME),
    ("tombstone", "key_id", MAX_NAME),
]
BYTE_LIMITS = [
    ("key", "challenge", MAX_PROOF),
    ("key", "signature", 64),
    ("metadata", "solution", MAX_PROOF),
    ("metadata", "issuer_signature", 64),
    ("record", "signature", 64),
    ("tombstone", "solution", MAX_PROOF),
    ("tombstone", "issuer_signature", 64),
]
TIMES = [("key", "timestamp_created"), ("metadata", "timestamp_issued"), ("record", "timestamp_created")]
TIMES += [("tombstone", "timestamp_issued")]
PEER_FIELDS = [("key", "owner_peer_id"), ("metadata", "issued_by"), ("metadata", "peer_id")]
PEER_FIELDS += [("tombstone", "issued_by"), ("tombstone", "peer_id")]


def with_field(name: str, field: str, content: object) -> object:
    return msgspec.structs.replace(VALUES[name], **{field: content})


@pytest.mark.parametrize(("name", "field", "limit"), TEXT_LIMITS)
def test_text_is_bounded_in_bytes(name: str, field: str, limit: int) -> None:
    assert with_field(name, field, "x" * limit)
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, "x" * (limit + 1))
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, "ä" * (limit // 2 + 1))


@pytest.mark.parametrize(("name", "field", "limit"), BYTE_LIMITS)
def test_bytes_are_bounded(name: str, field: str, limit: int) -> None:
    assert with_field(name, field, b"x" * limit)
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, b"x" * (limit + 1))


@pytest.mark.parametrize(("name", "field"), TIMES)
def test_times_are_from_1970_and_below_2_to_the_63(name: str, field: str) -> None:
    assert with_field(name, field, 0)
    assert with_field(name, field, U63_MAX)
    for bad in (-1, U63_MAX + 1, 2**64, 10**5000, 1.0, True, "1", None):
        with pytest.raises(InvalidValue, match=field):
            with_field(name, field, bad)


@pytest.mark.parametrize(("name", "field"), PEER_FIELDS)
@pytest.mark.parametrize(
    "bad",
    [
        "",
        "not a peer id",
        OWNER.peer_id[:-1],
        OWNER.peer_id + "1",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # an RSA key's: hashed, so it holds no public key
        base58.b58encode(bytes.fromhex("002508021221") + bytes(33)).decode(),  # a secp256k1 key's
        "1" * 100_000,
        "\udcff",
        b"bytes",
        None,
    ],
)
def test_peer_ids_must_be_those_of_ed25519_keys(name: str, field: str, bad: object) -> None:
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, bad)


@pytest.mark.parametrize("field", ["relay_id", "service_id"])
def test_options_hold_no_or_one_string_of_any_utf_8(field: str) -> None:
    for good in ((), ("",), ("some_relay",), ("ä" * (MAX_NAME // 2),)):
        assert getattr(with_field("metadata", field, good), field) == good
    for bad in (("a", "b"), ("x" * (MAX_NAME + 1),), ["a"], "a", None, (1,), (b"a",), ("\ud800",)):
        with pytest.raises(InvalidValue, match=field):
            with_field("metadata", field, bad)


@pytest.mark.parametrize(("name", "field", "_limit"), TEXT_LIMITS)
@pytest.mark.parametrize("bad", ["\ud800", b"bytes", 1, None])
def test_text_is_utf_8(name: str, field: str, _limit: int, bad: object) -> None:
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, bad)


@pytest.mark.parametrize(("name", "field", "_limit"), BYTE_LIMITS)
@pytest.mark.parametrize("bad", ["text", bytearray(b"x"), [1], None])
def test_bytes_are_bytes(name: str, field: str, _limit: int, bad: object) -> None:
    with pytest.raises(InvalidValue, match=field):
        with_field(name, field, bad)


def test_a_record_holds_metadata() -> None:
    with pytest.raises(InvalidValue, match="metadata"):
        Record(as_builtins(RECORD.metadata), NOW, b"")


@pytest.mark.parametrize("name", VALUES)
def test_values_are_immutable(name: str) -> None:
    value = VALUES[name]
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], "other")


def test_zero_bytes_and_empty_text_are_kept() -> None:
    metadata = a_metadata("\x00", value="\x00\n", relay_id=("",), service_id=("\x00",))
    assert decode_metadata(encode(metadata)) == metadata


def test_key_id_depends_on_label_and_owner_alone() -> None:
    assert a_key(created=NOW).id == a_key(created=NOW + 1, challenge=b"c").id
    assert a_key("one").id != a_key("other").id
    assert a_key(owner=OWNER).id != a_key(owner=ISSUER).id


@given(state=RECORDS | TOMBSTONES)
def test_elements_beyond_a_values_fields_are_refused(state: Record | Tombstone) -> None:
    raw = as_builtins(state)
    with pytest.raises(UnknownKind):
        decode_state(cbor2.dumps([*raw, 0]))
    if isinstance(state, Record):
        metadata = [*as_builtins(state.metadata), b""]
        with pytest.raises(UnknownKind):
            decode_state(cbor2.dumps([raw[0], metadata, *raw[2:]]))


@given(state=RECORDS | TOMBSTONES, kind=st.text())
def test_what_a_later_version_may_write_is_told_from_bad_form(state: Record | Tombstone, kind: str) -> None:
    raw = as_builtins(state)
    with pytest.raises(UnknownKind):
        decode_state(cbor2.dumps([f"{kind}/2", *raw[1:]]))
    for bad in (raw[:-1], [*raw[:-1], 1.5], raw[:1], [], [1, *raw], None, raw[0], as_builtins(a_key())):
        with pytest.raises(InvalidValue) as refused:
            decode_state(cbor2.dumps(bad))
        assert refused.type is InvalidValue
