"""Calling services from a shell."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

from aqua_compat import connect
from tests.end_to_end.network import MAJORITY, SEEN_BY_A_MAJORITY, Network, command


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


async def test_misuse_is_told_before_anything_is_called(network: Network, tmp_path: Path) -> None:
    flags = ("--relay", network.relay())
    for given, text in (
        (("--on-peer", network.nodes[0].peer_id, "noop"), "needs --service"),
        (("--stream", "id", "f"), "go with --on-peer"),
        (("--all", "--on-peer", "--service", "op", network.nodes[0].peer_id, "noop"), "--all goes with a resource"),
        (("--on-peer", "--service", "op", "no peer id", "noop"), "no peer id"),
    ):
        misused = await command("call", *flags, *given, home=tmp_path)
        assert misused.code == 2
        assert text in misused.err
    unknown = await command("call", *flags, "unknown", "f", home=tmp_path)
    assert unknown.code == 1
    assert "the resource unknown wasn't resolved" in unknown.err
