"""Writing, reading and hosting between whole nodes over a simulated network, in virtual time."""

from __future__ import annotations

from typing import cast

import msgspec
import trio

from overlay.identity import Identity
from registry.client.node_api import NodeApi
from registry.client.node_operations import OPERATIONS
from registry.client.registry import Registry
from registry.client.timestamps import TimestampLog
from registry.codes import Code
from registry.errors import NodeUnavailable
from registry.model.decoding import decode_state
from registry.model.values import Record, Tombstone, encode
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import COUNTERSIGN, PUT, READ, Item, ReadBody, StatePage, build, parse
from registry.settings import HostingPolicy, NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes

NOW = 1_700_000_000


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


def settings(**changes: object) -> NodeSettings:
    return NodeSettings(registry=RegistrySettings(**changes))  # type: ignore[arg-type]


async def make_resource(node: SimulatedNode, label: str = "sample", factor: int = 5) -> str:
    created = await node.registry.create_resource(label, factor=factor)
    assert created.resource_id is not None, created.errors
    return created.resource_id


async def copies(nodes: list[SimulatedNode], resource_id: str) -> list[bytes]:
    return [(await node.store.resource(resource_id)).digest() for node in nodes]


async def test_a_service_registered_through_one_node_is_resolved_through_every_other(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0])
        done = await nodes[1].registry.register_service(resource_id, "v", nodes[1].peer_id, "echo", factor=5)
        assert done == (True, ())
        for node in nodes:
            records, errors = await node.registry.resolve_resource(resource_id, 3)
            assert errors == ()
            [record] = records or ()
            assert record.metadata.value == "v"
            assert record.metadata.service_id == ("echo",)
            assert record.metadata.issued_by == nodes[1].peer_id
            assert record.metadata.relay_id == (), "a full node is its own relay"


async def test_an_unregistered_service_is_resolved_nowhere(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0])
        await nodes[1].registry.register_service(resource_id, "v", nodes[1].peer_id, None, factor=5)
        assert await nodes[1].registry.unregister_service(resource_id, nodes[1].peer_id, factor=5) == (True, ())
        for node in nodes:
            assert await node.registry.resolve_resource(resource_id, 5) == ((), ())


async def test_registering_again_after_unregistering_within_the_same_second_wins(autojump_clock) -> None:
    async with simulated_nodes(3, clock=lambda: NOW) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        for value in ("first", "second"):
            assert (await nodes[0].registry.register_service(resource_id, value, nodes[0].peer_id, None, factor=3))[0]
            assert (await nodes[0].registry.unregister_service(resource_id, nodes[0].peer_id, factor=3))[0]
        assert (await nodes[0].registry.register_service(resource_id, "third", nodes[0].peer_id, None, factor=3))[0]
        [record] = (await nodes[2].registry.resolve_resource(resource_id, 3)).records or ()
        assert record.metadata.value == "third"


async def test_an_issuer_ahead_of_its_clock_waits_rather_than_being_refused(autojump_clock) -> None:
    async with simulated_nodes(1, settings(clock_skew=10), clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=1)
        for number in range(30):  # 30 changes of one slot in no time: a lead of 5 s is allowed
            done = await nodes[0].registry.register_service(
                resource_id, str(number), nodes[0].peer_id, None, timeout=60
            )
            assert done == (True, ())
        [record] = (await nodes[0].registry.resolve_resource(resource_id, 1)).records or ()
        assert record.metadata.value == "29"
        assert record.timestamp_issued <= clock() + 5


async def test_a_replica_that_missed_a_tombstone_brings_no_dead_service_back(autojump_clock) -> None:
    """docs/design.md, original's fault 14."""
    async with simulated_nodes(5, clock=clock) as (network, nodes):
        resource_id = await make_resource(nodes[0])
        await nodes[1].registry.register_service(resource_id, "v", nodes[1].peer_id, None, factor=5)
        network.down.add(nodes[4].peer_id)
        await nodes[1].registry.unregister_service(resource_id, nodes[1].peer_id, factor=4)
        network.down.clear()
        records, _ = await nodes[0].registry.resolve_resource(resource_id, 5)
        assert records == ()


async def test_records_that_a_neighbour_invents_are_dropped(autojump_clock) -> None:
    """docs/design.md, original's fault 13."""
    async with simulated_nodes(5, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0])
        await nodes[1].registry.register_service(resource_id, "true", nodes[1].peer_id, None, factor=5)
        stored = await nodes[1].store.resource(resource_id)
        [genuine] = stored.records(NOW, RegistrySettings())
        forged = msgspec.structs.replace(
            genuine, metadata=msgspec.structs.replace(genuine.metadata, value="forged", timestamp_issued=NOW + 9)
        )

        async def lie(caller: str, body: object) -> object:
            assert parse(body, ReadBody).key_id == resource_id
            assert stored.key is not None
            return build(
                StatePage(holds_key=True, same=False, key=encode(stored.key), states=(encode(forged),), more=False)
            )

        for node in nodes[2:]:
            node.peer.intercept(READ, lie)
        records, _ = await nodes[0].registry.resolve_resource(resource_id, 5)
        assert [record.metadata.value for record in records or ()] == ["true"]


async def test_the_true_cause_of_a_failed_remote_registration_is_told(autojump_clock) -> None:
    """docs/design.md, original's fault 20."""
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        nowhere = Identity.from_seed(b"n" * 32).peer_id
        success, errors = await nodes[0].registry.register_service(resource_id, "v", nowhere, None)
        assert not success
        assert errors == (f"hosting refused: unreachable on {nowhere}",)


async def test_a_remote_peer_signs_for_others_as_its_operator_allows(autojump_clock) -> None:
    listed = NodeSettings(registry=RegistrySettings(hosting=HostingPolicy(allow="nobody")))
    async with simulated_nodes(2, listed, clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=2)
        success, errors = await nodes[0].registry.register_service(resource_id, "v", nodes[1].peer_id, None)
        assert not success
        assert "hosts no records issued by" in errors[0]
        assert (await nodes[1].registry.register_service(resource_id, "own", nodes[1].peer_id, None))[0]


async def test_a_stranger_has_a_quota_on_a_host_and_repeating_a_request_costs_nothing(autojump_clock) -> None:
    quota = NodeSettings(registry=RegistrySettings(hosting=HostingPolicy(max_records_per_issuer=2)))
    async with simulated_nodes(2, quota, clock) as (_, nodes):
        ids = [await make_resource(nodes[0], label, factor=2) for label in ("a", "b", "c")]
        for resource_id in ids[:2]:
            assert (await nodes[0].registry.register_service(resource_id, "v", nodes[1].peer_id, None))[0]
        success, errors = await nodes[0].registry.register_service(ids[2], "v", nodes[1].peer_id, None)
        assert not success
        assert "already hosts 2 records" in errors[0]
        updated = await nodes[0].registry.register_service(ids[0], "new value", nodes[1].peer_id, None)
        assert updated.success, "an update of what is hosted needs no further place"


async def test_too_many_hosting_requests_in_a_moment_are_refused_and_later_ones_taken(autojump_clock) -> None:
    slow = NodeSettings(registry=RegistrySettings(hosting=HostingPolicy(rate=1, burst=2)))
    async with simulated_nodes(2, slow, clock) as (_, nodes):
        ids = [await make_resource(nodes[0], label, factor=2) for label in ("a", "b", "c")]
        results = [await nodes[0].registry.register_service(i, "v", nodes[1].peer_id, None, timeout=0.5) for i in ids]
        assert [done.success for done in results] == [True, True, False]
        assert "come back in 1.0 s" in results[2].errors[0]
        await trio.sleep(1.5)
        assert (await nodes[0].registry.register_service(ids[2], "v", nodes[1].peer_id, None, timeout=0.5)).success


async def test_a_write_succeeds_without_the_dead_and_tells_who_didnt_take_it(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (network, nodes):
        stalled = nodes[3].peer_id
        network.stalled.add(stalled)
        created = await nodes[0].registry.create_resource("sample", factor=3)
        assert created.resource_id is not None
        failed = await nodes[0].registry.create_resource("other", factor=4, timeout=20)
        assert failed.resource_id is None
        assert failed.errors == (
            f"timeout exceeded on {stalled}",
            "3 of 4 replicas have it on disk, and the write goes on",
        )


async def test_a_read_doesnt_wait_for_a_stalled_replica_when_others_answer(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (network, nodes):
        resource_id = await make_resource(nodes[0])
        await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, None, factor=5)
        network.stalled.update(node.peer_id for node in nodes[1:3])
        before = trio.current_time()
        records, _ = await nodes[0].registry.resolve_resource(resource_id, 3)
        assert len(records or ()) == 1
        assert trio.current_time() - before < 1, "asking further replicas waits 50 ms, not for the deadline"
        records, errors = await nodes[0].registry.resolve_resource(resource_id, 4)
        assert records is None
        assert errors[-1] == "timeout exceeded"


async def test_one_replica_that_knows_nothing_doesnt_decide_that_there_is_nothing(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (network, nodes):
        network.down.add(nodes[4].peer_id)
        resource_id = await make_resource(nodes[0], factor=4)
        await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, None, factor=4)
        network.down.clear()
        records, errors = await nodes[4].registry.resolve_resource(resource_id, 1)
        assert len(records or ()) == 1
        assert errors == (f"Requested key {resource_id} does not exist on {nodes[4].peer_id}",)


async def test_a_node_without_company_refuses_writes_and_says_so(autojump_clock) -> None:
    async with simulated_nodes(1, clock=clock) as (_, nodes):
        nodes[0].peer.isolated = True
        created = await nodes[0].registry.create_resource("sample")
        assert created.resource_id is None
        assert "not connected" in created.errors[0]


async def test_a_node_that_lost_its_company_says_so_to_who_reads(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (network, nodes):
        resource_id = await make_resource(nodes[0], factor=2)
        network.down.add(nodes[0].peer_id)
        nodes[1].peer.isolated = True
        for callback in nodes[1].peer.callbacks:
            callback()
        await trio.sleep(1)
        records, errors = await nodes[1].registry.resolve_resource(resource_id, 1, timeout=2)
        assert records is None
        assert errors[0].startswith("not connected: no live member of the network is known")


async def test_whose_lookup_isnt_done_in_time_isnt_told_that_nobody_is_known(autojump_clock, monkeypatch) -> None:
    async with simulated_nodes(4) as (_, [owner, *_]):

        async def never(key_id: str, count: int) -> list[str]:
            raise AssertionError(await trio.sleep_forever(), key_id, count)

        monkeypatch.setattr(owner.peer, "neighbourhood", never)
        created = await owner.registry.create_resource("sample", timeout=2)
        assert created.resource_id is None
        assert created.code is Code.TIMEOUT
        assert created.errors[0].startswith("the members nearest to the resource weren't found in time")


async def test_puts_of_one_moment_to_one_peer_share_a_frame(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (network, nodes):
        ids = [await make_resource(nodes[0], f"label {number}", factor=2) for number in range(20)]
        network.calls.clear()
        async with trio.open_nursery() as nursery:
            for resource_id in ids:
                nursery.start_soon(nodes[0].registry.register_service, resource_id, "v", nodes[0].peer_id, None)
        with trio.fail_after(5):
            while len(set(await copies(nodes, ids[-1]))) > 1:  # noqa: ASYNC110 - replicas tell nobody
                await trio.sleep(0.01)
        assert len([call for call in network.calls if call[2] == PUT]) <= 2


async def test_garbage_in_calls_is_refused_and_the_node_goes_on(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (network, nodes):
        stranger = network.add(Identity.from_seed(b"s" * 32).peer_id)
        network.down.add(stranger.peer_id)  # it calls, but keeps nothing
        from overlay.errors import CallRefused

        bodies: list[object] = [None, 7, "x", b"", [], [[]], [[[b"a", b"b"]]], {"a": 1}, [["x" * 2000, b"", None]]]
        for method in (PUT, READ, COUNTERSIGN, *(operation.name for operation in OPERATIONS)):
            for body in bodies:
                try:
                    answer = await stranger.call(nodes[0].peer_id, method, body, timeout=5)
                except CallRefused:
                    continue
                assert method in {PUT, READ}, f"{method} took {body!r}: {answer!r}"
        assert await make_resource(nodes[1], factor=2)


async def test_a_state_under_another_key_than_it_came_with_is_refused(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (_, nodes):
        first, second = [await make_resource(nodes[0], label, factor=2) for label in ("a", "b")]
        await nodes[0].registry.register_service(first, "v", nodes[0].peer_id, None, factor=2)
        [state] = (await nodes[0].store.resource(first)).slots.values()
        other_key = (await nodes[0].store.resource(second)).key
        assert other_key is not None
        answer = await nodes[0].peer.call(nodes[1].peer_id, PUT, [[[encode(other_key), encode(state)]]], timeout=5)
        assert answer == [[["invalid", f"the state is of key {first}, sent with key {second}"]]]


async def test_a_large_resource_travels_in_pages(autojump_clock) -> None:
    big = settings(records_per_issuer=100)
    async with simulated_nodes(3, big, clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        identities = [Identity.from_seed(bytes([40 + number]) * 32) for number in range(24)]
        from tests.unit.registry.builders import a_record

        key = (await nodes[1].store.resource(resource_id)).key
        assert key is not None
        from registry.protocol.messages import Item

        for identity in identities:
            record = a_record(resource_id, identity, identity, NOW, int(clock()), value="x" * 60_000)
            assert await nodes[1].parts.replica.ingest.store([Item(key, record)], "a test") == [None]
        records, errors = await nodes[0].registry.resolve_resource(resource_id, 3)
        assert errors == ()
        assert len(records or ()) == len(identities)


async def test_expired_states_are_neither_served_nor_taken(autojump_clock) -> None:
    async with simulated_nodes(2, settings(expired_age=100), clock) as (network, nodes):
        resource_id = await make_resource(nodes[0], factor=2)
        await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, None, factor=2)
        [record] = (await nodes[0].store.resource(resource_id)).slots.values()
        assert isinstance(record, Record)
        network.down.add(nodes[0].peer_id)
        network.muted.add(nodes[0].peer_id)  # its host can't renew it
        await trio.sleep(99)
        assert len((await nodes[1].registry.resolve_resource(resource_id, 1)).records or ()) == 1
        await trio.sleep(1)
        assert (await nodes[1].registry.resolve_resource(resource_id, 1)).records == ()
        network.down.clear()
        network.muted.clear()
        key = (await nodes[0].store.resource(resource_id)).key
        assert key is not None
        answer = await nodes[0].peer.call(nodes[1].peer_id, PUT, [[[encode(key), encode(record)]]], timeout=5)
        assert answer == [[["record-expired", "Record is already expired"]]]


async def test_the_progress_of_a_write_can_be_asked_after_it_was_acknowledged(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=4)
        from registry.protocol.messages import Item

        key = (await nodes[0].store.resource(resource_id)).key
        assert key is not None
        outcome = await nodes[0].parts.writer.write(Item(key), factor=1, timeout=5)
        assert outcome.stored >= 1
        with trio.fail_after(5):
            while True:
                progress = await nodes[0].parts.writer.progress(outcome.write_id, timeout=5)
                assert progress is not None
                if progress.stored == progress.targets == 4:
                    break
                await trio.sleep(0.01)


async def test_tombstones_reach_the_host_so_that_it_stops_renewing(autojump_clock) -> None:
    few = settings(neighbourhood_size=2, responsibility_margin=0)
    async with simulated_nodes(6, few, clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=2)
        replicas = await nodes[0].peer.neighbourhood(resource_id, 2)
        host = next(node for node in nodes if node.peer_id not in replicas and node is not nodes[0])
        assert (await nodes[0].registry.register_service(resource_id, "v", host.peer_id, None, factor=2)).success
        assert (await nodes[0].registry.unregister_service(resource_id, host.peer_id, factor=2)).success
        with trio.fail_after(5):
            while True:
                [state] = (await host.store.resource(resource_id)).slots.values()
                if isinstance(state, Tombstone):
                    break
                await trio.sleep(0.01)
        assert decode_state(encode(state)) == state


async def test_text_that_is_no_utf8_gives_an_error_result(autojump_clock) -> None:
    async with simulated_nodes(2, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=2)
        assert (await nodes[0].registry.create_resource("\ud800")).resource_id is None
        done = await nodes[0].registry.register_service(resource_id, "\ud800", nodes[0].peer_id, None)
        assert not done.success
        assert "UTF-8" in done.errors[0]


async def test_a_forged_write_is_not_sent_on(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (network, nodes):
        from registry.protocol.messages import Item
        from tests.unit.registry.builders import a_key

        forged = msgspec.structs.replace(a_key(created=int(clock())), signature=b"x" * 64)
        network.calls.clear()
        outcome = await nodes[0].parts.writer.write(Item(forged), factor=1, timeout=5)
        assert outcome.stored == 0
        assert outcome.errors[0].code == Code.KEY_SIGNATURE
        assert "Invalid signature" in outcome.errors[0].text
        assert network.calls == []


async def test_a_forged_key_is_not_sent_on_with_a_state_that_is_stored(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (network, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        assert (await nodes[0].registry.register_service(resource_id, "v", nodes[0].peer_id, "echo", factor=3)).success
        stored = await nodes[0].store.resource(resource_id)
        assert stored.key is not None
        [state] = stored.slots.values()
        forged = msgspec.structs.replace(stored.key, timestamp_created=stored.key.timestamp_created - 1)
        network.calls.clear()
        outcome = await nodes[0].parts.writer.write(Item(forged, state), factor=1, timeout=5)
        assert outcome.stored == 0
        assert outcome.errors[0].code == Code.KEY_SIGNATURE
        assert network.calls == []


async def test_expired_records_that_are_not_collected_yet_take_nobodys_place(autojump_clock) -> None:
    full = settings(expired_age=100, records_per_key=2, records_per_issuer=1)
    async with simulated_nodes(1, full, clock) as (_, nodes):
        from registry.protocol.messages import Item
        from tests.unit.registry.builders import a_record, identity

        resource_id = await make_resource(nodes[0], factor=1)
        key = (await nodes[0].store.resource(resource_id)).key
        assert key is not None

        async def put(number: int) -> ErrorInfo | None:
            record = a_record(resource_id, identity(number), identity(number + 100), int(clock()))
            [error] = await nodes[0].parts.replica.ingest.store([Item(key, record)], "a test")
            return error

        assert [await put(1), await put(2)] == [None, None]
        refused = await put(3)
        assert refused is not None
        assert refused.code == Code.VALUES_LIMIT_EXCEEDED
        await trio.sleep(100)
        assert await put(3) is None


async def test_a_record_is_not_issued_anew_once_it_was_ended_however_both_overlap(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (network, nodes):
        resource_id = await make_resource(nodes[0])
        issuer = nodes[1].registry
        network.delay = 0.2
        for number in range(8):
            assert (await issuer.register_service(resource_id, str(number), nodes[1].peer_id, "s", factor=5))[0]
            [record] = (await issuer.resolve_resource(resource_id, 5)).records or ()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(issuer.reissue, record)
                await trio.sleep(number * 0.05)
                ended = await issuer.unregister_service(resource_id, nodes[1].peer_id, factor=5)
            assert ended.success, ended.errors
            assert (await issuer.reissue(record)).success is False
            assert (await nodes[3].registry.resolve_resource(resource_id, 5)).records == ()


async def test_a_record_issued_anew_says_the_same_later(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        assert (await nodes[1].registry.register_service(resource_id, "v", nodes[1].peer_id, "s", factor=3))[0]
        [before] = (await nodes[0].registry.resolve_resource(resource_id, 3)).records or ()
        assert (await nodes[1].registry.reissue(before)).success
        await trio.sleep(1)
        [after] = (await nodes[0].registry.resolve_resource(resource_id, 3)).records or ()
        assert after.timestamp_issued > before.timestamp_issued
        assert (after.metadata.value, after.metadata.service_id) == ("v", ("s",))


async def test_a_record_is_not_issued_anew_where_its_issuer_ended_it_elsewhere(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        issuer = nodes[1]
        assert (await issuer.registry.register_service(resource_id, "v", issuer.peer_id, "s", factor=3))[0]
        [record] = (await issuer.registry.resolve_resource(resource_id, 3)).records or ()
        key = (await issuer.store.resource(resource_id)).key
        assert key is not None
        unsigned = Tombstone(resource_id, issuer.peer_id, issuer.peer_id, record.timestamp_issued + 5, b"", b"")
        tombstone = msgspec.structs.replace(unsigned, issuer_signature=issuer.identity.sign(unsigned.signed_bytes()))
        for node in (nodes[0], nodes[2]):
            assert await node.parts.replica.ingest.store([Item(key, tombstone)], issuer.peer_id) == [None]
        assert not (await acting_through(issuer, nodes[0].parts.node_api).reissue(record)).success
        assert (await issuer.store.resource(resource_id)).slots[record.slot] == tombstone, "it is learned"
        await trio.sleep(60)
        assert (await nodes[0].registry.resolve_resource(resource_id, 3)).records == ()


async def test_what_cannot_be_ended_in_the_network_is_not_issued_anew(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        resource_id = await make_resource(nodes[0], factor=3)
        issuer = nodes[1]
        assert (await issuer.registry.register_service(resource_id, "v", issuer.peer_id, "s", factor=3))[0]
        [record] = (await issuer.registry.resolve_resource(resource_id, 3)).records or ()
        closed = cast("NodeApi", Unreadable(nodes[0].parts.node_api))
        assert not (await acting_through(issuer, closed).unregister_service(resource_id, issuer.peer_id)).success
        assert not (await acting_through(issuer, nodes[0].parts.node_api).reissue(record)).success


class Unreadable:
    """A node through which nothing can be read."""

    def __init__(self, node_api: NodeApi) -> None:
        self.peer_id = node_api.peer_id

    async def read(self, *_: object, **__: object) -> object:
        await trio.lowlevel.checkpoint()
        raise NodeUnavailable("no node could be reached")


def acting_through(node: SimulatedNode, node_api: NodeApi) -> Registry:
    """The registry of `node`'s identity, acting through another node, as a light client does."""
    return Registry(
        node.identity,
        node_api,
        node.parts.host,
        node.parts.health,
        node.parts.health_of_hosts,
        TimestampLog(node.store, node.parts.replica.ingest, node.peer_id),
        node.parts.watches,
        RegistrySettings(),
        clock,
    )
