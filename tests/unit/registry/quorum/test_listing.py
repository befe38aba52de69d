"""Listing an owner's resources: who is asked, what is merged, and what liars can't do."""

from __future__ import annotations

import cbor2
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.discovery.keyspace import nearest, resource_position
from registry.codes import Code
from registry.model.owner_index import IndexEntry, ResourceStanding, ToldPage
from registry.model.values import encode
from registry.protocol.index_messages import LIST, IndexPage, ListBody, is_full
from registry.protocol.messages import build, parse
from registry.quorum.listing import page_of
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import NOW, OWNER, STRANGER, a_key, a_key_tombstone

RULES = RegistrySettings(neighbourhood_size=4, responsibility_margin=1)
SETTINGS = NodeSettings(registry=RULES, upkeep=UpkeepSettings(clear_expired=1e6, replicate=1e6, renew=1e6))
ENTRIES = [IndexEntry.of(a_key(f"{number:03}")) for number in range(40)]
COUNT = 12


def clock() -> float:
    return NOW + 10


def keepers(network: SimulatedNetwork, nodes: list[SimulatedNode], owner: str = OWNER.peer_id) -> list[SimulatedNode]:
    ids = nearest(resource_position(owner), network.alive(), RULES.neighbourhood_size)
    return sorted((node for node in nodes if node.peer_id in ids), key=lambda node: ids.index(node.peer_id))


def others(nodes: list[SimulatedNode], kept: list[SimulatedNode]) -> list[SimulatedNode]:
    return [node for node in nodes if node not in kept]


async def fill(nodes: list[SimulatedNode], entries: list[IndexEntry]) -> None:
    for node in nodes:
        assert set(await node.parts.replica.ingest.enter(entries, STRANGER.peer_id)) <= {None}


async def labels(node: SimulatedNode, *, limit: int = 256, ack: int = 1) -> list[str]:
    found: list[str] = []
    after = None
    for _ in range(1000):
        page = await node.registry.list_resources(OWNER.peer_id, after=after, limit=limit, ack=ack)
        assert page.resources is not None, page.errors
        found += [resource.label for resource in page.resources]
        after = page.after
        if after is None:
            return found
    raise AssertionError("the pages never end")


ALL = [entry.label for entry in ENTRIES]


async def test_what_each_replica_lacks_another_tells_on_pages_of_any_size(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        for number, node in enumerate(kept):
            await fill([node], [entry for at, entry in enumerate(ENTRIES) if at % len(kept) != number])
        for node in nodes:
            assert await labels(node, limit=7) == ALL
        assert await labels(nodes[0]) == ALL


async def test_who_isnt_a_keeper_asks_two(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept, ENTRIES)
        network.calls.clear()
        assert await labels(others(nodes, kept)[0]) == ALL
        assert len([call for call in network.calls if call[2] == LIST]) == 2
        network.calls.clear()
        assert await labels(kept[0]) == ALL
        assert len([call for call in network.calls if call[2] == LIST]) == 1, "the own answer counts"


async def test_two_of_one_network_are_not_enough_where_there_are_others(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        kept = keepers(network, nodes)
        for number, node in enumerate(kept):  # the three nearest are somebody's
            network.addresses[node.peer_id] = [f"/ip4/{'10.1' if number < 3 else '10.2'}.0.{number + 1}/tcp/1"]
        await trio.sleep(10)
        await fill(kept[3:], ENTRIES)  # those withhold all
        reader = others(nodes, kept)[0]
        assert await labels(reader) == ALL
        assert kept[3].peer_id in {to for _, to, method in network.calls if method == LIST}


def withholding(node: SimulatedNode) -> None:
    async def nothing(caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        return build(IndexPage(()))

    node.peer.intercept(LIST, nothing)


async def test_a_liar_that_withholds_everything_is_outvoted(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept, ENTRIES)
        withholding(kept[0])
        assert await labels(others(nodes, kept)[0], limit=10) == ALL


async def test_a_liar_that_hides_a_removal_is_outvoted(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept[:1], [IndexEntry.of(a_key("a"))])
        await fill(kept[1:], [IndexEntry.of(a_key("a"), a_key_tombstone("a", issued=NOW + 1))])
        page = await others(nodes, kept)[0].registry.list_resources(OWNER.peer_id)
        assert page.resources is not None
        assert [resource.standing for resource in page.resources] == [ResourceStanding.REMOVED]


@pytest.mark.parametrize("size", [0, 1])
async def test_a_liar_that_ends_each_page_at_once_doesnt_hold_a_reader_up(autojump_clock, size: int) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept, ENTRIES)

        async def crumbs(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            after = parse(body, ListBody).after or ""
            ahead = [entry for entry in ENTRIES if entry.label > after][:size]
            return build(IndexPage.of(ToldPage(ahead, ahead[-1].label if ahead else after + "\0"), caught_up=True))

        kept[0].peer.intercept(LIST, crumbs)
        reader = others(nodes, kept)[0]
        network.calls.clear()
        assert await labels(reader, limit=10) == ALL
        assert len([call for call in network.calls if call[0] == reader.peer_id and call[2] == LIST]) <= 2 * 5


async def test_what_the_owner_didnt_sign_isnt_shown_and_its_teller_is_asked_last_from_then_on(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept, ENTRIES[:3])
        forged = bytearray(encode(a_key("forged")))
        forged[-1] ^= 1

        async def forging(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            return build(IndexPage(((bytes(forged),), (encode(a_key("theirs", STRANGER)),), (cbor2.dumps("?"),))))

        kept[0].peer.intercept(LIST, forging)
        reader = others(nodes, kept)[0]
        assert await labels(reader) == ALL[:3]
        network.calls.clear()
        assert await labels(reader) == ALL[:3]
        assert kept[0].peer_id not in {to for _, to, method in network.calls if method == LIST}


async def test_dead_keepers_are_made_up_for_and_silent_ones_after_a_moment(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        await fill(kept, ENTRIES)
        network.stalled.add(kept[0].peer_id)
        network.rewrites[kept[1].peer_id] = lambda method, body, is_answer: "?" if is_answer else body
        began = trio.current_time()
        assert await labels(others(nodes, kept)[0]) == ALL
        assert trio.current_time() - began < 2


async def test_too_few_answers_are_told_of(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        kept = keepers(network, nodes)
        network.stalled.update(node.peer_id for node in kept)
        page = await others(nodes, kept)[0].registry.list_resources(OWNER.peer_id, timeout=3)
        assert (page.resources, page.code) == (None, Code.TIMEOUT)
        page = await nodes[0].registry.list_resources("nobody")
        assert (page.resources, page.code) == (None, Code.INVALID)


async def test_a_network_of_one_lists_what_it_has() -> None:
    async with simulated_nodes(1, SETTINGS, clock) as (_, [node]):
        await fill([node], ENTRIES)
        assert await labels(node, limit=9) == ALL


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 39)), st.integers(-1, 39), st.integers(-1, 39), st.integers(1, 20))
def test_of_a_page_no_more_counts_than_was_asked_for(told: set[int], after: int, last: int, limit: int) -> None:
    """And one that isn't full ends nowhere."""
    body = ListBody(OWNER.peer_id, None if after < 0 else f"{after:03}", limit)
    entries = [ENTRIES[number] for number in told]
    page = trio.run(page_of, entries, None if last < 0 else f"{last:03}", body, NOW, RULES)
    asked_for = [ENTRIES[number] for number in sorted(told) if after < number and (last < 0 or number <= last)]
    assert page.entries == asked_for
    assert page.last == (f"{last:03}" if last >= 0 and is_full(asked_for, limit) else None)
