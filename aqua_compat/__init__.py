"""The original Registry's interface over this network: `connect` or `node`, then its functions by their names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aqua_compat.api import AquaClient
    from aqua_compat.connections import connect, node
    from aqua_compat.constants import Constants
    from aqua_compat.particles.settings import AquaSettings
    from aqua_compat.services.errors import NoProvider, NotRegistered, ServiceError
    from aqua_compat.services.picking import Strategy
    from aqua_compat.services.serving import ServiceLimits, caller
    from aqua_compat.settings import Settings
    from overlay.identity import Identity, load_or_create_identity
    from overlay.settings import OverlaySettings
    from registry.settings import NodeSettings, RegistrySettings
    from registry.values import Key, Record, RecordMetadata
    from registry.watching.event import EventKind, WatchEvent
    from registry.watching.watch import Watch

__all__ = [
    "AquaClient",
    "AquaSettings",
    "Constants",
    "EventKind",
    "Identity",
    "Key",
    "NoProvider",
    "NodeSettings",
    "NotRegistered",
    "OverlaySettings",
    "Record",
    "RecordMetadata",
    "RegistrySettings",
    "ServiceError",
    "ServiceLimits",
    "Settings",
    "Strategy",
    "Watch",
    "WatchEvent",
    "caller",
    "connect",
    "load_or_create_identity",
    "node",
]

_HOMES = {
    "AquaClient": "aqua_compat.api",
    "AquaSettings": "aqua_compat.particles.settings",
    "Constants": "aqua_compat.constants",
    "EventKind": "registry.watching.event",
    "Identity": "overlay.identity",
    "Key": "registry.values",
    "NoProvider": "aqua_compat.services.errors",
    "NodeSettings": "registry.settings",
    "NotRegistered": "aqua_compat.services.errors",
    "OverlaySettings": "overlay.settings",
    "Record": "registry.values",
    "RecordMetadata": "registry.values",
    "RegistrySettings": "registry.settings",
    "ServiceError": "aqua_compat.services.errors",
    "ServiceLimits": "aqua_compat.services.serving",
    "Settings": "aqua_compat.settings",
    "Strategy": "aqua_compat.services.picking",
    "Watch": "registry.watching.watch",
    "WatchEvent": "registry.watching.event",
    "caller": "aqua_compat.services.serving",
    "connect": "aqua_compat.connections",
    "load_or_create_identity": "overlay.identity",
    "node": "aqua_compat.connections",
}


def __getattr__(name: str) -> object:
    # On first use, so that the command line's help doesn't wait for what it doesn't need.
    if name not in _HOMES:
        raise AttributeError(f"module 'aqua_compat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
