"""The original's own end-to-end scenarios: its registry's Aqua, its compiler and its client, on four of our nodes."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.aqua.js_peer import JsPeer, JsProcess
from tests.aqua.nodes import AquaNetwork, websocket
from tests.end_to_end.network import eventually

pytestmark = pytest.mark.timeout(300)  # the first test also installs

SETTLED = 5.0  # seconds within which all neighbours have what one acknowledged, on a busy machine


def label() -> str:
    return f"label {uuid4().hex}"


async def resolved(peer: JsPeer, resource_id: str, ack: int, count: int) -> list[dict[str, Any]]:
    """What a resource resolves to once it has so many records.

    The original's constants let a write count when one neighbour has it and a read when `ack` answered, so that a read
    right after a write may be too early.
    """

    async def resolve() -> list[dict[str, Any]]:
        records, errors = await peer.call("resolveResource", resource_id, ack)
        assert records is not None, errors
        return records

    return await eventually(resolve, lambda records: len(records) == count, SETTLED)


async def test_the_id_of_a_created_resource_is_the_one_that_anyone_computes(
    network: AquaNetwork, js: JsProcess
) -> None:
    async with js.peer(websocket(network.nodes[0])) as peer:
        created, computed, errors = await peer.call("createAndIdentify", label())
        assert errors == []
        assert created == computed


async def test_a_created_resource_is_got_with_its_id_owner_and_label(network: AquaNetwork, js: JsProcess) -> None:
    async with js.peer(websocket(network.nodes[1])) as peer:
        name = label()
        created, resource, errors = await peer.call("createAndGet", name)
        assert resource is not None, errors
        assert (resource["id"], resource["owner_peer_id"], resource["label"]) == (created, peer.peer_id, name)


async def test_a_service_of_the_client_is_found_until_it_is_unregistered(network: AquaNetwork, js: JsProcess) -> None:
    async with js.peer(websocket(network.nodes[2])) as peer:
        resource_id, done, errors = await peer.call("createAndRegister", label(), "some value", peer.peer_id, "id")
        assert done, errors
        [record] = await resolved(peer, resource_id, 1, 1)
        metadata = record["metadata"]
        assert metadata["key_id"] == resource_id
        assert metadata["issued_by"] == metadata["peer_id"] == peer.peer_id
        assert metadata["service_id"] == ["id"]
        assert metadata["relay_id"] == [network.nodes[2].peer_id]
        assert metadata["value"] == "some value"
        done, errors = await peer.call("unregisterService", resource_id, peer.peer_id)
        assert done, errors
        assert await resolved(peer, resource_id, 2, 0) == []


async def test_a_service_of_a_remote_peer_is_found_until_it_is_unregistered(
    network: AquaNetwork, js: JsProcess
) -> None:
    async with js.peer(websocket(network.nodes[3])) as peer:
        host = network.nodes[0].peer_id
        resource_id, done, errors = await peer.call("createAndRegister", label(), "some value", host, "id")
        assert done, errors
        [record] = await resolved(peer, resource_id, 2, 1)
        metadata = record["metadata"]
        assert metadata["key_id"] == resource_id
        assert (metadata["issued_by"], metadata["peer_id"]) == (peer.peer_id, host)
        assert metadata["service_id"] == ["id"]
        done, errors = await peer.call("unregisterService", resource_id, host)
        assert done, errors
        assert await resolved(peer, resource_id, 2, 0) == []
