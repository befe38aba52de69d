"""Particles as values: what is signed, what comes and goes on the wire, and what is refused."""

from __future__ import annotations

import json
from base64 import b64decode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.particles import particle as particle_module
from aqua_compat.particles.errors import BadParticle
from aqua_compat.particles.particle import MSGPACK, Particle, decode, encode, framed, parse_length, sign
from overlay.identity import Identity
from tests.paths import DATA
from tests.unit.aqua_compat.particles.scripts import CLIENT, OTHER, a_particle, decoded

VECTORS = json.loads((DATA / "particle-vectors.json").read_text())
FRAME = b64decode(VECTORS["particle_frame_from_js_client"]["frame_b64"])
DECODED = VECTORS["particle_frame_from_js_client"]["decoded"]
MAX_SCRIPT = 10_000


def from_vector() -> Particle:
    vector = VECTORS["particle_signature"]
    return sign(
        Identity.from_seed(b64decode(vector["secret_b64"])),
        particle_id=vector["id"],
        timestamp=vector["timestamp"],
        ttl=vector["ttl"],
        script=vector["script"],
    )


def test_bytes_that_are_signed_are_the_originals() -> None:
    vector = VECTORS["particle_signature"]
    particle = from_vector()
    assert particle.init_peer_id == vector["peer_id"]
    assert particle.signed_bytes() == b64decode(vector["signed_bytes_b64"])
    assert particle.signature == b64decode(vector["signature_b64"])
    assert particle.is_genuine()


def test_frame_of_the_originals_client_is_read() -> None:
    prefix = parse_length(FRAME[:5])
    assert prefix is not None
    length, start = prefix
    assert length == len(FRAME) - start
    particle = decoded(FRAME[start:], MAX_SCRIPT)
    assert msgspec.structs.asdict(particle) == {
        **{name: value for name, value in DECODED.items() if name != "action"},
        "signature": bytes(DECODED["signature"]),
        "data": bytes(DECODED["data"]),
    }
    assert particle.is_genuine()


def test_what_is_sent_has_binaries_as_the_originals_client_wants() -> None:
    raw = msgspec.msgpack.decode(encode(a_particle(data=b"\1\2"))[len(MSGPACK) :])
    assert raw["action"] == "Particle"
    assert type(raw["signature"]) is bytes
    assert raw["data"] == b"\1\2"


@given(st.text(min_size=1, max_size=20), st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.text(), st.binary())
def test_what_is_sent_is_received(particle_id: str, timestamp: int, ttl: int, script: str, data: bytes) -> None:
    particle = sign(CLIENT, particle_id=particle_id, timestamp=timestamp, ttl=ttl, script=script, data=data)
    message = framed(encode(particle))
    prefix = parse_length(message)
    assert prefix is not None
    assert prefix[0] == len(message) - prefix[1]
    received = decoded(message[prefix[1] :], 10**6)
    assert received == particle
    assert received.is_genuine()


@pytest.mark.parametrize(
    "changes",
    [{"id": "another"}, {"timestamp": 1}, {"ttl": 1}, {"script": "(never)"}, {"init_peer_id": OTHER.peer_id}],
)
def test_changed_particle_isnt_genuine(changes: dict[str, object]) -> None:
    assert not msgspec.structs.replace(a_particle(), **changes).is_genuine()


def test_data_may_change_on_the_way() -> None:
    assert a_particle().with_data(b"more").is_genuine()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_particle_or_refused(message: bytes) -> None:
    for candidate in (message, MSGPACK + message):
        with pytest.raises(BadParticle):
            decoded(candidate, MAX_SCRIPT)


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_frame_with_a_byte_changed_is_refused_or_isnt_genuine_or_has_other_data(position: int, byte: int) -> None:
    message = bytearray(encode(from_vector()))
    message[position % len(message)] = byte
    try:
        particle = decoded(bytes(message), MAX_SCRIPT)
    except BadParticle:
        return
    assert particle.with_data(b"") == from_vector() or not particle.is_genuine()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", "Other"),
        ("id", ""),
        ("id", "x" * 257),
        ("init_peer_id", "x" * 65),
        ("timestamp", -1),
        ("timestamp", 2**63),
        ("ttl", 2**32),
        ("signature", [256] * 64),
        ("signature", [1] * 63),
        ("data", "text"),
        ("data", [[]]),
        ("data", [0] * 5000 + [256]),
        ("data", [0] * 5000 + [-1]),
        ("data", [204] * 5000 + ["a"]),
        ("data", {1: 2}),
        ("data", None),
        ("signature", [1] * 10_000),
    ],
)
def test_field_of_another_form_is_refused(field: str, value: object) -> None:
    raw = {**DECODED, field: value}
    with pytest.raises(BadParticle):
        decoded(MSGPACK + msgspec.msgpack.encode(raw), MAX_SCRIPT)


NUMBERS = st.lists(st.sampled_from([0, 127, 128, 203, 204, 205, 255]) | st.integers(0, 255), max_size=300)


@given(NUMBERS, st.integers(1, 50), st.integers(1, 20))
def test_data_as_numbers_is_the_same_bytes_wherever_it_is_cut(numbers: list[int], times: int, at_once: int) -> None:
    given_data = numbers * times
    message = MSGPACK + msgspec.msgpack.encode({**DECODED, "data": given_data})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(particle_module, "_AT_ONCE", at_once)
        _, pieces = decode(message, MAX_SCRIPT)
        parts = list(pieces)
    assert b"".join(parts) == bytes(given_data)
    assert all(len(part) <= at_once for part in parts)


def test_script_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadParticle, match="script of 11 bytes"):
        decoded(encode(a_particle("x" * 11)), 10)


def test_length_that_is_no_varint_is_refused() -> None:
    assert parse_length(b"\xff\xff\xff\xff") is None
    with pytest.raises(BadParticle):
        parse_length(b"\xff\xff\xff\xff\xff")
