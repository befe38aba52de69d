"""Owners change policies over simulated nodes: who registers, who sees what, and what owners who know none of it do."""

from __future__ import annotations

import msgspec
import trio

from overlay.discovery.keyspace import nearest, resource_position
from overlay.identity import Identity
from overlay.membership.certificate import Certificate
from registry.client.resources import REMOVED_ABOVE
from registry.client.results import Done
from registry.codes import Code
from registry.model.history import POLICY_CHANGED, STORED, WITHHELD
from registry.permission.edits import Edit, EditKind, edited
from registry.permission.permitted import REGISTER
from registry.permission.policy import FOR_EVER, Policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import READ, Item, ReadBody, StatePage, build, parse
from registry.quorum.fetch import Fetcher
from registry.quorum.recent_writes import REMEMBERED_FOR
from registry.settings import RegistrySettings
from registry.watch.watch_event import POLICY, EventKind
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, a_key, a_record, identity, public_key


def clock() -> float:
    return NOW + trio.current_time()


async def issuers(node: SimulatedNode, resource_id: str) -> set[str]:
    found = await node.registry.resolve_resource(resource_id, 2)
    assert found.records is not None, found.errors
    return {record.metadata.issued_by for record in found.records}


def edit(kind: EditKind, who: Identity) -> Edit:
    return Edit(kind, public_key(who))


async def registered(node: SimulatedNode, resource_id: str) -> Done:
    return await node.registry.register_service(resource_id, "", node.peer_id, "service")


async def test_a_policy_shows_at_every_node_and_watcher_at_once(autojump_clock) -> None:
    async with simulated_nodes(5, clock=clock) as (_, [owner, allowed, stranger, other, watching]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        for node in (owner, allowed, stranger):
            assert (await registered(node, resource_id)).success
        await trio.sleep(5)  # until all replicas have all
        async with watching.registry.watch(resource_id) as watch:
            snapshot = await watch.__anext__()
            assert len(snapshot.records) == 3
            edits = [edit(EditKind.ALLOW, allowed.identity), Edit(EditKind.CLOSE)]
            assert await owner.registry.change_policy(resource_id, edits) == (True, ())
            with trio.fail_after(1):
                event = await watch.__anext__()
            assert (event.kind, event.reason) == (EventKind.REMOVED, POLICY)
            assert event.record is not None
            assert event.record.metadata.issued_by == stranger.peer_id
        for node in (owner, allowed, stranger, other, watching):
            assert await issuers(node, resource_id) == {owner.peer_id, allowed.peer_id}
        refused = await registered(other, resource_id)
        assert not refused.success
        assert "ask the owner to allow it" in refused.errors[0]
        assert (await registered(allowed, resource_id)).success


async def test_an_owner_that_knows_nothing_of_policies_changes_nothing(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, stranger, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        await trio.sleep(10)
        assert await owner.registry.create_resource("payments") == (resource_id, ())
        found = await stranger.registry.get_resource(resource_id, ack=3)
        assert found.key is not None
        assert found.key.policy is not None
        assert not (await registered(stranger, resource_id)).success
        assert (await owner.registry.remove_resource(resource_id)).success
        await trio.sleep(10)
        assert (await stranger.registry.get_resource(resource_id)).key is None
        assert (await owner.registry.create_resource("payments")).resource_id == resource_id
        anew = (await stranger.registry.get_resource(resource_id)).key
        assert anew is not None
        at_least = 1 + REMOVED_ABOVE
        assert anew.policy == Policy(revision=at_least, open=True), "above the removal, or nobody would take it"


async def test_a_change_that_another_machine_never_finished_brings_back_no_policy_that_was_removed(
    autojump_clock,
) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, allowed, stranger, other]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        edits = [edit(EditKind.ALLOW, allowed.identity), Edit(EditKind.CLOSE)]
        assert (await owner.registry.change_policy(resource_id, edits)).success
        former = (await owner.registry.get_resource(resource_id, ack=3)).key
        assert former is not None
        unfinished = [former]
        for who in (stranger, other):  # the second one by a machine that brought the first one to a majority
            last = unfinished[-1]
            policy = edited(last.policy, [edit(EditKind.DENY, who.identity)])
            unfinished.append(a_key("payments", owner.identity, int(clock()), policy=policy))
        assert (await owner.registry.remove_resource(resource_id)).success
        assert (await owner.registry.create_resource("payments")).resource_id == resource_id
        await trio.sleep(10)  # until all replicas have it
        for node in (owner, other):
            for late in unfinished:
                error = await node.parts.replica.ingest.keep(Item(late))
                assert error is not None
                assert error.code == Code.NEWER_KEY_EXISTS
        found = (await stranger.registry.get_resource(resource_id, ack=3)).key
        assert found is not None
        assert found.policy == Policy(revision=1 + REMOVED_ABOVE, open=True)
        assert (await registered(stranger, resource_id)).success


async def test_a_certificate_is_shown_where_a_policy_asks_for_one(autojump_clock) -> None:
    root = identity(500)
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, stranger, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (
            await owner.registry.change_policy(resource_id, [edit(EditKind.ADD_ROOT, root), Edit(EditKind.CLOSE)])
        ).success
        scope = Scope(ScopeKind.LABEL, public_key(owner.identity), "payments").encoded()
        certificate = Certificate(
            public_key(root), public_key(certified.identity), (REGISTER,), 0, scope, NOW - 60, NOW + 600
        ).signed_by(root)
        for node in (certified, stranger):
            node.registry.use_certificates(lambda: [[certificate]])
        assert (await registered(certified, resource_id)).success
        refused = await registered(stranger, resource_id)
        assert "for another peer" in refused.errors[0], "somebody else's certificate is of no use"
        assert await issuers(stranger, resource_id) == {certified.peer_id}
        await trio.sleep(600)
        assert await issuers(stranger, resource_id) == set(), "its chain has ended"


async def test_an_owner_ends_what_somebody_else_registered(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, stranger, guest, other]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await registered(stranger, resource_id)).success
        assert (await registered(guest, resource_id)).success
        done = await owner.registry.unregister_service(resource_id, stranger.peer_id)
        assert done.success
        assert f"policy denies now what {stranger.peer_id} registers" in done.errors[0]
        assert await issuers(other, resource_id) == {guest.peer_id}
        assert not (await registered(stranger, resource_id)).success
        assert (await registered(other, resource_id)).success, "it is open to all others"
        await trio.sleep(5)
        lifted = Edit(EditKind.DENY, public_key(stranger.identity), public_key(stranger.identity), int(clock()))
        assert (await owner.registry.change_policy(resource_id, [lifted])).success
        assert stranger.peer_id not in await issuers(other, resource_id), "what was denied doesn't come back by itself"
        await trio.sleep(2)
        assert (await registered(stranger, resource_id)).success
        assert stranger.peer_id in await issuers(other, resource_id)
        assert lifted.until < FOR_EVER


async def test_only_an_owner_changes_its_policy(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, [owner, stranger, _]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        done = await stranger.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])
        assert done == (False, (f"only its owner {owner.peer_id} may change its policy",))
        owns_nothing = await stranger.registry.unregister_service(resource_id, owner.peer_id)
        assert not owns_nothing.was_there


async def test_explain_tells_what_a_policy_withholds_and_why(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, stranger, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await registered(stranger, resource_id)).success
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        await trio.sleep(5)
        *before, event = await stranger.registry.explain(resource_id)
        assert [each.what for each in before if not each.peer_id] == [STORED, POLICY_CHANGED]
        assert (event.what, event.issued_by, event.time) == (WITHHELD, stranger.peer_id, int(clock()))
        assert "ask the owner to allow it" in event.detail
        assert "(issuer-not-allowed)" in event.detail
        assert (await owner.registry.change_policy(resource_id, [edit(EditKind.ALLOW, stranger.identity)])).success
        await trio.sleep(5)
        assert WITHHELD not in {event.what for event in await stranger.registry.explain(resource_id)}


async def test_who_knew_the_resource_before_it_was_closed_shows_its_certificate_at_once(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, certified, *_]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await registered(certified, resource_id)).success
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        scope = Scope(ScopeKind.ALL, public_key(owner.identity))
        certificate = Certificate(
            public_key(owner.identity), public_key(certified.identity), (REGISTER,), 0, scope.encoded(), NOW, NOW + 600
        ).signed_by(owner.identity)
        certified.registry.use_certificates(lambda: [[certificate]])
        assert (await registered(certified, resource_id)).success
        assert await issuers(owner, resource_id) == {certified.peer_id}


async def test_strangers_who_try_cost_neither_a_signature_nor_a_transaction(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, [owner, allowed, stranger]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        edits = [edit(EditKind.ALLOW, allowed.identity), Edit(EditKind.CLOSE)]
        assert (await owner.registry.change_policy(resource_id, edits)).success
        await trio.sleep(5)
        key = (await owner.store.resource(resource_id)).key
        assert key is not None
        writes, now = owner.store.writes, int(clock())
        unsigned = msgspec.structs.replace(
            a_record(resource_id, stranger.identity, stranger.identity, now), signature=b""
        )
        [error] = await owner.parts.replica.ingest.store([Item(key, unsigned)], stranger.peer_id)
        assert error is not None
        assert error.known_code is Code.ISSUER_NOT_ALLOWED
        assert owner.store.writes == writes
        opened = a_key("payments", owner.identity, policy=Policy(revision=9, open=True), created=now)
        record = a_record(resource_id, stranger.identity, stranger.identity, now)
        assert await owner.parts.replica.ingest.store([Item(opened, record)], stranger.peer_id) == [None], (
            "a later key counts"
        )


async def test_a_replica_tells_the_policy_before_also_of_what_the_asker_knows(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, [owner, asked, asking]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        for kind in (EditKind.CLOSE, EditKind.OPEN):
            assert (await owner.registry.change_policy(resource_id, [Edit(kind)], factor=3)).success
        known = await asked.store.resource(resource_id)
        assert [each.revision for each in known.siblings] == [1]
        bare = msgspec.structs.replace(known, siblings=())
        fetcher = Fetcher(asking.peer, RegistrySettings(), clock)
        found, _ = await fetcher.fetch(asked.peer_id, resource_id, bare, timeout=5)
        assert found == known
        body = build(ReadBody(resource_id, known.digest()))
        assert parse(await asking.peer.call(asked.peer_id, READ, body, timeout=5), StatePage).same


async def test_a_removed_resource_is_made_anew_though_the_nearest_replicas_missed_the_removal(autojump_clock) -> None:
    """And the owner's own disk lost something just now: its word doesn't count."""
    async with simulated_nodes(5, clock=clock) as (network, [owner, *others]):
        resource_id = (await owner.registry.create_resource("payments", factor=5)).resource_id
        assert resource_id is not None
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        assert (await registered(owner, resource_id)).success
        await trio.sleep(20)
        near = nearest(resource_position(resource_id), [node.peer_id for node in others], 2)
        network.sides = dict.fromkeys(near, 1)
        assert (await owner.registry.remove_resource(resource_id, factor=3)).success
        await trio.sleep(REMEMBERED_FOR + 1)
        network.sides = {}
        owner.parts.replica.behind.note(resource_id, Code.STORAGE, trio.current_time())
        assert await owner.registry.create_resource("payments") == (resource_id, ())
