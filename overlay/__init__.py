"""Peers, addresses, keyspace and calls: the network as everything above it sees it. It has never heard of a record."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.assembly import open_peer
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
    from overlay.peer import OverlayPeer, OverlayStatistics
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

_HOMES = {
    "AddressError": "overlay.errors",
    "BodyTooLarge": "overlay.errors",
    "CallFailed": "overlay.errors",
    "CallLimits": "overlay.settings",
    "CallRefused": "overlay.errors",
    "CallTimeout": "overlay.errors",
    "Identity": "overlay.identity",
    "IdentityError": "overlay.errors",
    "NoSuchMethod": "overlay.errors",
    "OverlayError": "overlay.errors",
    "OverlayPeer": "overlay.peer",
    "OverlaySettings": "overlay.settings",
    "OverlayStatistics": "overlay.peer",
    "Overloaded": "overlay.errors",
    "PeerIdError": "overlay.errors",
    "ProtocolError": "overlay.errors",
    "ProtocolNotSupported": "overlay.errors",
    "Refusal": "overlay.errors",
    "Unreachable": "overlay.errors",
    "load_or_create_identity": "overlay.identity",
    "nearest": "overlay.discovery.keyspace",
    "open_peer": "overlay.assembly",
    "peer_position": "overlay.discovery.keyspace",
    "public_key_of": "overlay.identity",
    "resource_position": "overlay.discovery.keyspace",
    "verify": "overlay.identity",
}


def __getattr__(name: str) -> object:
    # On first use, so that commands which only read a key don't wait for libp2p.
    if name not in _HOMES:
        raise AttributeError(f"module 'overlay' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
