"""What was acknowledged survives kill -9 and restarts."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import trio

from aqua_compat import Constants, connect
from registry.model.values import Record
from registry.node import DATABASE
from tests.end_to_end.network import MAJORITY, NODES, Network, eventually

PAGE = 4096  # of the database; the first holds the schema
EVERYONE = Constants(INITIAL_REPLICATION_FACTOR=NODES)


async def _kill(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        for node in network.nodes:
            nursery.start_soon(node.kill)


async def test_record_on_a_killed_nodes_disk_is_there_when_it_comes_back(own_network: Network) -> None:
    victim = random.choice(own_network.nodes)
    async with connect(victim.address, constants=EVERYONE) as aqua:
        resource_id, _ = await aqua.createResource("killed")
        assert resource_id is not None
        assert await aqua.registerService(resource_id, "kept", aqua.peer_id, None) == (True, [])
        await victim.kill()
    await own_network.restart([victim])
    async with connect(victim.address) as reader:
        stored = await reader.registry.on_host("get_records", resource_id, None)
        assert [record.metadata.value for record in stored.result] == ["kept"]


async def test_a_node_whose_database_is_damaged_is_refilled_by_the_others(own_network: Network, tmp_path: Path) -> None:
    victim, *_, other = own_network.nodes
    async with connect(other.address, constants=EVERYONE) as aqua:
        resource_id, _ = await aqua.createResource("refilled")
        assert resource_id is not None
        assert await aqua.registerService(resource_id, "kept", aqua.peer_id, None) == (True, [])
    await victim.stop()
    database = victim.data_dir / DATABASE
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(PAGE)
        file.write(bytes(size - PAGE))
    config = tmp_path / "refill.toml"
    config.write_text("refill_damaged = true\n")
    own_network.flags += ("--config", str(config))
    await own_network.restart([victim])
    assert list(victim.data_dir.glob("registry.sqlite.damaged-*")), "it was set aside"
    async with connect(victim.address) as reader:

        async def values() -> list[str]:
            stored = await reader.registry.on_host("get_records", resource_id, None)
            return [record.metadata.value for record in stored.result or ()]

        assert await eventually(values, lambda found: found == ["kept"]) == ["kept"]


async def test_write_of_one_replica_survives_kill_of_all(own_network: Network) -> None:
    async with connect(own_network.relay()) as aqua:
        resource_id, _ = await aqua.createResource("all killed")
        assert resource_id is not None
        registered = await eventually(
            partial(aqua.registerService, resource_id, "kept", aqua.peer_id, None), lambda answer: answer[0]
        )
        assert registered[0]
        await _kill(own_network)
    await own_network.restart(own_network.nodes)
    async with connect(own_network.relay()) as reader:
        records, errors = await reader.resolveResource(resource_id, 1)
        found = {record.metadata.value for record in records or []}
        if found != {"kept"}:  # one replica may have it alone: then all must be asked
            records, errors = await eventually(
                partial(reader.resolveResource, resource_id, 1), lambda answer: bool(answer[0])
            )
        assert records, errors


async def test_restart_of_every_node_loses_nothing(own_network: Network) -> None:
    acknowledged: dict[str, str] = {}
    removed: list[str] = []
    majority = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY)
    async with connect(own_network.relay(), constants=majority) as aqua:
        for number in range(10):
            resource_id, _ = await aqua.createResource(f"restarted {number}")
            assert resource_id is not None
            host = random.choice(own_network.nodes).peer_id
            assert (await aqua.registerService(resource_id, f"value {number}", host, "s"))[0]
            acknowledged[resource_id] = f"value {number}"
            if number % 3 == 0:
                assert (await aqua.unregisterService(resource_id, host))[0]
                removed.append(resource_id)
    codes = []
    for node in own_network.nodes:
        codes.append(await node.stop())
    assert codes == [0] * NODES
    await own_network.restart(own_network.nodes)
    async with connect(own_network.relay()) as reader:
        for resource_id, value in acknowledged.items():
            records, errors = await reader.resolveResource(resource_id, MAJORITY)
            assert records is not None, errors
            assert _values(records) == ([] if resource_id in removed else [value])
            key, _ = await reader.getResource(resource_id)
            assert key is not None


async def test_network_serves_while_two_nodes_are_dead(own_network: Network) -> None:
    dead = random.sample(own_network.nodes, 2)
    alive = [node for node in own_network.nodes if node not in dead]
    majority = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY)
    async with connect([node.address for node in (*dead, *alive)], constants=majority) as aqua:
        resource_id, _ = await aqua.createResource("half alive")
        assert resource_id is not None
        for node in dead:
            await node.kill()
        registered = await eventually(
            partial(aqua.registerService, resource_id, "v", aqua.peer_id, None), lambda answer: answer[0]
        )
        assert registered[0]
        records, errors = await aqua.resolveResource(resource_id, 1)
        assert records is not None, errors
        assert _values(records) == ["v"]
    await own_network.restart(dead)


def _values(records: list[Record]) -> list[str]:
    return [record.metadata.value for record in records]
