"""A particle as a value, its signature, and its form on the wire."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from aqua_compat.particles.errors import BadParticle
from overlay.errors import PeerIdError
from overlay.identity import Identity, verify

PROTOCOL: Final = "/fluence/particle/2.0.0"
MSGPACK: Final = b"\x81\x04"
"""Before MessagePack on the wire and in the interpreter: its multicodec 0x201 as an unsigned varint."""

_SIGNATURE_BYTES: Final = 64
LONGEST_PREFIX: Final = 5  # bytes of a varint that a length may take

_AT_ONCE: Final = 2048  # bytes of an array of numbers

Numbers = list[Annotated[int, Meta(ge=0, le=255)]]
ParticleKey = tuple[str, str, bytes]
"""Initiator, id and signature. Several particles can have the same signature: what is signed has no lengths in it."""

PeerIdText = Annotated[str, Meta(min_length=1, max_length=64)]


class Particle(Struct, frozen=True, kw_only=True):
    """A script on its way. `signature` is the initiator's over everything but `data`, which each peer adds to.

    `timestamp` and `ttl` are milliseconds; a particle is expired after their sum.
    """

    id: str
    init_peer_id: str
    timestamp: int
    ttl: int
    script: str
    signature: bytes
    data: bytes

    def signed_bytes(self) -> bytes:
        """What the initiator signs."""
        return b"".join(
            (self.id.encode(), struct.pack("<Q", self.timestamp), struct.pack("<I", self.ttl), self.script.encode())
        )

    @property
    def key(self) -> ParticleKey:
        """What tells it from every other particle."""
        return self.init_peer_id, self.id, self.signature

    def is_genuine(self) -> bool:
        """Whether its initiator signed it."""
        try:
            return verify(self.init_peer_id, self.signed_bytes(), self.signature)
        except PeerIdError:
            return False

    def is_same(self, other: Particle) -> bool:
        """Whether all but the data is the same."""
        return (self.id, self.init_peer_id, self.timestamp, self.ttl, self.script) == (
            other.id,
            other.init_peer_id,
            other.timestamp,
            other.ttl,
            other.script,
        )

    @property
    def expires(self) -> float:
        """When it ends, in seconds since 1970."""
        return (self.timestamp + self.ttl) / 1000

    def with_data(self, data: bytes) -> Particle:
        """The same particle with other data."""
        return msgspec.structs.replace(self, data=data)


class _Wire(Struct, frozen=True, kw_only=True):
    action: Literal["Particle"]
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    init_peer_id: PeerIdText
    timestamp: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    ttl: Annotated[int, Meta(ge=0, lt=2**32)]
    script: str
    # The original's client sends arrays of numbers and takes only binaries.
    signature: bytes | Annotated[Numbers, Meta(max_length=_SIGNATURE_BYTES)]
    data: msgspec.Raw


_DECODER: Final = msgspec.msgpack.Decoder(_Wire)
_BYTES: Final = msgspec.msgpack.Decoder(bytes)
_NUMBERS: Final = msgspec.msgpack.Decoder(Numbers)
_ENCODER: Final = msgspec.msgpack.Encoder()


def sign(identity: Identity, *, particle_id: str, timestamp: int, ttl: int, script: str, data: bytes = b"") -> Particle:
    """A particle that `identity` starts."""
    unsigned = Particle(
        id=particle_id,
        init_peer_id=identity.peer_id,
        timestamp=timestamp,
        ttl=ttl,
        script=script,
        signature=b"",
        data=data,
    )
    return msgspec.structs.replace(unsigned, signature=identity.sign(unsigned.signed_bytes()))


def encode(particle: Particle) -> bytes:
    """The particle as a message, without the length before it."""
    wire = {"action": "Particle", **msgspec.structs.asdict(particle)}
    return MSGPACK + _ENCODER.encode(wire)


def decode(message: bytes, max_script: int) -> tuple[Particle, Iterator[bytes]]:
    """(particle without data, the data in pieces) out of a message, in form only. Raises BadParticle, as pieces do.

    4 MiB of data as an array of numbers take a tenth of a second, a piece of it none that others would notice.
    """
    if not message.startswith(MSGPACK):
        raise BadParticle("malformed", "the message isn't in MessagePack")
    try:
        wire = _DECODER.decode(memoryview(message)[len(MSGPACK) :])
        signature = bytes(wire.signature)
        script_size = len(wire.script.encode())
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise _malformed(error) from error
    if len(signature) != _SIGNATURE_BYTES:
        raise BadParticle("malformed", f"a signature has {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    if script_size > max_script:
        raise BadParticle("too large", f"a script of {script_size} bytes, more than {max_script}")
    particle = Particle(
        id=wire.id,
        init_peer_id=wire.init_peer_id,
        timestamp=wire.timestamp,
        ttl=wire.ttl,
        script=wire.script,
        signature=signature,
        data=b"",
    )
    return particle, _in_pieces(memoryview(wire.data))


def _in_pieces(encoded: memoryview) -> Iterator[bytes]:
    """What a binary or an array of numbers in MessagePack says."""
    head = {0xDC: 3, 0xDD: 5}.get(encoded[0], 1 if 0x90 <= encoded[0] <= 0x9F else 0)
    try:
        if not head:
            yield _BYTES.decode(encoded)
            return
        while head < len(encoded):
            piece = bytes(encoded[head : head + _AT_ONCE])
            # A number above 127 has 0xCC before it. An odd run of those at the end begins one that ends in the next.
            if (len(piece) - len(piece.rstrip(b"\xcc"))) % 2:
                piece = bytes(encoded[head : head + len(piece) + 1])
            count = len(piece) - piece.count(b"\xcc") + piece.count(b"\xcc\xcc")
            yield bytes(_NUMBERS.decode(b"\xdd" + count.to_bytes(4, "big") + piece))
            head += len(piece)
    except msgspec.MsgspecError as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> BadParticle:
    return BadParticle("malformed", f"not a particle: {str(error)[:200]}")


def framed(message: bytes) -> bytes:
    """The message with its length before it, as it is written to a stream."""
    length, prefix = len(message), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + message


def parse_length(start: bytes) -> tuple[int, int] | None:
    """(length of the message, bytes that say so); None when more bytes are needed. Raises BadParticle."""
    length = 0
    for position, byte in enumerate(start[:LONGEST_PREFIX]):
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return length, position + 1
    if len(start) >= LONGEST_PREFIX:
        raise BadParticle("malformed", "the length of the message is no varint of at most 5 bytes")
    return None
