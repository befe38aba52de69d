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


async def test_calls_go_on_when_two_of_three_providers_were_killed(network: Network, tmp_path: Path) -> None:
    relay, folder = network.relay(), EXAMPLES / "high_availability"
    provider = [sys.executable, str(folder / "provider.py"), "--relay", relay]
    log = tmp_path / "log"
    async with launched(*provider, "one", home=tmp_path, log=log) as one:
        resource_id = await first_line(one)
        async with (
            launched(*provider, "two", resource_id, home=tmp_path, log=log) as two,
            launched(*provider, "three", resource_id, home=tmp_path, log=log) as three,
        ):
            assert [await first_line(two), await first_line(three)] == [resource_id] * 2
            for killed in (one, two):
                killed.kill()
                await killed.wait()
            for _ in range(2):
                called = await trio.run_process(
                    [sys.executable, str(folder / "caller.py"), "--relay", relay, resource_id, "you"],
                    env=environment_of(tmp_path),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
                assert called.stdout.startswith(b"three greets you, called by "), called.stderr
