"""Peers, addresses, keyspace and calls: the network as everything above it sees it. It has never heard of a record."""

from overlay.discovery.keyspace import nearest, peer_position, resource_position
from overlay.errors import (
    AddressError,
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    IdentityError,
    NoSuchMethod,
    OverlayError,
    Overloaded,
    PeerIdError,
    ProtocolError,
    ProtocolNotSupported,
    Refusal,
    Unreachable,
)
from overlay.identity import Identity, load_or_create_identity, public_key_of, verify
from overlay.peer import OverlayPeer, OverlayStatistics, open_peer
from overlay.settings import CallLimits, OverlaySettings

__all__ = [
    "AddressError",
    "BodyTooLarge",
    "CallFailed",
    "CallLimits",
    "CallRefused",
    "CallTimeout",
    "Identity",
    "IdentityError",
    "NoSuchMethod",
    "OverlayError",
    "OverlayPeer",
    "OverlaySettings",
    "OverlayStatistics",
    "Overloaded",
    "PeerIdError",
    "ProtocolError",
    "ProtocolNotSupported",
    "Refusal",
    "Unreachable",
    "load_or_create_identity",
    "nearest",
    "open_peer",
    "peer_position",
    "public_key_of",
    "resource_position",
    "verify",
]
