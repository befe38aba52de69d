"""Failures are told by their cause, and by how far a write came; the original's `timeout exceeded` only when it was."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from registry.client.patience import LATEST, SOONEST, patiently
from registry.codes import Code
from registry.errors import HostingRefused, NodeOverloaded, RegistryRefusal
from registry.model.signing import is_key_id, key_id_of
from registry.model.values import Tombstone
from registry.settings import HostingPolicy, NodeSettings, RegistrySettings
from tests.simulation.nodes import simulated_nodes

NOWHERE = key_id_of("nobody has made this", "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")


async def test_more_replicas_asked_for_than_known_are_told_and_all_known_have_the_write(autojump_clock: object) -> None:
    async with simulated_nodes(3) as (_, nodes):
        before = trio.current_time()
        created = await nodes[0].registry.create_resource("sample", factor=5)
        assert trio.current_time() - before < 1
        assert (created.resource_id, created.stored) == (None, 3)
        assert created.errors == (
            "3 of 5 replicas are known",
            "3 of 5 replicas have it on disk, and the write goes on",
        )
        found = await nodes[1].registry.get_resource(nodes[0].registry.resource_id("sample", nodes[0].peer_id), ack=3)
        assert found.key is not None
        read = await nodes[1].registry.get_resource(found.key.id, ack=5)
        assert read == (None, ("3 of 5 replicas are known",))


async def test_a_write_that_reached_fewer_than_asked_goes_on(autojump_clock: object) -> None:
    async with simulated_nodes(4) as (network, nodes):
        network.stalled.add(nodes[3].peer_id)
        created = await nodes[0].registry.create_resource("sample", factor=4, timeout=2)
        assert (created.resource_id, created.stored) == (None, 3)
        assert created.errors[-2] == "3 of 4 replicas have it on disk, and the write goes on"
        network.stalled.clear()
        resource_id = nodes[0].registry.resource_id("sample", nodes[0].peer_id)
        with trio.fail_after(120):
            while (await nodes[3].store.resource(resource_id)).key is None:  # noqa: ASYNC110 - replicas tell nobody
                await trio.sleep(1)


async def test_the_originals_text_stands_where_the_time_was_up(autojump_clock: object) -> None:
    async with simulated_nodes(3) as (network, nodes):
        network.stalled.update(node.peer_id for node in nodes[1:])
        created = await nodes[0].registry.create_resource("sample", factor=2, timeout=2)
        assert created.errors[-2:] == (
            "1 of 2 replicas have it on disk, and the write goes on",
            "resource wasn't created: timeout exceeded",
        )
        resolved = await nodes[0].registry.resolve_resource(NOWHERE, 2, timeout=2)
        assert resolved.errors[-1] == "timeout exceeded"


async def test_what_nobody_knows_is_told_without_a_timeout(autojump_clock: object) -> None:
    async with simulated_nodes(3) as (_, [node, *_]):
        for errors in (
            (await node.registry.resolve_resource(NOWHERE, 1)).errors,
            (await node.registry.get_resource(NOWHERE)).errors,
            (await node.registry.register_service(NOWHERE, "v", node.peer_id, None)).errors,
            (await node.registry.remove_resource(NOWHERE)).errors,
        ):
            assert errors[0].startswith(f"Requested key {NOWHERE} does not exist on ")
            assert not any("timeout" in error for error in errors)


async def test_unregistering_nothing_says_that_there_was_nothing(autojump_clock: object) -> None:
    async with simulated_nodes(3) as (_, [node, host, _]):
        resource_id = (await node.registry.create_resource("sample", factor=3)).resource_id or ""
        for peer in (node, host):
            nothing = f"nothing was registered for {peer.peer_id} by {node.peer_id}"
            done = await node.registry.unregister_service(resource_id, peer.peer_id)
            assert (done.success, done.errors, done.was_there) == (True, (nothing,), False)
            assert (await node.registry.register_service(resource_id, "v", peer.peer_id, None)).success
            done = await node.registry.unregister_service(resource_id, peer.peer_id)
            assert (done.success, done.errors, done.was_there) == (True, (), True)
            again = await node.registry.unregister_service(resource_id, peer.peer_id)
            assert (again.success, again.was_there) == (True, False)
        states = (await node.store.resource(resource_id)).slots.values()
        assert all(isinstance(state, Tombstone) for state in states)


async def test_a_label_where_an_id_is_wanted_is_answered_with_how_to_get_the_id(autojump_clock: object) -> None:
    async with simulated_nodes(2) as (network, [node, _]):
        await node.registry.create_resource("echo", factor=2)
        network.calls.clear()
        for errors in (
            (await node.registry.resolve_resource("echo", 1)).errors,
            (await node.registry.get_resource("echo")).errors,
            (await node.registry.register_service("echo", "v", node.peer_id, None)).errors,
            (await node.registry.unregister_service("echo", node.peer_id)).errors,
            (await node.registry.remove_resource("echo")).errors,
            (await node.registry.change_policy("echo", [])).errors,
        ):
            [error] = errors
            assert error == (
                "'echo' is no resource id: getResourceId(label, owner) gives the id that an owner's label has"
            )
        assert not network.calls, "nobody has to be asked"


@pytest.mark.parametrize("label", ["", "echo", "1" * 44, "z" * 10_000, "0OIl", NOWHERE[:-2], NOWHERE + "1", "é" * 43])
def test_a_label_is_no_id(label: str) -> None:
    assert is_key_id(NOWHERE)
    assert not is_key_id(label)


async def test_a_host_that_signs_too_much_is_asked_again_when_it_said(autojump_clock: object) -> None:
    slow = NodeSettings(registry=RegistrySettings(hosting=HostingPolicy(rate=0.5, burst=1)))
    async with simulated_nodes(2, slow) as (network, [node, host]):
        ids = [(await node.registry.create_resource(label, factor=2)).resource_id or "" for label in ("a", "b")]
        assert (await node.registry.register_service(ids[0], "v", host.peer_id, None)).success
        network.calls.clear()
        before = trio.current_time()
        assert (await node.registry.register_service(ids[1], "v", host.peer_id, None)).success
        assert 2 <= trio.current_time() - before < 4, "a signature in two seconds"
        asked = [call for call in network.calls if call[2] == "registry.countersign"]
        assert len(asked) <= 2, "it said when"


async def test_whoever_is_overloaded_is_waited_for_within_the_deadline_only(autojump_clock: object) -> None:
    told = iter([2.0, 0.0, 1e9])
    left: list[float] = []

    async def ask(remaining: float) -> str:
        await trio.lowlevel.checkpoint()
        left.append(remaining)
        retry_after = next(told, None)
        if retry_after is None:
            return "done"
        raise NodeOverloaded("busy", retry_after)

    assert await patiently(ask, 30) == "done"
    waits = [before - after for before, after in pairwise(left)]
    assert 2 <= waits[0] <= 3
    assert SOONEST <= waits[1] <= 3 * SOONEST
    assert LATEST <= waits[2] <= 1.5 * LATEST, "nobody is put off for years"
    told = iter([2.0])
    before = trio.current_time()
    with pytest.raises(NodeOverloaded, match=r"overloaded: busy; come back in 2\.0 s"):
        await patiently(ask, 1.9)
    assert trio.current_time() == before


async def test_other_refusals_are_told_at_once(autojump_clock: object) -> None:
    async def ask(remaining: float) -> None:
        await trio.lowlevel.checkpoint()
        raise HostingRefused("by policy")

    before = trio.current_time()
    with pytest.raises(RegistryRefusal) as refusal:
        await patiently(ask, 30)
    assert refusal.value.code is Code.HOSTING_REFUSED
    assert trio.current_time() == before
