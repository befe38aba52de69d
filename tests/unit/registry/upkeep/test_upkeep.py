"""Removal, renewal, catching up, repair and quotas between whole nodes over a simulated network, in virtual time."""

from __future__ import annotations

from typing import Any

import trio

from registry.client.node_operations import SERVICE, CallBody, ServiceRequest
from registry.codes import Code
from registry.model.values import Record, Tombstone
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item, build
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from registry.upkeep.schedules import CLEAR_EXPIRED, RENEW, REPLICATE
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import a_key, a_key_tombstone, a_record, a_tombstone, identity

START = 1_700_000_000


def clock() -> float:
    return START + trio.current_time()


def settings(upkeep: UpkeepSettings | None = None, **rules: object) -> NodeSettings:
    return NodeSettings(
        registry=RegistrySettings(**{"neighbourhood_size": 5, **rules}),  # type: ignore[arg-type]
        upkeep=upkeep or UpkeepSettings(),
    )


async def registered(node: SimulatedNode, factor: int) -> str:
    """A resource with one service on `node`, on `factor` replicas' disks."""
    resource_id, errors = await node.registry.create_resource("sample", factor=factor)
    assert resource_id is not None, errors
    assert (await node.registry.register_service(resource_id, "v", node.peer_id, None, factor=factor)).success
    return resource_id


async def values(node: SimulatedNode, resource_id: str, ack: int = 1) -> list[str] | None:
    records, _ = await node.registry.resolve_resource(resource_id, ack)
    return None if records is None else [record.metadata.value for record in records]


async def test_a_removed_resource_is_found_nowhere_and_begins_anew_empty(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (_, nodes):
        resource_id = await registered(nodes[0], 5)
        assert (await nodes[1].registry.remove_resource(resource_id)).errors == (
            f"only its owner {nodes[0].peer_id} may remove resource {resource_id}",
        )
        assert (await nodes[0].registry.remove_resource(resource_id, factor=5)).success
        assert [await values(node, resource_id) for node in nodes] == [None] * 5
        late = await nodes[0].registry.register_service(resource_id, "late", nodes[0].peer_id, None)
        assert not late.success
        created = await nodes[0].registry.create_resource("sample", factor=5)
        assert created.resource_id == resource_id, created.errors
        assert await values(nodes[3], resource_id, 3) == []
        assert (await nodes[2].registry.register_service(resource_id, "new", nodes[2].peer_id, None, factor=5)).success
        assert await values(nodes[3], resource_id, 3) == ["new"]


async def test_a_host_that_missed_a_removal_learns_of_it_instead_of_renewing(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (network, nodes):
        resource_id = await registered(nodes[0], 5)
        assert (await nodes[1].registry.register_service(resource_id, "w", nodes[1].peer_id, None, factor=5)).success
        network.down.add(nodes[1].peer_id)
        assert (await nodes[0].registry.remove_resource(resource_id, factor=4)).success
        network.down.clear()
        await trio.sleep(30_000)
        done = await nodes[1].parts.upkeep.run_now(RENEW)
        assert "ended" in done.did or not (await nodes[1].store.resource(resource_id)).slots
        assert [(await node.store.resource(resource_id)).key for node in nodes] == [None] * 5
        assert [await values(node, resource_id) for node in nodes] == [None] * 5


async def test_records_and_keys_live_as_long_as_their_hosts_and_owners_run(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (_, nodes):
        resource_id = await registered(nodes[0], 5)
        issued_for_another = await nodes[1].registry.register_service(
            resource_id, "for another", nodes[2].peer_id, None, factor=5
        )
        assert issued_for_another.success, issued_for_another.errors
        await trio.sleep(1.5 * 86_400)
        assert sorted(await values(nodes[4], resource_id, 5) or ()) == ["for another", "v"]
        key = (await nodes[4].store.resource(resource_id)).key
        assert key is not None
        assert clock() - key.timestamp_created < 86_400


async def test_what_its_host_doesnt_renew_expires_and_is_collected(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (network, nodes):
        resource_id = await registered(nodes[0], 5)
        network.down.add(nodes[0].peer_id)
        network.muted.add(nodes[0].peer_id)
        await trio.sleep(86_400)
        assert await values(nodes[1], resource_id) == []
        done = await nodes[1].parts.upkeep.run_now(CLEAR_EXPIRED)
        assert done.did.startswith("keys 1, records 1, tombstones 0")
        events = await nodes[1].registry.explain(resource_id)
        assert [(event.what, event.detail) for event in events if event.what == "expired"] == [
            ("expired", "by age"),
            ("expired", "by age, with nothing under it"),
        ]
        network.down.clear()
        network.muted.clear()
        done = await nodes[0].parts.upkeep.run_now(RENEW)
        assert done.did == "nothing was due", "a host that was away for longer than the expired age doesn't renew"


async def test_an_issuers_signature_is_renewed_before_it_is_too_old(autojump_clock) -> None:
    rules = settings(UpkeepSettings(renew=100.0), expired_age=1_000, record_lifetime=4_000, key_lifetime=8_000)
    async with simulated_nodes(3, rules, clock) as (_, nodes):
        resource_id = await registered(nodes[0], 3)
        await trio.sleep(10_000)
        assert await values(nodes[1], resource_id, 3) == ["v"]
        [state] = (await nodes[1].store.resource(resource_id)).slots.values()
        assert clock() - state.timestamp_issued < 4_000


async def test_a_read_repairs_replicas_that_were_behind_once(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (network, nodes):
        resource_id = await registered(nodes[0], 5)
        behind = nodes[4]
        network.down.add(behind.peer_id)
        assert (await nodes[0].registry.unregister_service(resource_id, nodes[0].peer_id, factor=4)).success
        network.down.clear()
        assert await values(nodes[1], resource_id, 5) == []
        await trio.sleep(1)
        [state] = (await behind.store.resource(resource_id)).slots.values()
        assert not isinstance(state, Record)
        before = len(network.calls)
        assert await values(nodes[1], resource_id, 5) == []
        await trio.sleep(1)
        assert {method for _, _, method in network.calls[before:]} == {"registry.read"}


async def test_everything_is_compared_and_repaired_by_the_schedule(autojump_clock) -> None:
    async with simulated_nodes(5, settings(), clock) as (network, nodes):
        resource_id = await registered(nodes[0], 5)
        network.down.add(nodes[4].peer_id)
        assert (await nodes[1].registry.register_service(resource_id, "w", nodes[1].peer_id, None, factor=4)).success
        await trio.sleep(10)
        network.down.clear()
        assert len((await nodes[4].store.resource(resource_id)).slots) == 1
        await nodes[2].parts.upkeep.run_now(REPLICATE)
        assert len((await nodes[4].store.resource(resource_id)).slots) == 2
        assert nodes[2].parts.replication.status().repaired == 1
        assert (await nodes[4].registry.explain(resource_id))[-1].detail == f"from {nodes[2].peer_id}"


async def test_owners_cant_fill_a_node_with_keys(autojump_clock) -> None:
    async with simulated_nodes(1, settings(keys_per_owner=3), clock) as (_, [node]):
        ingest = node.parts.replica.ingest
        keys = [Item(a_key(str(number), created=START)) for number in range(3)]
        assert await ingest.store(keys, "a test") == [None] * 3
        [error] = await ingest.store([Item(a_key("x", created=START))], "t")
        assert error is not None
        assert error.code == Code.QUOTA_EXCEEDED
        assert "quota exceeded: 3 keys of the owner" in error.text
        [error] = await ingest.store([Item(a_key_tombstone("y", issued=START))], "t")
        assert error is not None
        assert error.code == Code.QUOTA_EXCEEDED
        assert await ingest.store([Item(a_key("0", created=START + 1))], "t") == [None], "an update is no new key"
        assert await ingest.store([Item(a_key_tombstone("0", issued=START + 1))], "t") == [None], "nor is a removal"


async def test_tombstones_for_unknown_records_are_bounded_but_known_ones_always_end(autojump_clock) -> None:
    async with simulated_nodes(1, settings(tombstones_per_key=3), clock) as (_, [node]):
        ingest, key = node.parts.replica.ingest, a_key(created=START)
        record = a_record(key.id, identity(50), identity(51), START)
        stones = [Item(key, a_tombstone(key.id, identity(number), identity(51), START)) for number in range(10, 14)]
        assert await ingest.store([Item(key, record)], "a test") == [None]
        errors = await ingest.store(stones, "a test")
        assert errors[:3] == [None] * 3
        assert errors[3] is not None
        assert "quota exceeded: 3 tombstones" in errors[3].text
        end = a_tombstone(key.id, identity(50), identity(51), START + 1)
        assert await ingest.store([Item(key, end)], "a test") == [None]


async def test_a_sender_of_many_tombstones_is_slowed_down(autojump_clock) -> None:
    async with simulated_nodes(1, settings(tombstone_burst=2, tombstone_rate=1.0), clock) as (_, [node]):
        ingest, key = node.parts.replica.ingest, a_key(created=START)
        stones = [Item(key, a_tombstone(key.id, identity(number), identity(51), START)) for number in range(10, 14)]
        errors = await ingest.store(stones[:3], "a sender")
        assert errors[:2] == [None, None]
        assert errors[2] is not None
        assert errors[2].kind.is_temporary
        assert "too many tombstones for unknown records by a sender" in errors[2].text
        assert await ingest.store(stones[2:3], "another") == [None]
        await trio.sleep(1)
        assert await ingest.store(stones[3:], "a sender") == [None]


async def test_a_stranger_who_calls_the_service_is_slowed_down_alike(autojump_clock) -> None:
    async with simulated_nodes(2, settings(tombstone_burst=2, tombstone_rate=1.0), clock) as (_, [node, stranger]):
        key = a_key(created=START)
        stones = [a_tombstone(key.id, identity(number), identity(51), START) for number in range(10, 14)]
        ingest = node.parts.replica.ingest
        assert await ingest.store([Item(key, stones[0])], stranger.peer_id) == [None]

        async def bury(stone: Tombstone) -> str:
            fields = (*(getattr(stone, name) for name in stone.__struct_fields__), None)
            body = build(CallBody(5.0, build(ServiceRequest("add_tombstone", fields))))
            answer: Any = await stranger.peer.call(node.peer_id, SERVICE.name, body, timeout=5)
            return str(answer[0]["error"])

        assert await bury(stones[1]) == ""
        assert f"too many tombstones for unknown records by {stranger.peer_id}" in await bury(stones[2])
        assert await ingest.store([Item(key, stones[2])], "another") == [None]
        await trio.sleep(1)
        assert await bury(stones[3]) == ""


async def test_a_full_node_refuses_what_is_new_and_keeps_what_it_has(autojump_clock) -> None:
    async with simulated_nodes(1, settings(max_disk_bytes=8_000, sender_share=1.0), clock) as (_, [node]):
        ingest, key = node.parts.replica.ingest, a_key(created=START)
        full = ErrorInfo(Code.DISK_FULL, "quota exceeded: this peer's disk budget of 8000 bytes is full")
        assert await ingest.store([Item(key)], "t") == [full]
        assert full.kind.is_temporary
    async with simulated_nodes(1, settings(max_disk_bytes=350_000, sender_share=1.0), clock) as (_, [node]):
        ingest = node.parts.replica.ingest
        items = [
            Item(key, a_record(key.id, identity(number), identity(number), START, value="x" * 5_000))
            for number in range(10, 60)
        ]
        errors = await ingest.store(items, "t")
        taken = errors.count(None)
        assert 10 < taken < 50
        assert errors[-1] is not None
        assert errors[-1].code == Code.DISK_FULL
        assert node.store.space.is_full
        assert len((await node.store.resource(key.id)).slots) == taken
        renewed = a_record(key.id, identity(10), identity(10), START, START + 5, value="x" * 5_000)
        assert await ingest.store([Item(key, renewed)], "t") == [None]
        ended = a_tombstone(key.id, identity(11), identity(11), START + 1)
        assert await ingest.store([Item(key, ended)], "t") == [None]


async def test_why_a_record_is_there_and_why_it_went_can_be_asked(autojump_clock) -> None:
    async with simulated_nodes(3, settings(), clock) as (_, nodes):
        resource_id = await registered(nodes[0], 3)
        await trio.sleep(5)
        assert (await nodes[0].registry.unregister_service(resource_id, nodes[0].peer_id, factor=3)).success
        assert (await nodes[0].registry.remove_resource(resource_id, factor=3)).success
        events = await nodes[1].registry.explain(resource_id)
        assert [(event.what, event.peer_id) for event in events] == [
            ("stored", ""),
            ("stored", nodes[0].peer_id),
            ("tombstoned", nodes[0].peer_id),
            ("removed", ""),
        ]
        assert events[1].detail == f"from {nodes[0].peer_id}"
        assert events[2].detail == f"by its issuer {nodes[0].peer_id}"


async def test_records_that_are_ended_at_once_dont_fill_a_resource_for_ever(autojump_clock) -> None:
    async with simulated_nodes(1, settings(slots_per_key=6), clock) as (_, [node]):
        ingest, key = node.parts.replica.ingest, a_key(created=START)
        taken = 0
        for number in range(10, 20):
            record = Item(key, a_record(key.id, identity(number), identity(51), START))
            ended = Item(key, a_tombstone(key.id, identity(number), identity(51), START + 1))
            taken += (await ingest.store([record], "a test")) == [None]
            assert (await ingest.store([ended], "a test")) == [None] or taken == 6
        assert taken == 6


async def test_resources_are_listed_in_pages_by_their_ids(autojump_clock) -> None:
    async with simulated_nodes(1, settings(), clock) as (_, [node]):
        ingest = node.parts.replica.ingest
        keys = [a_key(f"{number}", created=START) for number in range(20)]
        await ingest.store([Item(key) for key in keys], "a test")
        await ingest.store(
            [Item(a_key_tombstone("removed", issued=START)), Item(a_key_tombstone("0", issued=START))], "a test"
        )
        pages = [await node.store.read(lambda transaction: transaction.positions.key_ids("", 7))]
        while pages[-1]:
            last = pages[-1][-1]
            pages.append(await node.store.read(lambda transaction, last=last: transaction.positions.key_ids(last, 7)))
        assert [len(page) for page in pages] == [7, 7, 7, 0]
        listed = [key_id for page in pages for key_id in page]
        assert listed == sorted([*(key.id for key in keys), a_key("removed").id])
