"""The recipes in docs/recipes work as they stand, with unmodified clients. Those not from PyPI are slow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from registry.model.endpoints import Instance, write_instances
from tests.paths import ROOT
from tests.unit.aqua_compat.http.consul.agents import running_agent
from tests.unit.aqua_compat.http.running import Running

ADDRESS = "127.0.0.1:8500"


def recipe(name: str, language: str, running: Running) -> str:
    """The only block of a recipe in this language, with the address of the node that runs."""
    text = (ROOT / f"docs/recipes/{name}.md").read_text()
    [block] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return block.replace(ADDRESS, str(running.server.address))


@asynccontextmanager
async def a_node(folder: Path) -> AsyncIterator[Running]:
    async with running_agent(folder / "node", folder / "services") as running:
        yield running


async def register(running: Running, *ports: int) -> None:
    registry, me = running.node.registry, running.node.peer.peer_id
    created = await registry.create_resource("web")
    assert created.resource_id is not None, created
    instances = [Instance(id=f"web-{port}", address="127.0.0.1", port=port, metadata={"zone": "eu"}) for port in ports]
    assert (await registry.register_service(created.resource_id, write_instances(instances), me, None)).success


async def run(*command: str, folder: Path, **environment: str) -> str:
    ran = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, cwd=folder, env=os.environ | environment
    )
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, (ran.stdout[-2000:], ran.stderr[-2000:])
    return str(ran.stdout.decode())


async def test_python(tmp_path: Path) -> None:
    async with a_node(tmp_path) as running:
        assert running.server.address is not None
        program = recipe("python", "python", running).replace("port=8500", f"port={running.server.address.port}")
        assert await run(sys.executable, "-c", program, folder=tmp_path) == "192.0.2.1 80\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_go(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("no Go")
    async with a_node(tmp_path) as running:
        (tmp_path / "main.go").write_text(recipe("go", "go", running))
        assert len((tmp_path / "main.go").read_text().splitlines()) <= 65
        script = f"set -euo pipefail\n{recipe('go', 'sh', running)}"
        me = running.node.peer.peer_id
        out = await run("bash", "-c", script, folder=tmp_path, CONSUL_HTTP_ADDR=str(running.server.address))
        assert out == f"192.0.2.1:80 on {me}\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_consul_template(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("no Go")
    (tmp_path / "bin").mkdir()
    install = ["go", "install", "github.com/hashicorp/consul-template@v0.39.1"]
    await run(*install, folder=tmp_path, GOBIN=str(tmp_path / "bin"))
    async with a_node(tmp_path) as running:
        await register(running, 8001, 8002)
        (tmp_path / "recipe.hcl").write_text(recipe("consul-template", "hcl", running))
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        await run("bash", "-c", recipe("consul-template", "sh", running), folder=tmp_path, PATH=path)
        assert (tmp_path / "upstreams.conf").read_text() == "server 127.0.0.1:8001;\nserver 127.0.0.1:8002;\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_prometheus(tmp_path: Path) -> None:
    """By Prometheus's own configuration and discovery, compiled from its Go module: Debian's has none of Consul."""
    if shutil.which("go") is None:
        pytest.skip("no Go")
    source, executable = tmp_path / "source", tmp_path / "discovery"
    shutil.copytree(ROOT / "tests/data/prometheus", source)
    await run("go", "build", "-o", str(executable), ".", folder=source, GOFLAGS="-mod=mod")
    async with a_node(tmp_path) as running:
        await register(running, 9001)
        (tmp_path / "prometheus.yml").write_text(recipe("prometheus", "yaml", running))
        command = [str(executable), str(tmp_path / "prometheus.yml")]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            with trio.fail_after(60):
                await told(process.stdout, b"[127.0.0.1:9001 web eu]\n")
                await register(running, 9001, 9002)
                await told(process.stdout, b"[127.0.0.1:9001 web eu 127.0.0.1:9002 web eu]\n")
        finally:
            process.kill()
            await process.wait()


async def told(output: trio.abc.ReceiveStream, line: bytes) -> None:
    """Returns when a program wrote this."""
    seen = b""
    while line not in seen:
        piece = await output.receive_some()
        assert piece, seen
        seen += bytes(piece)
