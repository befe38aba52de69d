"""Consul's API across nodes: what is registered on one is found by a blocked query on another, till it ends."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio

from aqua_compat.cli.node_process import NodeProcess
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import eventually
from tests.unit.aqua_compat.http.running import Answered, answer_on


async def ask(node: NodeProcess, method: str, target: str, body: object = None) -> Answered:
    """One request to a node's socket."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = [("host", "localhost"), ("content-length", str(len(content))), ("connection", "close")]
    async with await trio.open_unix_socket(str(node.data_dir / "http.sock")) as stream:
        protocol = h11.Connection(h11.CLIENT)
        await stream.send_all(protocol.send(h11.Request(method=method, target=target, headers=headers)) or b"")
        await stream.send_all(
            (protocol.send(h11.Data(data=content)) or b"") + (protocol.send(h11.EndOfMessage()) or b"")
        )
        return await answer_on(stream, protocol)


async def get(node: NodeProcess, target: str) -> Any:
    return (await ask(node, "GET", target)).json()


async def changed_to(node: NodeProcess, target: str, count: int) -> list[Any]:
    """What a service has once it has so many instances, by blocking queries alone."""
    index = 0
    while True:
        answer = await ask(node, "GET", f"{target}index={index}&wait=60s")
        if len(answer.json()) == count:
            return list(answer.json())
        index = int(answer.headers["x-consul-index"])


async def test_what_is_registered_on_one_node_is_found_on_another_until_it_is_deregistered(tmp_path: Path) -> None:
    nodes = [
        NodeProcess(tmp_path / name, tmp_path / f"{name}.log", fork_server().open_process) for name in ("a", "b", "c")
    ]
    agent, other, _ = nodes
    (tmp_path / "services").mkdir()
    try:
        await agent.start("--services", str(tmp_path / "services"), timeout=60)
        (tmp_path / "node.toml").write_text(f'names.acme = "{agent.peer_id}"\nhttp.consul.owner = "acme"\n')
        for node in nodes[1:]:
            await node.start("--bootstrap", agent.address, "--config", str(tmp_path / "node.toml"), timeout=60)
        with trio.fail_after(60):
            assert await get(other, "/v1/health/service/web") == []
            body = {"Name": "web", "Address": "192.0.2.1", "Port": 80, "Tags": ["v2"]}
            assert (await ask(agent, "PUT", "/v1/agent/service/register", body)).status == 200
            [found] = await changed_to(other, "/v1/health/service/web?passing&", 1)
            assert (found["Service"]["Address"], found["Node"]["Node"]) == ("192.0.2.1", agent.peer_id)
            await eventually(partial(get, other, "/v1/catalog/services"), {"web": ["v2"]}.__eq__, timeout=30)
            for node in nodes:
                members = partial(get, node, "/v1/agent/members")
                await eventually(members, lambda found: len(found) == 3, timeout=30)

            assert (await ask(agent, "PUT", "/v1/agent/service/deregister/web")).status == 200
            assert await changed_to(other, "/v1/health/service/web?passing&", 0) == []
    finally:
        for node in nodes:
            await node.kill()
