"""The original Registry's interface over this network: `connect` or `node`, then its functions by their names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from aqua_compat.api.blocking import BlockingClient
    from aqua_compat.api.client import AquaClient
    from aqua_compat.api.connections import connect, node
    from aqua_compat.particles.settings import AquaSettings
    from aqua_compat.rpc.errors import NoProvider, NotRegistered, NotReported, ServiceError
    from aqua_compat.rpc.load_balancing import Strategy
    from aqua_compat.rpc.server import ServiceLimits, caller
    from aqua_compat.schema.constants import Constants
    from aqua_compat.settings import Settings
    from overlay.identity import Identity, load_or_create_identity
    from overlay.settings import OverlaySettings
    from registry.client.certificate_files import CertificateFiles
    from registry.client.certifying import certify, save_chain, scope_of
    from registry.health.state import HealthState
    from registry.model.endpoints import Endpoint, Instance, write_instances
    from registry.model.owner_index import ListedResource, ResourceStanding
    from registry.model.trusted_issuers import Trusted
    from registry.model.values import Key, Record, RecordMetadata
    from registry.permission.edits import Edit, EditKind
    from registry.settings import NodeSettings, RegistrySettings
    from registry.watch.watch import Watch
    from registry.watch.watch_event import EventKind, WatchEvent

__all__ = [
    "AquaClient",
    "AquaSettings",
    "BlockingClient",
    "CertificateFiles",
    "Constants",
    "Edit",
    "EditKind",
    "Endpoint",
    "EventKind",
    "HealthState",
    "Identity",
    "Instance",
    "Key",
    "ListedResource",
    "NoProvider",
    "NodeSettings",
    "NotRegistered",
    "NotReported",
    "OverlaySettings",
    "Record",
    "RecordMetadata",
    "RegistrySettings",
    "ResourceStanding",
    "ServiceError",
    "ServiceLimits",
    "Settings",
    "Strategy",
    "Trusted",
    "Watch",
    "WatchEvent",
    "__version__",
    "caller",
    "certify",
    "connect",
    "load_or_create_identity",
    "node",
    "save_chain",
    "scope_of",
    "write_instances",
]

_HOMES = {
    "AquaClient": "aqua_compat.api.client",
    "AquaSettings": "aqua_compat.particles.settings",
    "BlockingClient": "aqua_compat.api.blocking",
    "CertificateFiles": "registry.client.certificate_files",
    "Constants": "aqua_compat.schema.constants",
    "Edit": "registry.permission.edits",
    "EditKind": "registry.permission.edits",
    "Endpoint": "registry.model.endpoints",
    "EventKind": "registry.watch.watch_event",
    "HealthState": "registry.health.state",
    "Identity": "overlay.identity",
    "Instance": "registry.model.endpoints",
    "Key": "registry.model.values",
    "ListedResource": "registry.model.owner_index",
    "NoProvider": "aqua_compat.rpc.errors",
    "NodeSettings": "registry.settings",
    "NotRegistered": "aqua_compat.rpc.errors",
    "NotReported": "aqua_compat.rpc.errors",
    "OverlaySettings": "overlay.settings",
    "Record": "registry.model.values",
    "RecordMetadata": "registry.model.values",
    "RegistrySettings": "registry.settings",
    "ResourceStanding": "registry.model.owner_index",
    "ServiceError": "aqua_compat.rpc.errors",
    "ServiceLimits": "aqua_compat.rpc.server",
    "Settings": "aqua_compat.settings",
    "Strategy": "aqua_compat.rpc.load_balancing",
    "Trusted": "registry.model.trusted_issuers",
    "Watch": "registry.watch.watch",
    "WatchEvent": "registry.watch.watch_event",
    "caller": "aqua_compat.rpc.server",
    "certify": "registry.client.certifying",
    "connect": "aqua_compat.api.connections",
    "load_or_create_identity": "overlay.identity",
    "node": "aqua_compat.api.connections",
    "save_chain": "registry.client.certifying",
    "scope_of": "registry.client.certifying",
    "write_instances": "registry.model.endpoints",
}


def __getattr__(name: str) -> object:
    # On first use, so that the command line's help doesn't wait for what it doesn't need.
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("aqua-registry")
    if name not in _HOMES:
        raise AttributeError(f"module 'aqua_compat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
