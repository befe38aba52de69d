"""A node with its HTTP door that is the agent of its machine, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat.agent.agent import Agent
from aqua_compat.agent.file_form import ServiceForm
from aqua_compat.agent.memory import AgentMemory
from aqua_compat.agent.service_files import Definitions, read_services
from aqua_compat.http.consul.local_agent import RegisteredServices, RunningAgent
from registry.model.names import Names
from tests.unit.aqua_compat.http.running import Running, running_door


@asynccontextmanager
async def running_agent(folder: Path, files: Path) -> AsyncIterator[Running]:
    """`files`: the folder of service files."""
    await trio.Path(files).mkdir(exist_ok=True)
    async with running_door(folder) as running, trio.open_nursery() as nursery:
        peer, registered = running.node.peer, RegisteredServices(folder)

        def read(only: ServiceForm | None = None) -> Definitions:
            return read_services(
                files if only is None else None,
                Names(None, peer.peer_id),
                in_settings=tuple(registered.forms.values()) if only is None else (only,),
                allow_scripts=True,
            )

        memory = AgentMemory(folder / "agent.json")
        agent = Agent(running.node.registry, read, peer.addresses, memory, peer.wait_joined)
        await nursery.start(agent.run)
        running.door.consul.agent.agent = RunningAgent(agent, registered, read)
        yield running
        nursery.cancel_scope.cancel()
