"""The door for Aqua where the settings ask for it; nothing of it is imported elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aqua_compat.settings import Settings

if TYPE_CHECKING:
    from aqua_compat.particles.settings import AquaSettings
    from overlay.identity import Identity
    from registry.node import Node
    from registry.settings import NodeSettings

# ruff: noqa: PLC0415

FOLDER_VARIABLE = "AQUA_REGISTRY_AQUA_FOLDER"
"""The environment variable of the setting aqua.folder."""


def interpreter_folder(settings: AquaSettings) -> Path:
    """Where the interpreter is installed."""
    from platformdirs import user_data_path

    if settings.folder:
        return Path(settings.folder)
    return user_data_path("aqua-registry", appauthor=False) / "aqua"


@asynccontextmanager
async def aqua_if_enabled(node: Node, identity: Identity, settings: NodeSettings) -> AsyncIterator[None]:
    """Serves particles while the context is open, if `settings` are `Settings` that say so. Raises NotInstalled."""
    if not isinstance(settings, Settings) or not settings.aqua.enabled:
        yield
        return
    from aqua_compat.particles.server import open_particle_server
    from registry.replica.weights import Weights

    folder = interpreter_folder(settings.aqua)
    async with open_particle_server(node, identity, Weights(settings.weights), settings.aqua, folder):
        yield
