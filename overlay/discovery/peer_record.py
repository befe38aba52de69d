"""Where a peer can be reached at present, as it said itself; `overlay.libp2p.signed_peer_record` signs and opens it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

MAX_BYTES: Final = 4096
"""Bytes of a sealed record."""


class BadPeerRecord(ValueError):
    """The bytes are no signed peer record that counts here."""


class PeerRecord(Struct, frozen=True):
    """What a peer said of where it can be reached: directly, and through peers that relay calls to it."""

    peer_id: str
    addresses: tuple[str, ...]
    """Multiaddrs to dial."""
    relays: tuple[str, ...]
    """Ids of peers that it is connected to."""
    relay_addresses: tuple[tuple[str, str], ...]
    """(relay, multiaddr at which it can be dialled)."""
    sequence: int
    """Orders the records of one peer: microseconds since 1970 by its clock."""
    sealed: bytes
    """The signed record as it is sent."""


OpenPeerRecord = Callable[[bytes], PeerRecord]
"""The record in sealed bytes, verified to be signed by the peer that it is of. Raises `BadPeerRecord`."""
