"""Every setting of a node: those of the registry's layer, and those of this one."""

from __future__ import annotations

from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.settings import AgentSettings
from aqua_compat.particles.settings import AquaSettings
from registry.settings import NodeSettings


class Settings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `aqua-registry node` is run with."""

    aqua: AquaSettings = AquaSettings()
    """How the node serves unmodified Aqua."""
    agent: AgentSettings = AgentSettings()
    """How the node is the agent of its machine."""
    service: tuple[ServiceForm, ...] = ()
    """Services of this machine, each as in a service file: `[[service]]`."""


def aqua_settings_of(settings: NodeSettings) -> AquaSettings:
    """How a node with these settings serves unmodified Aqua: not at all with those of the registry's layer alone."""
    return settings.aqua if isinstance(settings, Settings) else AquaSettings()
