"""What a node issues costs its disk one transaction, and is there before it goes anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TypeVar

import trio
import trio.testing

from registry.model.values import Slot
from registry.settings import NodeSettings, RegistrySettings
from registry.storage import Change, Transaction
from tests.simulation.nodes import SimulatedNode, simulated_nodes

NOW = 1_700_000_000
Result = TypeVar("Result")


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


async def counted(node: SimulatedNode, operation: Awaitable[Result]) -> tuple[Result, int]:
    """What an operation comes to, and how many writes it made on the node's disk."""
    before = node.store.writes
    result = await operation
    return result, node.store.writes - before


async def test_every_operation_of_an_issuer_is_one_transaction_on_its_node(autojump_clock) -> None:
    async with simulated_nodes(1, clock=clock) as (_, [node]):
        registry, me = node.registry, node.peer_id
        created, writes = await counted(node, registry.create_resource("sample"))
        assert (created.errors, writes) == ((), 1)
        resource_id = created.resource_id or ""
        assert await counted(node, registry.register_service(resource_id, "v", me, "s")) == ((True, ()), 1)
        assert await counted(node, registry.register_service(resource_id, "w", me, "s")) == ((True, ()), 1)
        assert await counted(node, registry.unregister_service(resource_id, me)) == ((True, ()), 1)
        assert await counted(node, registry.remove_resource(resource_id)) == ((True, ()), 1)


async def test_the_other_replicas_take_each_put_in_one_transaction_too(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        created = await nodes[0].registry.create_resource("sample", factor=3)
        resource_id = created.resource_id or ""
        before = [node.store.writes for node in nodes]
        done = await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, None, factor=3)
        assert done.success
        assert [node.store.writes - count for node, count in zip(nodes, before, strict=True)] == [1, 1, 1]


async def test_a_tombstone_for_another_peers_service_is_one_transaction_on_a_replica(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (_, nodes):
        resource_id = (await nodes[0].registry.create_resource("sample", factor=2)).resource_id or ""
        assert (await nodes[0].registry.register_service(resource_id, "v", nodes[1].peer_id, None, factor=2)).success
        ended = nodes[0].registry.unregister_service(resource_id, nodes[1].peer_id, factor=2)
        assert await counted(nodes[0], ended) == ((True, ()), 1)


async def test_the_timestamp_is_on_disk_together_with_what_it_signed(autojump_clock) -> None:
    async with simulated_nodes(1, clock=clock) as (_, [node]):
        me = node.peer_id
        resource_id = (await node.registry.create_resource("sample")).resource_id or ""
        issued: list[tuple[int, int]] = []

        def look(transaction: Transaction) -> int:
            return transaction.issued.last(resource_id, me)

        async def note(changed: Mapping[str, Change]) -> None:
            for state in changed[resource_id].slots.values():
                assert state is not None
                issued.append((state.timestamp_issued, await node.store.read(look)))

        async with trio.open_nursery() as nursery:
            node.store.on_commit(lambda changed: nursery.start_soon(note, dict(changed)))
            for value in ("a", "b", "c"):
                assert (await node.registry.register_service(resource_id, value, me, None)).success
                await trio.testing.wait_all_tasks_blocked()
        assert issued == [(issued[0][0] + number,) * 2 for number in range(3)], "each before the next one is signed"


async def test_states_that_others_would_not_accept_yet_wait(autojump_clock) -> None:
    settings = NodeSettings(registry=RegistrySettings(clock_skew=4))
    async with simulated_nodes(1, settings, clock) as (_, [node]):
        resource_id = (await node.registry.create_resource("sample")).resource_id or ""
        slot = Slot(resource_id, node.peer_id, node.peer_id)
        seen: list[int] = []
        for number in range(8):
            assert (await node.registry.register_service(resource_id, f"{number}", node.peer_id, None)).success
            seen.append((await node.store.resource(resource_id)).slots[slot].timestamp_issued)
            assert seen[-1] <= clock() + 2
        assert seen == sorted(set(seen)), "no second twice"


async def test_a_value_beyond_the_limits_leaves_nothing_behind(autojump_clock) -> None:
    settings = NodeSettings(registry=RegistrySettings(max_value=10))
    async with simulated_nodes(1, settings, clock) as (_, [node]):
        resource_id = (await node.registry.create_resource("sample")).resource_id or ""
        for value in ("x" * 11, "x" * 10_000_000):
            done = await node.registry.register_service(resource_id, value, node.peer_id, None)
            assert not done.success
            assert "more than" in done.errors[0]
        assert not (await node.store.resource(resource_id)).slots
