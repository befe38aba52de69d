"""A node with its HTTP server, in this process, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h11
import trio

from aqua_compat.agent.agent import Agent
from aqua_compat.agent.memory import AgentMemory
from aqua_compat.api.full_node import identity_in, open_full_node
from aqua_compat.api.services import Services
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.http.consul.local_agent import RegisteredServices, RunningAgent
from aqua_compat.http.server import HttpServer, open_http_server
from aqua_compat.settings import HttpSettings, Settings
from overlay.settings import OverlaySettings
from overlay.tasks import background
from registry.model.names import Names
from registry.node import Node


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.status < 300, self.body
        return self.json()["result"]


class Running(NamedTuple):
    """A node and its server; `ask` is a client on the address, with a connection for each request."""

    node: Node
    server: HttpServer

    async def connect(self) -> trio.SocketStream:
        assert self.server.address is not None
        return await trio.open_tcp_stream(self.server.address.host, self.server.address.port)

    async def ask(self, method: str, target: str, body: object = None, **headers: str) -> Answered:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"host": "localhost", "content-length": str(len(content)), "connection": "close"}
        if body is not None:
            given["content-type"] = "application/json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with await self.connect() as stream:
            protocol = h11.Connection(h11.CLIENT)
            await stream.send_all(
                protocol.send(h11.Request(method=method, target=target, headers=list(given.items()))) or b""
            )
            await stream.send_all(
                (protocol.send(h11.Data(data=content)) or b"") + (protocol.send(h11.EndOfMessage()) or b"")
            )
            return await answer_on(stream, protocol)


async def answer_on(stream: trio.abc.Stream, protocol: h11.Connection) -> Answered:
    head: h11.Response | None = None
    body = b""
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage), event
            assert head is not None
            names = {name.decode(): value.decode() for name, value in head.headers}
            return Answered(head.status_code, names, body)


@asynccontextmanager
async def running_server(
    data_dir: Path,
    http: HttpSettings | None = None,
    names: dict[str, str] | None = None,
    bootstrap: tuple[str, ...] = (),
    services: Callable[[str, RegisteredServices], SettingsOfServices] | None = None,
    services_of: Callable[[Services], None] | None = None,
) -> AsyncIterator[Running]:
    """`services`: where those are defined that the node keeps registered, by its peer id. `services_of`
    has the node serve what it is to."""
    settings = Settings(
        overlay=OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",), bootstrap=bootstrap),
        http=http or HttpSettings(listen="127.0.0.1:0"),
    )
    async with open_full_node(identity_in(data_dir), settings, data_dir) as (node, own):
        peer, agent, known = node.peer, None, Names(names, identity_in(data_dir).peer_id)
        if services_of is not None:
            services_of(own)
        if services is not None:
            memory, registered = AgentMemory(data_dir / "agent.json"), RegisteredServices(data_dir)
            source = services(peer.peer_id, registered)
            keeper = Agent(node.registry, source, peer.addresses, memory, peer.wait_joined, names=known)
            agent = RunningAgent(keeper, registered, source.read_form)

        def names_now() -> Names:
            return known if agent is None else agent.agent.names

        async with (
            open_http_server(node, own, settings.http, data_dir, names=names_now, agent=agent) as server,
            background() as tasks,
        ):
            if agent is not None:
                await tasks.start(agent.agent.run)
            yield Running(node, server)
