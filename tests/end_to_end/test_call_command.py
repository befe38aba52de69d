"""Calling services from a shell."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aqua_compat import connect
from tests.end_to_end.network import MAJORITY, SEEN_BY_A_MAJORITY, Network, command, eventually, first_line, launched
from tests.end_to_end.test_bad_input import UNKNOWN


async def _count(until: int) -> AsyncIterator[int]:
    for number in range(until):
        yield number


async def _greet(whom: str) -> str:
    return f"hello {whom}"


def _add(one: int, other: int) -> int:
    return one + other


async def test_functions_are_called_on_any_on_all_and_on_one_peer(network: Network, tmp_path: Path) -> None:
    flags = ("--relay", network.nodes[1].address)
    ack = ("--ack", str(MAJORITY))
    async with connect(network.nodes[0].address, constants=SEEN_BY_A_MAJORITY) as provider:
        resource_id, _ = await provider.createResource("from the shell")
        assert resource_id
        functions = {"greet": _greet, "add": _add, "count": _count}
        async with provider.provide(resource_id, "greeter", functions):
            greeted = await command("call", *flags, *ack, resource_id, "greet", "you", home=tmp_path)
            assert (greeted.code, greeted.out, greeted.err) == (0, '"hello you"\n', "")
            added = await command("call", *flags, *ack, "--all", resource_id, "add", "1", "2", home=tmp_path)
            assert json.loads(added.out) == {"peer_id": provider.peer_id, "result": 3, "error": None}
            wrong = await command("call", *flags, *ack, "--all", resource_id, "add", "1", home=tmp_path)
            assert (wrong.code, wrong.err) == (1, "error: 1 of 1 providers failed\n")
            assert "missing a required argument" in json.loads(wrong.out)["error"]
            there = ("--on-peer", "--service", "greeter", provider.peer_id)
            counted = await command("call", *flags, "--stream", *there, "count", "3", home=tmp_path)
            assert counted.out == "0\n1\n2\n"
            listed = await command("services", *flags, provider.peer_id, home=tmp_path)
            assert "greeter\n  greet(whom: str) -> str\n  add(one: int, other: int) -> int\n" in listed.out
            as_json = await command("services", *flags, "--json", provider.peer_id, home=tmp_path)
            assert "greet(whom: str) -> str" in json.loads(as_json.out)["greeter"]
        failed = await command("call", *flags, *there, "greet", "you", home=tmp_path)
        assert failed.code == 1
        assert "no such service" in failed.err


LEAVING = """
import sys, trio
from aqua_compat import connect
async def greet(whom: str) -> str:
    return f"hello {whom}"
async def main():
    async with connect(sys.argv[1]) as aqua, aqua.provide(sys.argv[2], "greeter", {"greet": greet}):
        print(aqua.peer_id, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_of_providers_those_are_reachable_that_answer(network: Network, tmp_path: Path) -> None:
    address, log = network.nodes[0].address, tmp_path / "log"
    ack = ("--ack", str(MAJORITY))
    async with connect(network.nodes[1].address, constants=SEEN_BY_A_MAJORITY) as provider:
        resource_id, _ = await provider.createResource("some are gone")
        assert resource_id
        flags = ("--relay", address, *ack, resource_id)
        async with provider.provide(resource_id, "greeter", {"greet": _greet}):
            arguments = (sys.executable, "-c", LEAVING, address, resource_id)
            async with launched(*arguments, home=tmp_path, log=log) as leaving, connect(address) as user:
                left = await first_line(leaving)

                async def reachable() -> set[str]:
                    return {record.metadata.peer_id for record in await user.reachable(resource_id, ack=MAJORITY)}

                assert await reachable() == {provider.peer_id, left}
                leaving.send_signal(signal.SIGKILL)
                await eventually(reachable, lambda found: found == {provider.peer_id}, 20)
            listed = await command("resolve", *flags, home=tmp_path)
            assert left in listed.out
            assert provider.peer_id in listed.out
            answering = await command("resolve", *flags, "--reachable", home=tmp_path)
            assert left not in answering.out
            assert provider.peer_id in answering.out
    unknown = await command("resolve", "--relay", address, UNKNOWN, "--reachable", home=tmp_path)
    assert (unknown.code, unknown.out) == (1, "")
    assert f"the resource {UNKNOWN} wasn't resolved" in unknown.err


async def test_misuse_is_told_before_anything_is_called(network: Network, tmp_path: Path) -> None:
    flags = ("--relay", network.relay())
    for given, text in (
        (("--on-peer", network.nodes[0].peer_id, "noop"), "needs --service"),
        (("--stream", "id", "f"), "need --on-peer"),
        (("--all", "--on-peer", "--service", "op", network.nodes[0].peer_id, "noop"), "leave out --on-peer"),
        (("--on-peer", "--service", "op", "no peer id", "noop"), "no peer id"),
    ):
        misused = await command("call", *flags, *given, home=tmp_path)
        assert misused.code == 2
        assert text in misused.err
    unknown = await command("call", *flags, UNKNOWN, "f", home=tmp_path)
    assert unknown.code == 1
    assert f"the resource {UNKNOWN} wasn't resolved" in unknown.err
