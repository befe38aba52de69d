"""Positions of resources and peers, by sha256, and what is near to them under the XOR metric (Kademlia).

The same positions as the original's `kad.neighborhood`, so that Aqua clients and ours find the same peers:
a resource is at sha256(0x12, varint(length), utf8(resource id)), a peer at sha256(peer id bytes).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

import base58

from overlay.errors import PeerIdError

POSITION_BITS = 256
POSITION_BYTES = POSITION_BITS // 8

_SHA2_256_MULTICODEC = 0x12
_LONGEST_PEER_ID = 128


@lru_cache(maxsize=4096)
def resource_position(resource_id: str) -> int:
    """Position of a resource, 0 <= position < 2**256."""
    return wrapped_position(resource_id.encode())


def wrapped_position(name: bytes) -> int:
    """Position of any bytes: they are wrapped as if they were a SHA2-256 digest, not hashed first (as the original)."""
    return multihash_position(bytes([_SHA2_256_MULTICODEC]) + _varint(len(name)) + name)


def multihash_position(multihash: bytes) -> int:
    """Position of a multihash, 0 <= position < 2**256."""
    return int.from_bytes(sha256(multihash).digest(), "big")


@lru_cache(maxsize=16384)
def peer_position(peer_id: str) -> int:
    """Position of a peer by its base58 id, 0 <= position < 2**256. Raises `PeerIdError` for what isn't base58, or is
    another spelling of an id."""
    if not 0 < len(peer_id) <= _LONGEST_PEER_ID:  # decoding base58 is quadratic
        raise PeerIdError(f"a peer id has 1 to {_LONGEST_PEER_ID} characters, not {len(peer_id)}")
    try:
        raw = base58.b58decode(peer_id)
    except ValueError as error:
        raise PeerIdError(f"{peer_id!r} isn't base58") from error
    if base58.b58encode(raw).decode("ascii") != peer_id:
        raise PeerIdError(f"{peer_id!r} isn't as base58 writes it")
    return int.from_bytes(sha256(raw).digest(), "big")


def nearest(target: int, peer_ids: Iterable[str], count: int) -> list[str]:
    """The `count` peers nearest to `target`, nearest first; a peer that is given twice is in the result once."""
    at = {peer_position(peer_id) ^ target: peer_id for peer_id in peer_ids}
    return [at[distance] for distance in sorted(at)[:count]]


def _varint(number: int) -> bytes:
    """Unsigned LEB128, as multihashes write lengths."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
