"""go-libp2p over our muxer: bulk both ways, pings and resets, over TLS and noise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from overlay import Identity, OverlaySettings
from overlay.libp2p.host import open_host
from overlay.rpc.transport import ByteStream

PACKAGE = Path(__file__).parent.parent / "data" / "go"


@pytest.fixture(scope="module")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled peer; compiling it takes five minutes where nothing is cached."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go")
    if subprocess.run([go, "mod", "download"], cwd=PACKAGE, check=False).returncode:
        pytest.skip("Go's modules can't be downloaded")
    executable = tmp_path_factory.mktemp("go") / "peer"
    subprocess.run([go, "build", "-o", str(executable), "."], cwd=PACKAGE, check=True)
    return executable


async def echo(_: str, stream: ByteStream) -> None:
    while payload := await stream.read_some(64 * 1024):
        await stream.write(payload)
    await stream.close()


async def reset(_: str, stream: ByteStream) -> None:
    await stream.reset()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("direct_pipes", [True, False])
@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_go_peer_writes_reads_pings_and_is_told_of_a_reset(
    security: str, direct_pipes: bool, go_peer: Path
) -> None:
    async with open_host(Identity.generate(), OverlaySettings(direct_pipes=direct_pipes)) as host:
        host.set_stream_handler("/test/echo/1", echo)
        host.set_stream_handler("/test/reset/1", reset)
        with trio.fail_after(60):
            done = await trio.run_process(
                [str(go_peer), security, host.listen_addresses()[0]], capture_stdout=True, check=False
            )
    *_, last_but_one, connection = lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, lines
    assert lines[:4] == ["echoed true"] * 3 + ["pinged"]
    assert last_but_one.startswith("reset stream reset")
    assert connection == f"/yamux/1.0.0 {'/tls/1.0.0' if security == 'tls' else '/noise'}"
