"""Each example runs as its README says."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.end_to_end.network import Network, Process, first_line, launched, ran
from tests.paths import ROOT

EXAMPLES = ROOT / "examples"


class Example:
    """Runs the scripts of one folder; their errors are shown beside a failure."""

    def __init__(self, folder: str, home: Path) -> None:
        self._folder = EXAMPLES / folder
        self._home = home
        self._log = home / "log"

    async def run(self, script: str, *arguments: str, code: int = 0) -> list[str]:
        """The lines that a script prints until it ends."""
        done = await ran(sys.executable, str(self._folder / script), *arguments, home=self._home)
        assert done.code == code, done.out + done.err
        return done.out.splitlines()

    def start(
        self, script: str, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> AbstractAsyncContextManager[Process]:
        """A script in the background."""
        command = [sys.executable, str(self._folder / script), *arguments]
        return launched(*command, home=self._home, log=self._log, stdin=stdin)

    async def stop(self, process: Process, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends a script, which must end well and silently."""
        process.send_signal(how)
        with trio.fail_after(10):
            assert await process.wait() == 0, self._log.read_text()
        assert self._log.read_text() == ""


async def kill(process: Process) -> None:
    process.kill()
    await process.wait()


async def line_with(process: Process, text: str, timeout: float = 20.0) -> str:
    """The next line that holds the text."""
    passed: list[str] = []
    with trio.move_on_after(timeout):
        while True:
            passed.append(await first_line(process))
            if text in passed[-1]:
                return passed[-1]
    raise AssertionError(f"no line with {text!r} within {timeout:g} s; there were {passed}")


async def test_service_discovery_finds_calls_and_finds_nobody_after_the_provider_stopped(
    network: Network, tmp_path: Path
) -> None:
    example, relay = Example("service_discovery", tmp_path), network.relay()
    async with example.start("provider.py", "--relay", relay) as provider:
        resource_id = await first_line(provider)
        call = partial(example.run, "client.py", "--relay", relay, resource_id, "Hello")
        [answer] = await call()
        assert answer.endswith(" says Hello")
        await example.stop(provider)
    assert await call() == []


async def test_high_availability_calls_go_on_when_two_of_three_providers_were_killed(
    network: Network, tmp_path: Path
) -> None:
    example, relay = Example("high_availability", tmp_path), network.relay()
    provider = partial(example.start, "provider.py", "--relay", relay)
    async with provider("one") as one:
        resource_id = await first_line(one)
        async with provider("two", resource_id) as two, provider("three", resource_id) as three:
            assert [await first_line(two), await first_line(three)] == [resource_id] * 2
            await kill(one)
            await kill(two)
            for _ in range(2):
                [answer] = await example.run("caller.py", "--relay", relay, resource_id, "you")
                assert answer.startswith("three greets you, called by ")


async def test_subnetwork_members_hear_of_each_other_and_from_each_other(network: Network, tmp_path: Path) -> None:
    example, key = Example("subnetwork", tmp_path), ("--key", str(tmp_path / "carol.json"))

    def member(number: int, *arguments: str) -> AbstractAsyncContextManager[Process]:
        relay = network.nodes[number].address
        return example.start("member.py", "--relay", relay, *arguments, stdin=subprocess.PIPE)

    async with member(0, "ann") as ann:
        resource_id = await first_line(ann)
        await line_with(ann, "members: ann")
        assert ann.stdin is not None
        async with member(1, "bob", resource_id) as bob:
            await line_with(ann, "bob joined")
            await line_with(bob, "ann")  # among the members, or joined a moment later
            async with member(2, *key, "carol", resource_id) as carol:
                for other in (ann, bob):
                    await line_with(other, "carol joined")
                await line_with(carol, "ann")
                await ann.stdin.send_all(b"good morning\n")
                for other in (bob, carol):
                    heard = await line_with(other, "good morning")
                    assert heard.startswith("ann ("), heard
                await example.stop(bob, signal.SIGINT)
                for other in (ann, carol):
                    await line_with(other, "bob left")
                await kill(carol)
        await ann.stdin.send_all(b"still there?\n")
        await line_with(ann, "carol didn't hear it: ")
        async with member(2, *key, "carol", resource_id) as carol:  # the same peer again, which can leave
            await line_with(carol, "members: ")
            await example.stop(carol, signal.SIGINT)
            await line_with(ann, "carol left")


@pytest.fixture
async def workers(network: Network, tmp_path: Path) -> AsyncIterator[tuple[Example, str, str]]:
    """Two providers, of which the heavier is the slower: the example, a relay and the resource."""
    example, relay = Example("load_balancer", tmp_path), network.relay()
    provider = partial(example.start, "provider.py", "--relay", relay)
    async with provider("light", "1") as light:
        resource_id = await first_line(light)
        async with provider("--takes", "0.05", "heavy", "4", resource_id) as heavy:
            assert await first_line(heavy) == resource_id
            yield example, relay, resource_id


@pytest.mark.parametrize(
    ("strategy", "light", "heavy"),
    [
        ("weighted", range(20), range(21, 41)),
        ("round robin", range(20, 21), range(20, 21)),
        ("least latency", range(30, 40), range(1, 11)),
    ],
)
async def test_load_balancer_spreads_calls_by_its_strategy(
    workers: tuple[Example, str, str], strategy: str, light: range, heavy: range
) -> None:
    example, relay, resource_id = workers
    lines = await example.run("caller.py", "--relay", relay, "--strategy", strategy, "--calls", "40", resource_id)
    counts = {name: int(count) for name, count, _ in (line.split() for line in lines)}
    assert counts.get("light", 0) in light, counts
    assert counts.get("heavy", 0) in heavy, counts


async def test_behind_a_relay_readings_go_on_without_a_gap_when_the_relay_was_killed(
    own_network: Network, tmp_path: Path
) -> None:
    example = Example("behind_a_relay", tmp_path)
    old, new, other = own_network.nodes[3:6]
    async with example.start("provider.py", "--relay", old.address, "--relay", new.address) as provider:
        resource_id = await first_line(provider)
        await line_with(provider, f"reached through {old.peer_id}")
        arguments = ("--relay", other.address, "--count", "12", resource_id)
        async with example.start("caller.py", *arguments) as caller:
            assert (await first_line(caller)).endswith(f" via {old.peer_id}")
            numbers = [_number(await first_line(caller)), _number(await first_line(caller))]
            await old.kill()
            await line_with(caller, "lost: ")
            await line_with(provider, f"reached through {new.peer_id}")
            await line_with(provider, f"after reading {numbers[-1]}")
            assert caller.stdout is not None
            with trio.fail_after(20):
                rest = b"".join([piece async for piece in caller.stdout]).decode().splitlines()
                assert await caller.wait() == 0
        numbers += [_number(line) for line in rest if line.endswith("°C")]
        assert numbers == list(range(numbers[0], numbers[0] + 12))
        await example.stop(provider)
    await own_network.restart([old])


def _number(line: str) -> int:
    return int(line.split(maxsplit=1)[0])


async def test_echo_walkthrough_calls_both_kinds_of_providers_then_the_one_that_is_left(
    network: Network, tmp_path: Path
) -> None:
    lines = await Example("echo_walkthrough", tmp_path).run("walkthrough.py", "--relay", network.relay())
    said = [line.removesuffix(": hi").strip() for line in lines if line.endswith(": hi")]
    hosts = {line.split()[1]: line.split()[3] for line in lines if line.startswith("   registered ")}
    assert list(hosts) == ["echo", "echo_service"]
    assert said[:2] == sorted(hosts.values())
    assert said[2:] == [hosts["echo"]]


async def test_permissions_only_the_certified_serve_and_only_while_their_certificate_is_renewed(
    network: Network, tmp_path: Path
) -> None:
    example, folder = Example("permissions", tmp_path), str(tmp_path / "certificates")
    keys = [("--key", str(tmp_path / f"{name}.json")) for name in ("owner", "worker", "stranger")]
    [peer_id] = await example.run("worker.py", *keys[1])
    relay = ("--relay", network.relay())
    registrar = example.start("registrar.py", *relay, *keys[0], "--folder", folder, "--holds", "9", peer_id)
    async with registrar as owner:
        resource_id = await first_line(owner)
        serving = ("worker.py", *relay, "--certificates", folder)
        assert await example.run(*serving, *keys[2], resource_id, code=1) == []
        async with example.start(*serving, *keys[1], resource_id) as worker:
            assert await first_line(worker) == "serving"
            async with example.start("caller.py", "--relay", network.relay(), resource_id) as caller:
                assert await first_line(caller) == f"{peer_id[-6:]} is there: paid 7"
                await line_with(caller, "goes on under another certificate")
                await example.stop(owner, signal.SIGINT)
                assert (await line_with(caller, "is gone")).endswith("is gone (certificate)")
