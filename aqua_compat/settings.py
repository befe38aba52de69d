"""Every setting of a node: those of the registry's layer, and those of this one."""

from __future__ import annotations

from aqua_compat.particles.settings import AquaSettings
from registry.settings import NodeSettings


class Settings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `aqua-registry node` is run with."""

    aqua: AquaSettings = AquaSettings()
    """The door for unmodified Aqua."""
