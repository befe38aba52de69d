"""The original Registry's interface over this network: `connect` or `node`, then its functions by their names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aqua_compat.api import AquaClient
    from aqua_compat.connections import connect, node
    from aqua_compat.constants import Constants
    from aqua_compat.particles.settings import AquaSettings
    from aqua_compat.services.serving import ServiceLimits, caller
    from aqua_compat.settings import Settings

__all__ = ["AquaClient", "AquaSettings", "Constants", "ServiceLimits", "Settings", "caller", "connect", "node"]

_HOMES = {
    "AquaClient": "aqua_compat.api",
    "AquaSettings": "aqua_compat.particles.settings",
    "Constants": "aqua_compat.constants",
    "ServiceLimits": "aqua_compat.services.serving",
    "Settings": "aqua_compat.settings",
    "caller": "aqua_compat.services.serving",
    "connect": "aqua_compat.connections",
    "node": "aqua_compat.connections",
}


def __getattr__(name: str) -> object:
    # On first use, so that the command line's help doesn't wait for what it doesn't need.
    if name not in _HOMES:
        raise AttributeError(f"module 'aqua_compat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
