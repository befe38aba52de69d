"""Owners end what others registered: of one issuer, of the one that is named, of all; and up to a time."""

from __future__ import annotations

import pytest
import trio

from registry.client.results import Done
from registry.codes import Code
from registry.errors import InvalidValue
from registry.permission.policy import FOR_EVER, Policy
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, public_key


def clock() -> float:
    return NOW + trio.current_time()


async def board_of(owner: SimulatedNode) -> str:
    resource_id = (await owner.registry.create_resource("board")).resource_id
    assert resource_id is not None
    return resource_id


async def register(node: SimulatedNode, resource_id: str, host: SimulatedNode) -> Done:
    return await node.registry.register_service(resource_id, "", host.peer_id, "service")


async def shown(node: SimulatedNode, resource_id: str) -> set[tuple[str, str]]:
    """Issuers and hosts, once all replicas have what was written."""
    await trio.sleep(2)
    found = await node.registry.resolve_resource(resource_id, 2)
    assert found.records is not None, found.errors
    return {(record.metadata.issued_by, record.metadata.peer_id) for record in found.records}


async def denials(node: SimulatedNode, resource_id: str) -> set[tuple[bytes, bytes, int]]:
    key = (await node.registry.get_resource(resource_id, ack=3)).key
    assert key is not None
    return (
        {(each.issuer, each.host, each.until) for each in key.policy.deny} if isinstance(key.policy, Policy) else set()
    )


async def test_of_several_issuers_on_a_host_the_named_one_alone_is_ended(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, host, spammer, guest]):
        resource_id = await board_of(owner)
        for issuer in (host, spammer, guest):
            assert (await register(issuer, resource_id, host)).success
        assert len(await shown(owner, resource_id)) == 3
        unnamed = await owner.registry.unregister_service(resource_id, host.peer_id)
        assert (unnamed.success, unnamed.code, unnamed.stored) == (False, Code.INVALID, 0)
        assert "name the one to end (issuer=, --issuer)" in unnamed.errors[0]
        assert all(each.peer_id in unnamed.errors[0] for each in (host, spammer, guest))
        assert len(await shown(guest, resource_id)) == 3, "nobody is denied by guess"
        named = await owner.registry.unregister_service(resource_id, host.peer_id, issuer=spammer.peer_id)
        assert (named.success, named.denied, named.was_there) == (True, (spammer.peer_id,), True)
        assert await shown(guest, resource_id) == {(each.peer_id, host.peer_id) for each in (host, guest)}
        assert not (await register(spammer, resource_id, host)).success
        assert (await register(spammer, resource_id, spammer)).success, "on other hosts it may"
        again = await owner.registry.unregister_service(resource_id, host.peer_id, issuer=spammer.peer_id)
        assert (again.success, again.denied, again.was_there) == (True, (), False)
        assert len(await denials(guest, resource_id)) == 1


async def test_the_originals_function_ends_all_on_a_host(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, host, guest, other]):
        resource_id = await board_of(owner)
        for issuer in (host, guest):
            assert (await register(issuer, resource_id, host)).success
        assert (await register(other, resource_id, other)).success
        assert len(await shown(owner, resource_id)) == 3
        done = await owner.registry.unregister_service(resource_id, host.peer_id, is_of_all=True)
        assert done.success
        assert set(done.denied) == {host.peer_id, guest.peer_id}
        assert await shown(guest, resource_id) == {(other.peer_id, other.peer_id)}


async def test_what_others_registered_on_the_owners_own_host_is_ended_where_the_issuer_is_named(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, spammer, guest, _]):
        resource_id = await board_of(owner)
        for issuer in (owner, spammer, guest):
            assert (await register(issuer, resource_id, owner)).success
        assert len(await shown(owner, resource_id)) == 3
        assert (await owner.registry.unregister_service(resource_id, owner.peer_id)).denied == ()
        for is_of_all in (False, True):
            again = await owner.registry.unregister_service(resource_id, owner.peer_id, is_of_all=is_of_all)
            assert (again.denied, again.was_there) == ((), False)
        done = await owner.registry.unregister_service(resource_id, owner.peer_id, issuer=spammer.peer_id)
        assert done.denied == (spammer.peer_id,)
        assert await shown(guest, resource_id) == {(guest.peer_id, owner.peer_id)}
        await trio.sleep(2)
        assert (await register(owner, resource_id, owner)).success
        own = await owner.registry.unregister_service(resource_id, owner.peer_id, issuer=owner.peer_id)
        assert (own.success, own.was_there, own.denied) == (True, True, ())
        assert await shown(guest, resource_id) == {(guest.peer_id, owner.peer_id)}


async def test_who_names_itself_denies_nobody(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, host, *_]):
        resource_id = await board_of(owner)
        assert (await register(host, resource_id, host)).success
        done = await owner.registry.unregister_service(resource_id, host.peer_id, issuer=owner.peer_id)
        assert (done.success, done.was_there, done.denied) == (True, False, ())
        assert await shown(owner, resource_id) == {(host.peer_id, host.peer_id)}


async def test_a_denial_by_moderation_ends_when_its_owner_says(autojump_clock) -> None:
    async with simulated_nodes(4, clock=clock) as (_, [owner, host, other, _]):
        resource_id = await board_of(owner)
        assert (await register(host, resource_id, host)).success
        await trio.sleep(10)
        for named in (None, host.peer_id):
            early = await owner.registry.unregister_service(
                resource_id, host.peer_id, issuer=named, until=int(clock()) - 1
            )
            assert (early.success, early.code) == (False, Code.INVALID)
            assert "give a later one, or none" in early.errors[0]
        until = int(clock()) + 100
        done = await owner.registry.unregister_service(resource_id, host.peer_id, until=until)
        assert done.denied == (host.peer_id,)
        assert await denials(other, resource_id) == {(public_key(host.identity), public_key(host.identity), until)}
        assert not (await register(host, resource_id, host)).success
        await trio.sleep(100)
        assert await shown(other, resource_id) == set(), "time brings nothing back"
        await trio.sleep(2)
        assert (await register(host, resource_id, host)).success
        assert await shown(other, resource_id) == {(host.peer_id, host.peer_id)}


async def test_only_the_owner_ends_what_a_named_issuer_registered(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, [owner, host, stranger]):
        resource_id = await board_of(owner)
        assert (await register(host, resource_id, host)).success
        done = await stranger.registry.unregister_service(resource_id, host.peer_id, issuer=host.peer_id)
        assert (done.success, done.code) == (False, Code.NOT_PERMITTED)
        assert done.errors == (f"only its owner {owner.peer_id} may end what others registered",)
        no_id = await owner.registry.unregister_service("board", host.peer_id, issuer=host.peer_id)
        assert "is no resource id" in no_id.errors[0]
        with pytest.raises(InvalidValue):
            await owner.registry.unregister_service(resource_id, host.peer_id, issuer="somebody")
        with pytest.raises(InvalidValue):
            await owner.registry.unregister_service(resource_id, host.peer_id, until=FOR_EVER + 1)
        assert await shown(stranger, resource_id) == {(host.peer_id, host.peer_id)}
