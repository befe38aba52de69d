"""What is signed, byte for byte."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity, verify
from registry.model.signing import key_digest, key_id_of, metadata_digest, record_digest, tombstone_digest
from registry.model.values import Key, Record, RecordMetadata, Tombstone
from registry.model.verification import key_is_genuine, record_is_genuine, tombstone_is_genuine
from tests.paths import DATA
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER, a_key, a_metadata, a_record, a_tombstone

VECTORS = json.loads((DATA / "signing-vectors.json").read_text())
PEERS = st.sampled_from([OWNER.peer_id, ISSUER.peer_id, HOST.peer_id])
SECONDS = st.integers(0, 2**40)
TEXT = st.text(max_size=300)
BYTES = st.binary(max_size=300)
OPTION = st.lists(TEXT, max_size=1).map(tuple)
FIELDS = {
    key_digest: st.tuples(TEXT, PEERS, SECONDS, BYTES, TEXT),
    metadata_digest: st.tuples(TEXT, PEERS, PEERS, SECONDS, BYTES, TEXT, OPTION, OPTION),
    tombstone_digest: st.tuples(TEXT, PEERS, PEERS, SECONDS, BYTES),
    record_digest: st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=64), SECONDS),
}
SIGNABLE = st.one_of(*(fields.map(lambda args, sign=sign: (sign, args)) for sign, fields in FIELDS.items()))


def len8(field: bytes) -> bytes:
    return bytes([len(field)]) + field


def len32(field: bytes) -> bytes:
    return len(field).to_bytes(4, "little") + field


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def key_of(vector: dict[str, object]) -> Key:
    return Key(
        vector["label"],
        vector["owner_peer_id"],
        vector["timestamp_created"],
        bytes(vector["challenge"]),
        vector["challenge_type"],
        bytes(vector["signature"]),
    )


def record_of(vector: dict[str, object]) -> Record:
    fields = dict(vector["metadata"])
    for name in ("solution", "issuer_signature"):
        fields[name] = bytes(fields[name])
    for name in ("relay_id", "service_id"):
        fields[name] = tuple(fields[name])
    return Record(RecordMetadata(**fields), vector["timestamp_created"], bytes(vector["signature"]))


def tombstone_of(vector: dict[str, object]) -> Tombstone:
    fields = dict(vector)
    for name in ("solution", "issuer_signature"):
        fields[name] = bytes(fields[name])
    return Tombstone(**fields)


@pytest.mark.parametrize("vector", VECTORS["peers"], ids=lambda vector: vector["peer_id"][-4:])
def test_peer_ids_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    assert Identity.from_seed(bytes.fromhex(vector["seed_hex"])).peer_id == vector["peer_id"]


@pytest.mark.parametrize("vector", VECTORS["keys"])
def test_key_signs_as_its_vector(vector: dict[str, object]) -> None:
    key = key_of(vector)
    assert key.id == vector["id"]
    assert key.signed_bytes().hex() == vector["digest"]
    assert key_is_genuine(key)
    assert signer(key.owner_peer_id).sign(key.signed_bytes()) == key.signature


@pytest.mark.parametrize("vector", VECTORS["records"])
def test_record_signs_as_its_vector(vector: dict[str, object]) -> None:
    record = record_of(vector["record"])
    assert record.metadata.signed_bytes().hex() == vector["metadata_digest"]
    assert record.signed_bytes().hex() == vector["record_digest"]
    assert record_is_genuine(record)
    assert signer(record.metadata.issued_by).sign(record.metadata.signed_bytes()) == record.metadata.issuer_signature
    assert signer(record.metadata.peer_id).sign(record.signed_bytes()) == record.signature


@pytest.mark.parametrize("vector", VECTORS["tombstones"])
def test_tombstone_signs_as_its_vector(vector: dict[str, object]) -> None:
    tombstone = tombstone_of(vector["tombstone"])
    assert tombstone.signed_bytes().hex() == vector["digest"]
    assert tombstone_is_genuine(tombstone)
    assert signer(tombstone.issued_by).sign(tombstone.signed_bytes()) == tombstone.issuer_signature


def signer(peer_id: str) -> Identity:
    (seed,) = (peer["seed_hex"] for peer in VECTORS["peers"] if peer["peer_id"] == peer_id)
    return Identity.from_seed(bytes.fromhex(seed))


def test_fields_of_255_bytes_keep_the_original_layout() -> None:
    label, owner, challenge = b"l" * 255, OWNER.peer_id.encode(), b"c" * 255
    original = sha256(len8(label) + len8(owner) + u64(7) + len8(challenge) + len8(b"type")).digest()
    assert key_digest(label.decode(), OWNER.peer_id, 7, challenge, "type") == original


def test_key_with_a_long_field_signs_with_wide_lengths_under_its_own_prefix() -> None:
    label, owner = b"l" * 256, OWNER.peer_id.encode()
    expected = b"registry/v2/key:" + len32(label) + len32(owner) + u64(7) + len32(b"ch") + len32(b"type")
    assert key_digest(label.decode(), OWNER.peer_id, 7, b"ch", "type") == sha256(expected).digest()


def test_metadata_with_a_long_field_signs_with_wide_lengths_under_its_own_prefix() -> None:
    key_id, issuer, host, value = b"id", ISSUER.peer_id.encode(), HOST.peer_id.encode(), b"v" * 256
    expected = b"registry/v2/metadata:" + len32(key_id) + len32(issuer) + len32(host) + u64(7) + len32(b"s")
    expected += len32(value) + (1).to_bytes(4, "little") + len32(b"r") + (0).to_bytes(4, "little")
    actual = metadata_digest("id", ISSUER.peer_id, HOST.peer_id, 7, b"s", value.decode(), ("r",), ())
    assert actual == sha256(expected).digest()


def test_a_long_item_of_an_option_widens_every_length() -> None:
    issuer, host, service = ISSUER.peer_id.encode(), HOST.peer_id.encode(), b"s" * 256
    expected = b"registry/v2/metadata:" + len32(b"id") + len32(issuer) + len32(host) + u64(7) + len32(b"") + len32(b"")
    expected += (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + len32(service)
    actual = metadata_digest("id", ISSUER.peer_id, HOST.peer_id, 7, b"", "", (), (service.decode(),))
    assert actual == sha256(expected).digest()


def test_tombstone_with_a_long_field_signs_with_wide_lengths_under_its_own_prefix() -> None:
    issuer, host, solution = ISSUER.peer_id.encode(), HOST.peer_id.encode(), b"s" * 256
    expected = b"registry/v2/tombstone:" + len32(b"id") + len32(issuer) + len32(host) + u64(7) + len32(solution)
    actual = tombstone_digest("id", ISSUER.peer_id, HOST.peer_id, 7, solution)
    assert actual == sha256(expected).digest()


def test_a_short_value_never_signs_as_a_long_one() -> None:
    # A one-byte length of 114 is the letter r: such a label would spell the prefix of the long layout, and a signature
    # of something long, with bytes that an attacker chose, could be passed off as the owner's key.
    label = b"egistry/v2/key:".ljust(114, b"x")
    short = len8(label) + len8(OWNER.peer_id.encode()) + u64(7) + len8(b"") + len8(b"")
    assert short.startswith(b"registry/v2/key:")
    assert key_digest(label.decode(), OWNER.peer_id, 7, b"", "") != sha256(short).digest()
    assert key_digest(label.decode(), OWNER.peer_id, 7, b"", "") == (
        sha256(
            b"registry/v2/key:" + len32(label) + len32(OWNER.peer_id.encode()) + u64(7) + len32(b"") + len32(b"")
        ).digest()
    )


@given(one=SIGNABLE, other=SIGNABLE)
def test_no_two_values_sign_alike(one: tuple[object, tuple], other: tuple[object, tuple]) -> None:
    if one != other:
        assert one[0](*one[1]) != other[0](*other[1])


def test_a_signature_of_one_type_fits_no_other() -> None:
    key = a_key()
    record, tombstone = a_record(key.id), a_tombstone(key.id)
    digests = [key.signed_bytes(), record.metadata.signed_bytes(), record.signed_bytes(), tombstone.signed_bytes()]
    assert len(set(digests)) == 4
    assert not verify(ISSUER.peer_id, tombstone.signed_bytes(), record.metadata.issuer_signature)


@given(text=st.text(min_size=1, max_size=300), other=st.text(max_size=300))
def test_every_byte_of_a_label_and_challenge_counts(text: str, other: str) -> None:
    moved = key_digest(text, OWNER.peer_id, 7, other.encode(), "")
    assert moved != key_digest(text[:-1], OWNER.peer_id, 7, text[-1:].encode() + other.encode(), "")


def test_record_digest_covers_issuer_signature_and_time() -> None:
    metadata = a_metadata("id").signed_bytes()
    digests = {record_digest(metadata, b"a" * 64, NOW), record_digest(metadata, b"b" * 64, NOW)}
    digests |= {record_digest(metadata, b"a" * 64, NOW + 1), record_digest(bytes(32), b"a" * 64, NOW)}
    assert len(digests) == 4


def test_key_id_is_base58_of_label_and_owner() -> None:
    assert key_id_of("sample", VECTORS["peers"][0]["peer_id"]) == VECTORS["keys"][0]["id"]
    assert key_id_of("a", "b") != key_id_of("b", "a")
