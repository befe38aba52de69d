"""What a host signed gets to the network though whoever registered went away in the middle of it. In virtual time."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from registry.client.abandoned_writes import GRACE, MAX_NOTED, AbandonedWrites
from registry.protocol.messages import Item, WriteOutcome
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import a_metadata

SMALL = NodeSettings(registry=RegistrySettings(neighbourhood_size=4))


async def digests(nodes: list[SimulatedNode], resource_id: str) -> set[bytes]:
    return {(await node.store.resource(resource_id)).digest() for node in nodes}


async def cancelled_after(seconds: float, act: Callable[[], Awaitable[object]]) -> bool:
    """Whether it was cancelled."""
    with trio.move_on_after(seconds) as scope:
        await act()
    return scope.cancelled_caught


async def cut_off_by(checkpoints: int, act: Callable[[], Awaitable[object]]) -> None:
    """Cancels it after so many rounds of the scheduler: wherever it then is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(act)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("own", [True, False], ids=["its own service", "another peer's service"])
async def test_cancelled_registrations_leave_no_host_ahead(autojump_clock: object, own: bool) -> None:
    randomness = random.Random(7)
    async with simulated_nodes(6) as (_, nodes):
        issuer, host = nodes[0], nodes[0 if own else 1]
        ids = [(await issuer.registry.create_resource(str(n), factor=6)).resource_id or "" for n in range(60)]
        signed = 0
        for number, resource_id in enumerate(ids):

            async def register(resource_id: str = resource_id) -> object:
                return await issuer.registry.register_service(resource_id, "v", host.peer_id, None)

            if number % 2:
                await cancelled_after(randomness.uniform(0, 0.03), register)
            else:
                await cut_off_by(randomness.randrange(40), register)
            signed += bool((await host.store.resource(resource_id)).slots)
        await trio.sleep(GRACE + 3)
        assert signed > 0, "some got as far as a signature"
        for resource_id in ids:
            assert len(await digests(nodes, resource_id)) == 1


async def test_a_watcher_is_told_of_what_a_host_signed_for_who_went_away(autojump_clock: object) -> None:
    async with simulated_nodes(4) as (_, [issuer, host, watcher, _]):
        resource_id = (await issuer.registry.create_resource("sample", factor=4)).resource_id or ""
        watch = watcher.registry.watch(resource_id)
        assert (await anext(watch)).records == ()
        await signed_for_nobody(issuer, host, resource_id)
        with trio.fail_after(GRACE + 2):
            event = await anext(watch)
        assert event.record is not None
        assert event.record.metadata.peer_id == host.peer_id


async def test_a_host_far_from_a_resource_asks_before_it_writes(autojump_clock: object) -> None:
    async with simulated_nodes(12, SMALL) as (_, nodes):
        issuer = nodes[0]
        resource_id = (await issuer.registry.create_resource("sample", factor=4)).resource_id or ""
        near = await issuer.registry.neighbours(resource_id)
        host, other = [node for node in nodes if node.peer_id not in near and node is not issuer][:2]
        assert (await issuer.registry.register_service(resource_id, "v", host.peer_id, None, factor=4)).success
        await trio.sleep(GRACE + 1)
        assert host.parts.abandoned.written == 0, "it found that the replicas have it"
        await signed_for_nobody(issuer, other, resource_id)
        await trio.sleep(GRACE + 1)
        assert other.parts.abandoned.written == 1
        replicas = [node for node in nodes if node.peer_id in near]
        assert len(await digests(replicas, resource_id)) == 1
        assert len((await replicas[0].store.resource(resource_id)).slots) == 2


async def test_what_is_written_as_ever_is_written_once(autojump_clock: object) -> None:
    async with simulated_nodes(6) as (_, nodes):
        resource_id = (await nodes[0].registry.create_resource("sample")).resource_id or ""
        for host in nodes:
            assert (await nodes[0].registry.register_service(resource_id, "v", host.peer_id, None)).success
            assert (await nodes[0].registry.unregister_service(resource_id, host.peer_id)).success
        await trio.sleep(GRACE + 1)
        assert (await nodes[0].registry.remove_resource(resource_id)).success
        await trio.sleep(GRACE + 1)
        assert [node.parts.abandoned.written for node in nodes] == [0] * 6


async def test_a_key_and_its_end_reach_the_network_too(autojump_clock: object) -> None:
    async with simulated_nodes(4) as (_, nodes):
        owner = nodes[0]
        resource_id = owner.registry.resource_id("sample", owner.peer_id)
        for checkpoints in range(1, 20):
            await cut_off_by(checkpoints, lambda: owner.registry.create_resource("sample"))
        await trio.sleep(GRACE + 1)
        assert len(await digests(nodes, resource_id)) == 1
        for checkpoints in range(1, 20):
            await cut_off_by(checkpoints, lambda: owner.registry.remove_resource(resource_id))
        await trio.sleep(GRACE + 1)
        assert len(await digests(nodes, resource_id)) == 1


async def signed_for_nobody(issuer: SimulatedNode, host: SimulatedNode, resource_id: str) -> None:
    """Has `host` sign a record, as a registration does that is cancelled right after."""
    key = (await issuer.registry.get_resource(resource_id)).key
    assert key is not None
    metadata = a_metadata(resource_id, issuer.identity, host.identity, int(time.time()))
    await issuer.parts.node_api.countersign(key, metadata, timeout=5)


async def test_what_is_signed_again_while_it_is_written_is_written_again(autojump_clock: object) -> None:
    written: list[Item] = []
    async with simulated_nodes(1) as (_, [node]), trio.open_nursery() as nursery:

        async def write(item: Item, *, factor: int, timeout: float) -> WriteOutcome:
            written.append(item)
            await trio.sleep(3 * GRACE)
            return await node.parts.writer.write(item, factor=factor, timeout=timeout)

        resource_id = (await node.registry.create_resource("sample")).resource_id or ""
        abandoned = AbandonedWrites(node.store, node.parts.reader.read, write, bool)
        await nursery.start(abandoned.run)
        for _ in range(2):
            abandoned.note(resource_id, None)
            await trio.sleep(GRACE + 1)
        nursery.cancel_scope.cancel()
    assert len(written) == 2


async def test_no_more_is_noted_than_the_bound(autojump_clock: object) -> None:
    async with simulated_nodes(1) as (_, [node]):
        abandoned = AbandonedWrites(node.store, node.parts.reader.read, node.parts.writer.write, bool)
        for number in range(2 * MAX_NOTED):
            abandoned.note(f"resource {number}", None)
            assert abandoned.noted <= MAX_NOTED
        assert abandoned.noted == MAX_NOTED
