"""A light client acts through one of the nodes that it was given, and goes on through another when that one fails."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import trio

from aqua_compat import Constants, EventKind, NodeSettings, RegistrySettings, connect, node
from overlay.tasks import TaskStatus
from registry.settings import UpkeepSettings
from tests.end_to_end.network import MAJORITY, Network, eventually

LONGEST = 12.0  # seconds within which a call has to find another node
OF_MOST = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY)


async def test_calls_go_on_when_the_nodes_that_serve_them_are_killed_one_by_one(own_network: Network) -> None:
    victims = random.sample(own_network.nodes, 2)
    left = next(node for node in own_network.nodes if node not in victims)
    addresses = [node.address for node in (*victims, left)]
    async with connect(addresses, constants=OF_MOST) as aqua:
        resource_id, errors = await aqua.createResource("failing over")
        assert resource_id is not None, errors
        for victim in victims:
            value = victim.peer_id
            await victim.kill()
            with trio.fail_after(LONGEST):
                assert await aqua.registerService(resource_id, value, aqua.peer_id, None) == (True, [])
                records, errors = await aqua.resolveResource(resource_id, 3)
            assert records is not None, errors
            assert [record.metadata.value for record in records] == [value]
    await own_network.restart(victims)


async def test_calls_go_on_when_the_node_that_serves_them_is_frozen(own_network: Network) -> None:
    frozen, awake = random.sample(own_network.nodes, 2)
    async with connect([frozen.address, awake.address], constants=OF_MOST) as aqua:
        resource_id, errors = await aqua.createResource("frozen")
        assert resource_id is not None, errors
        assert frozen.process_id is not None
        os.kill(frozen.process_id, signal.SIGSTOP)
        try:
            with trio.fail_after(LONGEST):
                found, errors = await aqua.getResource(resource_id)
            assert found is not None, errors
            assert found.id == resource_id
        finally:
            os.kill(frozen.process_id, signal.SIGCONT)


async def test_more_calls_than_a_node_takes_of_one_client_wait_within_their_deadline(network: Network) -> None:
    async with connect(network.relay(), constants=Constants(DEFAULT_TIMEOUT=40_000)) as aqua:
        resource_id, errors = await aqua.createResource("burst")
        assert resource_id is not None, errors
        done: list[bool] = []

        async def ask() -> None:
            records, errors = await aqua.resolveResource(resource_id, 1)
            assert records == [], errors
            done.append(True)

        async with trio.open_nursery() as nursery:
            for _ in range(600):  # 64 are served and 256 queued of one peer
                nursery.start_soon(ask)
        assert len(done) == 600


async def test_a_client_renews_and_expires_by_the_rules_of_its_network(tmp_path: Path) -> None:
    rules = RegistrySettings(expired_age=4)
    settings = NodeSettings(registry=rules, upkeep=UpkeepSettings(renew=2))
    async with node(tmp_path, settings=settings) as relay:
        address = (await relay.on(relay.peer_id).call("peer", "identify"))["external_addresses"][0]
        async with connect(address, rules=rules) as watcher, trio.open_nursery() as nursery:
            resource_id, errors = await watcher.createResource("short-lived")
            assert resource_id is not None, errors
            dying = trio.CancelScope()

            async def provide(*, task_status: TaskStatus[None]) -> None:
                async with connect(address, rules=rules) as provider:
                    done = await provider.registerService(resource_id, "v", provider.peer_id, "s")
                    assert done == (True, [])
                    task_status.started()
                    with dying:
                        await trio.sleep_forever()

            await nursery.start(provide)
            async with watcher.watch(resource_id) as events:
                assert len((await anext(events)).records) == 1
                registered = events.records[0].timestamp_created
                await eventually(
                    trio.lowlevel.checkpoint,
                    lambda _: events.records[0].timestamp_created >= registered + rules.expired_age,
                    LONGEST,
                )
                dying.cancel()  # without a word
                with trio.fail_after(LONGEST):
                    assert (await anext(events)).kind is EventKind.EXPIRED
                assert await watcher.resolveResource(resource_id, 1) == ([], [])
