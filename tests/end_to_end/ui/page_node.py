"""Nodes whose pages a browser opens, with services on them that are well, ill, gone and hostile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from urllib.request import Request, urlopen

import trio

from aqua_compat import AquaClient, connect
from aqua_compat.cli.node_process import NodeProcess, stop_network
from registry.model.endpoints import Instance, write_instances
from tests.end_to_end.forked import fork_server
from tests.ports import free_port

NODES: Final = 6
HOSTILE: Final = (
    "<img src=x onerror=\"window.hacked='img'\">",
    "<script>window.hacked='script'</script>",
    "\"><svg onload=window.hacked='svg'>",
    "javascript:window.hacked='url'",
    "{{constructor.constructor('window.hacked=1')()}}",
    "evil\u202etxt.exe\u2066\u200b",
    "</textarea></title><iframe src=javascript:window.hacked='iframe'>",
)


class Served(NamedTuple):
    """A network; the page is that of its first node."""

    nodes: list[NodeProcess]
    ports: list[int]

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}/ui/"

    async def post(self, number: int, path: str, body: object) -> Any:
        """Asks a node to write."""
        request = Request(
            f"http://127.0.0.1:{self.ports[number]}/v1/aqua/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return await trio.to_thread.run_sync(lambda: json.load(urlopen(request, timeout=30))["result"])

    async def create(self, label: str) -> str:
        """Has the page's node own a resource."""
        created = await self.post(0, "resources", {"label": label})
        resource_id: str = created["resource_id"]
        return resource_id

    async def register(self, number: int, resource_id: str, *instances: Instance, value: str = "") -> None:
        """Has a node host a service."""
        value = write_instances(instances) if instances else value
        await self.post(number, f"resources/{quote(resource_id)}/records", {"value": value, "service_id": "web"})


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    """A network whose nodes all know each other."""
    nodes = [
        NodeProcess(folder / f"node-{number}", folder / f"node-{number}.log", fork_server().open_process)
        for number in range(NODES)
    ]
    ports = [free_port() for _ in range(NODES)]
    # Each has a port of its own, which flags of `start_network` can't tell.
    for number, node in enumerate(nodes):
        node.data_dir.mkdir(parents=True)
        (node.data_dir / "node.toml").write_text(f'[http]\nlisten = "127.0.0.1:{ports[number]}"\n')
    try:
        for node in nodes:
            bootstrap = [] if node is nodes[0] else ["--bootstrap", nodes[0].address]
            await node.start("--config", str(node.data_dir / "node.toml"), *bootstrap, timeout=60)
        yield Served(nodes, ports)
    finally:
        await stop_network(nodes)


@asynccontextmanager
async def furnished(served: Served) -> AsyncIterator[str]:
    """Five services, not all of which pass, while the block runs; gives the id of `web`."""
    web = await served.create("web")
    for number in (1, 2, 3):
        instance = Instance(
            id=f"web-{number}", address=f"192.0.2.{number}", port=8080, protocol="http", tags=("v2", "eu"),
            metadata={"zone": f"eu-{number}"}, weight=number, checks=("http",),
        )  # fmt: skip
        await served.register(number, web, instance)
    await served.create("search")
    await served.register(2, await served.create("cache"), value="tcp://192.0.2.9:6379")
    async with connect(served.nodes[1].address) as client:
        host = served.nodes[4].peer_id
        for label, state, note in (("db", "warning", "the disk is nearly full"), ("mail", "critical", "refused: 25")):
            resource_id = await served.create(label)
            await served.register(2, resource_id, value=f"tcp://192.0.2.9:{len(label)}")
            await _ill(client, resource_id, host, "tcp://198.51.100.7:25", state, note)
        yield web


@asynccontextmanager
async def with_hostile(served: Served) -> AsyncIterator[dict[str, str]]:
    """A resource for each hostile text, which is its label, its value, the note of its health, and, as far as it may
    be, what its instance says of itself; gives the texts by the resources' names."""
    names: dict[str, str] = {}
    async with connect(served.nodes[1].address) as client:
        for number, text in enumerate(HOSTILE):
            label = f"{number} {text}"
            resource_id = await served.create(label)
            names[f"{label}@me"] = text
            await _ill(client, resource_id, served.nodes[4].peer_id, text, "warning", text)
            visible = "".join(filter(str.isprintable, text))[:100]
            instance = Instance(id=visible, tags=(visible,), metadata={visible: visible})
            await served.register(2, resource_id, instance)
        yield names


async def _ill(client: AquaClient, resource_id: str, host: str, value: str, state: str, note: str) -> None:
    """Registers a service that its provider calls ill."""
    done = await client.registry.register_service(resource_id, value, host, "web", ttl=600)
    assert done.success, done
    await client.set_health(resource_id, state, note, peer_id=host, ttl=600)
