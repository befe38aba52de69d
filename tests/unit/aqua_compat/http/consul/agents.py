"""A node with its HTTP server that is the agent of its machine, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat.agent.settings import AgentSettings
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.settings import Settings
from tests.unit.aqua_compat.http.running import Running, running_server


@asynccontextmanager
async def running_agent(folder: Path, files: Path) -> AsyncIterator[Running]:
    """`files`: the folder of service files."""
    await trio.Path(files).mkdir(exist_ok=True)
    settings = Settings(agent=AgentSettings(services=str(files), scripts=True))
    async with running_server(
        folder,
        services=lambda own, registered: SettingsOfServices(lambda: settings, own, registered=registered.all),
    ) as running:
        yield running
