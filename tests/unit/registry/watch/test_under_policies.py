"""Watching resources that have a policy: what is told, kept and forwarded."""

from __future__ import annotations

import trio

from overlay.identity import Identity
from overlay.pubsub.topics import Verdict
from registry.model.merge import ResourceState
from registry.model.values import Key, KeyTombstone
from registry.permission.edits import Edit, EditKind
from registry.permission.policy import Policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import Item
from registry.settings import NodeSettings, RegistrySettings
from registry.watch.announcement import announcement_of
from registry.watch.validator import AnnouncementValidator
from registry.watch.view import MAX_KNOWN, View
from registry.watch.watch_event import CERTIFICATE, EventKind
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NOW,
    STRANGER,
    a_certificate,
    a_key,
    a_key_tombstone,
    a_record,
    a_tombstone,
    identity,
    keys_of,
    public_key,
)

RULES = RegistrySettings()
ID = a_key().id
CLOSED = a_key(policy=Policy(revision=1, allow=keys_of(ISSUER)))


def clock() -> float:
    return NOW + trio.current_time()


def edit_of(who: Identity) -> Edit:
    return Edit(EditKind.ALLOW, public_key(who))


def a_view(key: Key = CLOSED) -> View:
    view = View(ID, RULES)
    view.merge(ResourceState.of(key, []), NOW)
    return view


def test_strangers_take_no_place_in_a_view_and_are_forwarded_to_nobody() -> None:
    view = a_view()
    for number in range(50):
        assert not view.take(Item(CLOSED, a_record(ID, identity(100 + number), HOST)), NOW)
    assert view.state.slots == {}
    assert view.take(Item(CLOSED, a_record(ID, ISSUER, HOST)), NOW)
    assert len(view.visible) == 1
    assert MAX_KNOWN > 50


def test_an_old_key_beside_an_unpermitted_record_makes_it_no_news() -> None:
    view = a_view()
    assert not view.take(Item(a_key(), a_record(ID, STRANGER, HOST)), NOW)
    assert view.state.key == CLOSED


def test_what_a_withheld_successor_replaced_stays_replaced_and_is_forwarded_to_nobody() -> None:
    view = a_view(a_key())
    before = a_record(ID, STRANGER, HOST)
    assert view.take(Item(a_key(), before), NOW)
    assert view.take(Item(CLOSED), NOW)
    assert view.visible == {}
    ended = a_tombstone(ID, STRANGER, HOST, NOW + 1)
    assert view.take(Item(CLOSED, ended), NOW), "ends are told to all"
    assert not view.take(Item(CLOSED, a_record(ID, STRANGER, HOST, NOW + 2)), NOW)
    assert not view.take(Item(a_key(), before), NOW)
    later = a_key(policy=Policy(revision=2, open=True))
    assert view.take(Item(later), NOW)
    assert {record.timestamp_issued for record in view.visible.values()} == {NOW + 2}


def test_a_key_that_comes_with_an_unpermitted_record_is_learnt_all_the_same() -> None:
    view = a_view(a_key())
    assert view.take(Item(a_key(), a_record(ID, STRANGER, HOST)), NOW)
    assert not view.take(Item(CLOSED, a_record(ID, STRANGER, HOST, NOW + 1)), NOW)
    assert view.state.key == CLOSED
    assert view.visible == {}


async def test_an_announcement_of_what_isnt_permitted_isnt_forwarded_by_replicas(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, [owner, stranger, other]):
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await stranger.registry.register_service(resource_id, "", stranger.peer_id, "s", factor=3)).success
        assert (await owner.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])).success
        await trio.sleep(5)
        key = (await owner.registry.get_resource(resource_id)).key
        assert key is not None
        validator = AnnouncementValidator(RULES, clock, [other.parts.replica.take_announced])
        ended = a_tombstone(resource_id, stranger.identity, stranger.identity, int(clock()) + 1)
        record = a_record(resource_id, stranger.identity, stranger.identity, int(clock()) + 2)
        payloads = [announcement_of(Item(key, state)) for state in (ended, record)]
        verdicts = [await validator.validate(resource_id, payload, "forwarder") for payload in payloads]
        assert verdicts == [Verdict.ACCEPT, Verdict.IGNORE]
        stored = await other.store.resource(resource_id)
        assert list(stored.slots.values()) == [record], "but the greatest state of a known slot is kept"


async def test_both_of_two_removals_are_told_to_watchers_at_once(autojump_clock) -> None:
    """One ends more keys, the other more records."""
    few = NodeSettings(registry=RegistrySettings(neighbourhood_size=2, responsibility_margin=0))
    async with simulated_nodes(5, few, clock) as (_, nodes):
        owner, issuer = nodes[0], nodes[1]
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        assert (await issuer.registry.register_service(resource_id, "", issuer.peer_id, "s")).success
        for who in nodes[2:5]:  # to a revision that neither removal ends
            assert (await owner.registry.change_policy(resource_id, [edit_of(who.identity)])).success
        await trio.sleep(5)
        watching = next(node for node in nodes[2:] if not node.parts.replica.is_among_nearest(resource_id))
        async with watching.registry.watch(resource_id) as watch:
            assert len((await watch.__anext__()).records) == 1
            issued = int(clock())
            removals: list[KeyTombstone] = [
                a_key_tombstone("payments", owner.identity, issued - 100, revision=2),
                a_key_tombstone("payments", owner.identity, issued, revision=0),
            ]
            for each in removals:
                assert (await owner.parts.writer.write(Item(each), factor=2, timeout=3)).stored >= 2
            with trio.fail_after(1):
                event = await watch.__anext__()
            assert event.kind is EventKind.REMOVED


async def test_a_reader_holds_on_to_the_greatest_policy_that_it_has_read_and_writes_it_back(autojump_clock) -> None:
    """Its replicas forget it, or lie: an older key shows nothing to who has seen the later one."""
    few = NodeSettings(registry=RegistrySettings(neighbourhood_size=3, responsibility_margin=0))
    async with simulated_nodes(6, few, clock) as (_, nodes):
        owner = nodes[0]
        created = await owner.registry.create_resource("payments")
        resource_id = created.resource_id
        assert resource_id is not None
        for node in nodes[:2]:
            assert (await node.registry.register_service(resource_id, "", node.peer_id, "s")).success
        open_key = (await owner.registry.get_resource(resource_id)).key
        assert open_key is not None
        edits = [Edit(EditKind.ALLOW, public_key(owner.identity)), Edit(EditKind.CLOSE)]
        assert (await owner.registry.change_policy(resource_id, edits)).success
        await trio.sleep(70)
        reader = next(node for node in nodes if not node.parts.replica.is_among_nearest(resource_id))
        found = await reader.registry.resolve_resource(resource_id, 3)
        assert {record.metadata.issued_by for record in found.records or ()} == {owner.peer_id}
        for node in nodes:  # as a disk that is set back to an old image
            await node.store.write(lambda transaction: transaction.put_key(open_key, NOW, 0))
        found = await reader.registry.resolve_resource(resource_id, 3)
        assert {record.metadata.issued_by for record in found.records or ()} == {owner.peer_id}
        await trio.sleep(2)
        keepers = [node for node in nodes if node.parts.replica.is_among_nearest(resource_id)]
        for node in keepers:
            stored = (await node.store.resource(resource_id)).key
            assert stored is not None
            assert stored.revision == 1, "it was written back"


async def test_a_record_that_came_by_an_announcement_goes_when_its_certificate_ends(autojump_clock) -> None:
    """Sooner than what the watch was waiting for when it came."""
    few = NodeSettings(registry=RegistrySettings(neighbourhood_size=3, responsibility_margin=0))
    root = identity(500)
    async with simulated_nodes(6, few, clock) as (_, nodes):
        owner, issuer = nodes[:2]
        resource_id = (await owner.registry.create_resource("payments")).resource_id
        assert resource_id is not None
        edits = [Edit(EditKind.ADD_ROOT, public_key(root)), Edit(EditKind.CLOSE)]
        assert (await owner.registry.change_policy(resource_id, edits)).success
        watching = next(node for node in nodes[2:] if not node.parts.replica.is_among_nearest(resource_id))
        async with watching.registry.watch(resource_id) as watch:
            assert (await watch.__anext__()).records == ()
            await trio.sleep(20)
            ends = int(clock()) + 40
            scope = Scope(ScopeKind.ALL, public_key(owner.identity))
            certificate = a_certificate(root, issuer.identity, scope=scope, expires_at=ends)
            issuer.registry.use_certificates(lambda: [[certificate]])
            assert (await issuer.registry.register_service(resource_id, "", issuer.peer_id, "s")).success
            assert (await watch.__anext__()).kind is EventKind.ADDED
            event = await watch.__anext__()
            assert (event.kind, event.reason) == (EventKind.REMOVED, CERTIFICATE)
            assert ends <= clock() < ends + 1
