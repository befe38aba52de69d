"""Peers that die in the middle of a call: others go on, and nodes keep nothing of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from tests.aqua.js_peer import CallFailed, JsPeer, JsProcess, PeerGone, process_of_its_own
from tests.aqua.nodes import AquaNetwork, websocket
from tests.aqua.npm import Tools
from tests.aqua.test_scenarios import label, resolved
from tests.end_to_end.network import eventually, observer

pytestmark = pytest.mark.timeout(300)  # the first test also installs

PATIENCE = 2_000  # milliseconds that a caller waits for greetings
LIFETIME = 5.0  # seconds that its particle lives


async def busy_provider(provider: JsPeer) -> str:
    """The resource of a provider that takes calls and never answers them."""
    await provider.serve("a greeter", None)
    resource_id, done, errors = await provider.call("createAndRegister", label(), "", provider.peer_id, "a greeter")
    assert done, errors
    await resolved(provider, resource_id, 1, 1)
    return str(resource_id)


async def works(peer: JsPeer) -> None:
    """Create, register, resolve, unregister."""
    resource_id, done, errors = await peer.call("createAndRegister", label(), "v", peer.peer_id, "s")
    assert done, errors
    [record] = await resolved(peer, resource_id, 1, 1)
    assert record["metadata"]["peer_id"] == peer.peer_id
    done, errors = await peer.call("unregisterService", resource_id, peer.peer_id)
    assert done, errors


def log_sizes(network: AquaNetwork) -> dict[Path, int]:
    return {node.log_file: node.log_file.stat().st_size for node in network.nodes}


def complaints(sizes: dict[Path, int]) -> list[str]:
    """What logs hold since then that no peer's death should cause."""
    found = []
    for file, size in sizes.items():
        with file.open(errors="replace") as log:
            log.seek(size)
            found += [line.rstrip() for line in log if re.search(r"Traceback|\[error|\[critical", line)]
    return found


async def forgotten(node: NodeProcess) -> None:
    """Wait until a node has no particle of these tests any more."""

    async with observer() as observing:

        async def left() -> tuple[int, int]:
            status = await observing.status(node)
            assert status.particles is not None
            return status.particles["actors"], status.particles["calls"]

        await eventually(left, lambda now: now == (0, 0), 30)


async def test_a_relay_dies_in_the_middle_of_a_call(network: AquaNetwork, js: JsProcess) -> None:
    dying, behind, other = network.nodes[1:]
    sizes = log_sizes(network)
    async with (
        js.peer(websocket(dying)) as caller,
        js.peer(websocket(behind)) as provider,
        js.peer(websocket(other)) as bystander,
        trio.open_nursery() as nursery,
    ):
        resource_id = await busy_provider(provider)
        outcome: list[object] = []

        async def call() -> None:
            try:
                outcome.append(await caller.call("greetings", resource_id, 1, PATIENCE, ttl=LIFETIME))
            except CallFailed as failure:
                outcome.append(failure)

        async def call_meanwhile() -> None:
            greetings, errors = await bystander.call("greetings", resource_id, 1, PATIENCE * 2)
            assert greetings == [], errors
            outcome.append("the bystander's call ended")

        nursery.start_soon(call)
        nursery.start_soon(call_meanwhile)
        with trio.fail_after(10):
            assert {await provider.called.receive(), await provider.called.receive()} == {
                caller.peer_id,
                bystander.peer_id,
            }
        await dying.kill()
        assert outcome == []
        await works(bystander)
        await works(provider)
        await eventually(trio.lowlevel.checkpoint, lambda _: len(outcome) == 2, LIFETIME + 5)
        assert "the bystander's call ended" in outcome
    await network.revive(dying)
    async with js.peer(websocket(dying)) as again:
        await works(again)
    assert complaints(sizes) == []


async def test_a_provider_and_a_caller_die_in_the_middle_of_a_call(
    network: AquaNetwork, js: JsProcess, js_tools: Tools
) -> None:
    near, far = network.nodes[2:]
    sizes = log_sizes(network)
    async with (
        process_of_its_own(js_tools) as of_caller,
        process_of_its_own(js_tools) as of_provider,
        js.peer(websocket(near)) as bystander,
        of_caller.peer(websocket(near)) as caller,
        of_provider.peer(websocket(far)) as provider,
        trio.open_nursery() as nursery,
    ):
        resource_id = await busy_provider(provider)

        async def call() -> None:
            with pytest.raises(PeerGone):
                await caller.call("greetings", resource_id, 1, PATIENCE, ttl=LIFETIME)

        async def call_meanwhile() -> None:
            greetings, errors = await bystander.call("greetings", resource_id, 1, PATIENCE)
            assert greetings == [], errors

        nursery.start_soon(call)
        nursery.start_soon(call_meanwhile)
        with trio.fail_after(10):
            assert {await provider.called.receive(), await provider.called.receive()} == {
                caller.peer_id,
                bystander.peer_id,
            }
        of_provider.kill()
        of_caller.kill()
        await works(bystander)
        greetings, errors = await bystander.call("greetings", resource_id, 1, PATIENCE)
        assert greetings == [], errors
    assert complaints(sizes) == []


async def test_the_services_of_a_killed_node_are_off_the_list_within_seconds_and_come_back_with_it(
    network: AquaNetwork, js: JsProcess
) -> None:
    dying, behind = network.nodes[1], network.nodes[2]
    async with js.peer(websocket(behind)) as peer:
        resource_id, done, errors = await peer.call("createAndRegister", label(), "on a node", dying.peer_id, "s")
        assert done, errors
        done, errors = await peer.call("registerService", resource_id, "of the client", peer.peer_id, "s")
        assert done, errors
        await resolved(peer, resource_id, 1, 2)
        await dying.kill()
        [left] = await resolved(peer, resource_id, 1, 1)
        assert left["metadata"]["value"] == "of the client"
        await network.revive(dying)
        await resolved(peer, resource_id, 1, 2)


async def test_nodes_forget_particles_whose_peers_died(network: AquaNetwork) -> None:
    for node in network.nodes:
        await forgotten(node)
