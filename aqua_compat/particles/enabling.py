"""Serves particles where the settings ask for it: only then the rest of this package is imported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aqua_compat.particles.metrics import Metrics

if TYPE_CHECKING:
    from aqua_compat.builtins.trust_graph import TrustGraph
    from aqua_compat.particles.settings import AquaSettings
    from overlay.identity import Identity
    from registry.node import Node

# ruff: noqa: PLC0415


def interpreter_folder(settings: AquaSettings) -> Path:
    """Where the interpreter is installed."""
    from platformdirs import user_data_path

    if settings.folder:
        return Path(settings.folder)
    return user_data_path("aqua-registry", appauthor=False) / "aqua"


@asynccontextmanager
async def particles_if_enabled(
    node: Node, identity: Identity, trust_graph: TrustGraph, settings: AquaSettings, metrics: Metrics
) -> AsyncIterator[None]:
    """Serves particles while the context is open, if the settings say so. Raises NotInstalled."""
    if not settings.enabled:
        yield
        return
    from aqua_compat.particles.server import open_particle_server

    async with open_particle_server(node, identity, trust_graph, settings, interpreter_folder(settings), metrics):
        yield
