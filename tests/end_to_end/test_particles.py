"""Nodes with --aqua, over real sockets, against clients that behave and such that don't."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from aqua_compat import connect
from aqua_compat.particles.particle import encode, framed
from tests.end_to_end.network import Network, Observer, eventually, observer
from tests.end_to_end.particle_client import ParticleClient, particle_client
from tests.unit.aqua_compat.particles.conftest import interpreter_folder  # noqa: F401 - a fixture
from tests.unit.aqua_compat.particles.scripts import an_endless_script

FOLDER_VARIABLE = "AQUA_REGISTRY_AQUA_FOLDER"
LISTEN = ("--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/tcp/0/ws")


@asynccontextmanager
async def aqua_network(folder: Path, interpreter: Path, count: int = 3) -> AsyncIterator[Network]:
    network = Network(folder, count, "--aqua", *LISTEN)
    os.environ[FOLDER_VARIABLE] = str(interpreter)
    try:
        await network.start()
    finally:
        del os.environ[FOLDER_VARIABLE]
    try:
        yield network
    finally:
        await network.stop()


def websocket(network: Network) -> str:
    return next(address for address in network.nodes[0].addresses if "/ws/" in address)


def asking(client: ParticleClient, *calls: tuple[str, str, str]) -> str:
    """A script that makes calls on the relay, (service, function, arguments) each, and answers with the results."""
    names = [f"x{number}" for number in range(len(calls))]
    script = f'(call "{client.peer_id}" ("test" "answer") [{" ".join(names)}])'
    for name, (service, function, arguments) in reversed(list(zip(names, calls, strict=True))):
        script = f'(seq (call "{client.relay}" ("{service}" "{function}") [{arguments}] {name}) {script})'
    return script


async def statistics(observing: Observer, network: Network) -> dict[str, float]:
    return (await observing.status(network.nodes[0])).particles or {}


async def test_builtins_answer_over_real_sockets(tmp_path: Path, interpreter_folder: Path) -> None:  # noqa: F811
    async with (
        aqua_network(tmp_path, interpreter_folder) as network,
        particle_client(websocket(network), interpreter_folder) as client,
    ):
        others = [node.peer_id for node in network.nodes[1:]]
        answer = await client.run(
            asking(
                client,
                ("peer", "timestamp_sec", ""),
                ("peer", "identify", ""),
                ("peer", "is_connected", f'"{others[0]}"'),
                ("kad", "neighborhood", '"abc" [] []'),
                ("sig", "get_peer_id", ""),
                ("trust-graph", "get_weight", f'"{others[0]}" x0'),
            )
        )
        seconds, identified, connected, neighbours, signer, weight = answer
        assert abs(seconds - time.time()) < 5
        assert identified["air_version"] == "0.62.0"
        assert identified["external_addresses"] == network.nodes[0].addresses
        assert connected is True
        assert sorted(neighbours) == sorted(others)
        assert signer == client.relay
        assert weight == {"success": True, "weight": 0, "peer_id": others[0], "error": ""}
        through_relay = f'(call "{client.relay}" ("op" "noop") [])'
        told = f'(seq {through_relay} (call "{client.peer_id}" ("test" "answer") [:error:]))'
        script = f'(seq {through_relay} (xor (call "{others[0]}" ("no" "such") []) {told}))'
        [error] = await client.run(script)
        assert error["error_code"] == 10000
        assert "Service with id 'no' not found (function such)" in error["message"]


async def test_node_survives_floods_fuzz_and_endless_scripts(
    tmp_path: Path,
    interpreter_folder: Path,  # noqa: F811
) -> None:
    randomness = random.Random(1)
    async with (
        aqua_network(tmp_path, interpreter_folder, 2) as network,
        particle_client(websocket(network), interpreter_folder) as hostile,
        particle_client(websocket(network), interpreter_folder) as honest,
        observer() as observing,
    ):
        good = framed(encode(hostile.particle("(null)")))
        for _ in range(30):
            fuzzed = bytearray(good)
            for _ in range(randomness.randrange(1, 8)):
                fuzzed[randomness.randrange(len(fuzzed))] = randomness.randrange(256)
            await hostile.send_raw(bytes(fuzzed[: randomness.randrange(1, len(fuzzed) + 1)]))
        await hostile.send_raw(b"\xff\xff\xff\xff\xff")
        await hostile.send(hostile.particle("(null)", ttl=0))
        await hostile.send(hostile.particle("x" * 600_000))
        endless = an_endless_script(hostile.relay).replace("[[]]", f"[{list_of(50)}]")
        endless = endless.replace('"identity"', '"array"')
        for _ in range(4):
            await hostile.send(hostile.particle(endless))
        to_nowhere = f'(call "{honest.peer_id[:-4]}abcd" ("a" "b") [])'
        for _ in range(50):
            await hostile.send(hostile.particle(to_nowhere))

        began = time.monotonic()
        for _ in range(5):
            await honest.run(asking(honest, ("op", "identity", '"still here"')))
        assert time.monotonic() - began < 10, "two interpreters, each held for 2 s by an endless script at most"
        async with connect(network.nodes[0].address) as native:
            created, errors = await native.createResource("native")
            assert created, errors
        counted = partial(statistics, observing, network)
        counts = await eventually(counted, lambda told: told.get("interrupted", 0) >= 4, 30)
        assert counts["dropped: malformed"] >= 1
        assert counts["dropped: too large"] >= 1
        assert counts["dropped: expired"] + counts.get("dropped: bad signature", 0) >= 1
        assert all(node.alive for node in network.nodes)
        # Everything ends with its particle.
        await eventually(counted, lambda told: told["actors"] == told["bytes"] == 0, 30)


def list_of(count: int) -> str:
    return " ".join(map(str, range(count)))
