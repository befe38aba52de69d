"""A network of the first build that speaks the protocol which can grow, upgraded to today's one node after another."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio

from aqua_compat import connect
from aqua_compat.cli.node_process import NodeProcess, RunningProcess, stop_network
from tests.end_to_end.network import Finished, environment_of, eventually
from tests.paths import ROOT

FIRST: Final = "55602c7"
"""The commit since which peers tell their minor versions, and pass over what they don't know."""
NODES: Final = 4


class Build(NamedTuple):
    """A version of the code, and where its commands keep keys and data."""

    code: Path
    home: Path


def first_build(folder: Path) -> Path:
    """The code of that build; the test is skipped where the history isn't there."""
    packages = ("overlay", "registry", "aqua_compat")
    archive = subprocess.run(["git", "archive", FIRST, *packages], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"the history of this repository isn't here: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def opener(code: Path) -> Callable[..., Awaitable[RunningProcess]]:
    """Starts processes with this code."""

    async def open_process(command: list[str], **options: object) -> RunningProcess:
        environment = environment_of(code, PYTHONPATH=str(code))
        return await trio.lowlevel.open_process(command, env=environment, cwd=str(code), **options)  # type: ignore[call-arg]

    return open_process


async def ran(build: Build, *arguments: str) -> Finished:
    """What a command of a build leaves. Each build has folders of its own: an older one doesn't read a newer's."""
    done = await trio.run_process(
        [sys.executable, "-m", "aqua_compat", *arguments],
        env=environment_of(build.home, PYTHONPATH=str(build.code)),
        cwd=str(build.code),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


async def values_at(address: str, resource_id: str) -> set[str]:
    async with connect(address) as client:
        records, _ = await client.resolveResource(resource_id, 1)
        return {record.metadata.value for record in records or []}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_network_of_the_first_build_is_upgraded_one_node_after_another(tmp_path: Path) -> None:
    old = Build(await trio.to_thread.run_sync(first_build, tmp_path / "first"), tmp_path / "home-first")
    new = Build(ROOT, tmp_path / "home-new")
    nodes = [NodeProcess(tmp_path / f"{n}", tmp_path / f"{n}.log", opener(old.code)) for n in range(NODES)]
    try:
        await nodes[0].start(timeout=90)
        for node in nodes[1:]:
            await node.start("--bootstrap", nodes[0].address, timeout=90)
        created = await ran(old, "resource", "create", "web", "--relay", nodes[0].address)
        assert created.code == 0, created.err
        resource_id = created.out.strip()
        written = {old: "by the first build"}
        await registered(old, nodes[0], resource_id, written[old])

        for number, node in enumerate(nodes):
            address = node.address
            others = [each.address for each in nodes if each is not node]
            assert await node.stop(timeout=20) == 0
            upgraded = NodeProcess(node.data_dir, node.log_file, opener(new.code))
            nodes[number] = upgraded
            flags = [flag for other in others for flag in ("--bootstrap", other)]
            await upgraded.start("--listen", address.partition("/p2p/")[0], *flags, timeout=90)
            assert upgraded.peer_id == address.rpartition("/")[2]
            # Through the newest by a command of the first build, and through the oldest by one of today.
            build, through = (old, nodes[0]) if number % 2 == 0 else (new, nodes[-1])
            written[build] = f"while {number + 1} of {NODES} are upgraded"
            await registered(build, through, resource_id, written[build])
            for each in nodes:
                await eventually(
                    partial(values_at, each.address, resource_id), set(written.values()).__eq__, timeout=40
                )
        shown = await ran(new, "peers", "--relay", nodes[0].address)
        assert shown.out.count("protocol 3.0") == NODES, shown.out
    finally:
        await stop_network(nodes)


async def registered(build: Build, through: NodeProcess, resource_id: str, value: str) -> None:
    """Registers with a command of a build: each has a key of its own, whose record replaces the one before."""
    done = await ran(
        build, *("service", "register", resource_id, "--value", value, "--relay", through.address, "--factor", "2")
    )
    assert done.code == 0, done.err
