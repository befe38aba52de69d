"""A node tells the service manager that started it how it is; the unit for systemd is good and shuts it in."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import environment_of
from tests.paths import ROOT

UNIT = ROOT / "packaging" / "systemd" / "aqua-registry.service"
EXPOSURE = 2.0
"""What `systemd-analyze security` may find at most; without any measure it is above 9."""


@asynccontextmanager
async def heard(path: Path) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """What is told to the socket."""
    send, receive = trio.open_memory_channel[str](1024)
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        await listening.bind(str(path))

        async def listen() -> None:
            while True:
                send.send_nowait((await listening.recv(4096)).decode())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            yield receive
            nursery.cancel_scope.cancel()


async def test_ready_signs_of_life_and_the_end_are_told(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
    node = NodeProcess(tmp_path / "node", tmp_path / "log", partial(fork_server().open_process, env=environment))
    async with heard(tmp_path / "notify") as told:
        await node.start()
        try:
            with trio.fail_after(20):
                assert await told.receive() == "READY=1\nSTATUS=linked with 0 members"
                for _ in range(3):
                    assert await told.receive() == "WATCHDOG=1\nSTATUS=linked with 0 members"
        finally:
            code = await node.stop()
        assert code == 0
        last = ""
        with trio.fail_after(20):
            while not last.startswith("STOPPING=1"):
                last = await told.receive()


async def test_a_service_manager_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC="nonsense")
    node = NodeProcess(tmp_path / "node", tmp_path / "log", partial(fork_server().open_process, env=environment))
    await node.start()
    assert await node.stop() == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't here")
def test_the_unit_is_good_and_shuts_the_node_in(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/aqua-registry", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    looked_at = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, check=True
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", looked_at.stdout)
    assert exposure is not None, looked_at.stdout
    assert float(exposure[1]) <= EXPOSURE
