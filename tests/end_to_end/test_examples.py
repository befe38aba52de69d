"""Each example runs as its README says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import trio

from tests.end_to_end.network import Network, environment_of, first_line, launched

EXAMPLES = Path(__file__).parents[2] / "examples"


async def _call(relay: str, resource_id: str, home: Path) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, str(EXAMPLES / "echo" / "client.py"), "--relay", relay, resource_id, "Hello"],
        env=environment_of(home),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_echo_is_found_called_and_gone_after_it_stopped(network: Network, tmp_path: Path) -> None:
    relay = network.relay()
    script = str(EXAMPLES / "echo" / "provider.py")
    async with launched(sys.executable, script, "--relay", relay, home=tmp_path, log=tmp_path / "log") as provider:
        resource_id = await first_line(provider)
        called = await _call(relay, resource_id, tmp_path)
        assert called.returncode == 0, called.stderr
        assert called.stdout.endswith(b" says Hello\n")
        provider.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await provider.wait() == 0, (tmp_path / "log").read_text()
    called = await _call(relay, resource_id, tmp_path)
    assert (called.returncode, called.stdout) == (0, b""), called.stderr
