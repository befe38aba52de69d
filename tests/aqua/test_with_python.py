"""One network for both: what Python writes is there for original clients, and the other way round."""

from __future__ import annotations

import pytest
import trio

from aqua_compat import connect
from tests.aqua.js_peer import JsProcess
from tests.aqua.nodes import NODES, AquaNetwork, websocket
from tests.aqua.test_scenarios import SETTLED, label, resolved
from tests.end_to_end.network import eventually
from tests.end_to_end.test_watch import Watcher, watching

pytestmark = pytest.mark.timeout(300)  # the first test also installs


async def test_a_resource_made_in_python_is_resolved_in_aqua(network: AquaNetwork, js: JsProcess) -> None:
    async with connect(network.relay()) as aqua, js.peer(websocket(network.nodes[2])) as peer:
        name = label()
        resource_id, errors = await aqua.createResource(name)
        assert resource_id is not None, errors
        assert await aqua.registerService(resource_id, "made in Python", aqua.peer_id, "s") == (True, [])
        [record] = await resolved(peer, resource_id, 1, 1)
        assert record["metadata"]["value"] == "made in Python"
        assert record["metadata"]["issued_by"] == record["metadata"]["peer_id"] == aqua.peer_id
        resource, errors = await peer.call("getResource", resource_id)
        assert resource is not None, errors
        assert (resource["owner_peer_id"], resource["label"]) == (aqua.peer_id, name)
        assert await aqua.unregisterService(resource_id, aqua.peer_id) == (True, [])
        assert await resolved(peer, resource_id, 1, 0) == []


async def test_a_resource_made_in_aqua_is_resolved_and_watched_in_python(network: AquaNetwork, js: JsProcess) -> None:
    async with connect(network.relay()) as aqua, js.peer(websocket(network.nodes[3])) as peer:
        resource_id, errors = await peer.call("createResource", label())
        assert resource_id is not None, errors
        watcher = Watcher(aqua, resource_id)
        async with watching(watcher):
            done, errors = await peer.call("registerService", resource_id, "made in Aqua", peer.peer_id, "s")
            assert done, errors
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == ["made in Aqua"], SETTLED)
            records, errors = await aqua.resolveResource(resource_id, NODES)
            assert records is not None, errors
            [record] = records
            assert record.metadata.issued_by == record.metadata.peer_id == peer.peer_id
            assert record.metadata.relay_id == (network.nodes[3].peer_id,)
            done, errors = await peer.call("unregisterService", resource_id, peer.peer_id)
            assert done, errors
            await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == [], SETTLED)
        resource, errors = await aqua.getResource(resource_id)
        assert resource is not None, errors
        assert resource.owner_peer_id == peer.peer_id


async def test_both_register_on_one_resource_and_see_each_other(network: AquaNetwork, js: JsProcess) -> None:
    async with connect(network.relay()) as aqua, js.peer(websocket(network.nodes[0])) as peer:
        resource_id, done, errors = await peer.call("createAndRegister", label(), "Aqua", peer.peer_id, "s")
        assert done, errors
        assert await aqua.registerService(resource_id, "Python", aqua.peer_id, "s") == (True, [])
        both = await resolved(peer, resource_id, 1, 2)
        assert sorted(record["metadata"]["value"] for record in both) == ["Aqua", "Python"]

        async def in_python() -> list[str]:
            records, errors = await aqua.resolveResource(resource_id, 1)
            assert records is not None, errors
            return sorted(record.metadata.value for record in records)

        await eventually(in_python, lambda values: values == ["Aqua", "Python"], SETTLED)
