"""How resources get into their owners' indexes, and how those who keep an index stay alike."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from overlay.discovery.keyspace import nearest, resource_position
from overlay.errors import NoSuchMethod
from registry.codes import Code
from registry.model.owner_index import IndexEntry, ResourceStanding
from registry.protocol.index_messages import ENTER, LISTS
from registry.protocol.messages import Item
from registry.quorum.recent_writes import REMEMBERED_FOR
from registry.replica import rules
from registry.replication.entering import FIRST_AFTER, LINGER, NEAREST, TICK, TURN
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from registry.storage import Transaction
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import NOW, OWNER, STRANGER, a_key, a_key_tombstone

RULES = RegistrySettings(neighbourhood_size=4, responsibility_margin=1)
QUIET = UpkeepSettings(clear_expired=1e6, replicate=1e6, renew=1e6)
SETTINGS = NodeSettings(registry=RULES, upkeep=QUIET)
COUNT = 16


def clock() -> float:
    return NOW + 10


def keepers(network: SimulatedNetwork, nodes: list[SimulatedNode], resource: str) -> list[SimulatedNode]:
    ids = nearest(resource_position(resource), network.alive(), RULES.neighbourhood_size)
    return sorted((node for node in nodes if node.peer_id in ids), key=lambda node: ids.index(node.peer_id))


async def entry_on(node: SimulatedNode, label: str, owner: str = OWNER.peer_id) -> IndexEntry | None:
    return await node.store.read(lambda transaction: transaction.index.entry(owner, label))


def apart(network: SimulatedNetwork, nodes: list[SimulatedNode]) -> str:
    """A label of OWNER's whose replicas don't keep its index."""
    index = {node.peer_id for node in keepers(network, nodes, OWNER.peer_id)}
    for number in range(200):
        label = f"web{number}"
        if index.isdisjoint(node.peer_id for node in keepers(network, nodes, a_key(label).id)):
            return label
    raise AssertionError("there is no such label")


async def labels_on(node: SimulatedNode, owner: SimulatedNode) -> dict[str, ResourceStanding]:
    found = await node.registry.list_resources(owner.peer_id)
    assert found.resources is not None
    return {resource.label: resource.standing for resource in found.resources}


async def test_who_creates_or_removes_lists_it_at_once(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (_, nodes):
        await trio.sleep(10)
        for owner in nodes:
            made = await owner.registry.create_resource("web")
            assert made.resource_id is not None
            assert await labels_on(owner, owner) == {"web": ResourceStanding.LIVE}
            assert (await owner.registry.remove_resource(made.resource_id)).success
            assert await labels_on(owner, owner) == {"web": ResourceStanding.REMOVED}


async def test_a_fault_in_sending_some_entries_ends_neither_the_node_nor_what_it_sends_later(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        owner, faults = nodes[3], 0

        def faulty(method: str, body: object, is_answer: bool) -> object:
            nonlocal faults
            if method == ENTER and not is_answer:
                faults += 1
                raise RuntimeError("a fault of ours")
            return body

        network.rewrites[owner.peer_id] = faulty
        assert (await owner.registry.create_resource("first")).resource_id is not None
        await trio.sleep(LINGER + 1)
        assert faults > 0
        del network.rewrites[owner.peer_id]
        network.calls.clear()
        assert (await owner.registry.create_resource("second")).resource_id is not None
        await trio.sleep(LINGER + 1)
        assert any(caller == owner.peer_id and method == ENTER for caller, _, method in network.calls)


async def test_no_write_waits_for_an_index_and_those_of_a_moment_are_entered_together(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        owner = nodes[3]
        network.calls.clear()
        for number in range(12):
            assert (await owner.registry.create_resource(f"web{number}")).resource_id is not None
        assert not any(method == ENTER for _, _, method in network.calls)
        await trio.sleep(LINGER + 1)
        entered = Counter(called for _, called, method in network.calls if method == ENTER)
        assert set(entered.values()) == {1}
        assert set(entered) <= {node.peer_id for node in keepers(network, nodes, owner.peer_id)}


async def test_what_is_created_is_listed_from_everywhere_in_a_moment_and_so_is_its_removal(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (_, nodes):
        await trio.sleep(10)
        owner = nodes[3]
        made = [await owner.registry.create_resource(f"web{number}") for number in range(6)]
        await trio.sleep(LINGER + 0.5)
        for node in nodes:
            found = await node.registry.list_resources(owner.peer_id)
            assert found.resources is not None
            assert {resource.resource_id for resource in found.resources} == {each.resource_id for each in made}
        assert made[2].resource_id is not None
        assert (await owner.registry.remove_resource(made[2].resource_id)).success
        await trio.sleep(LINGER + 0.5)
        for node in nodes:
            found = await node.registry.list_resources(owner.peer_id)
            assert found.resources is not None
            standings = [resource.standing for resource in found.resources]
            assert standings == [*[ResourceStanding.LIVE] * 2, ResourceStanding.REMOVED, *[ResourceStanding.LIVE] * 3]


@pytest.mark.parametrize("dead", [0, 1, 2])
async def test_what_its_owner_didnt_enter_its_replicas_do_though_the_nearest_be_dead(autojump_clock, dead: int) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        label = apart(network, nodes)
        key = a_key(label)
        replicas = keepers(network, nodes, key.id)
        network.muted.update(node.peer_id for node in replicas[:dead])
        for node in replicas:
            assert await node.parts.replica.ingest.store([Item(key)], STRANGER.peer_id) == [None]
        await trio.sleep(FIRST_AFTER + NEAREST * TURN + TICK + 1)
        entries = [await entry_on(node, label) for node in keepers(network, nodes, OWNER.peer_id)]
        assert entries == [IndexEntry.of(key)] * RULES.neighbourhood_size


async def test_replicas_that_find_a_resource_entered_send_nothing(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        created = await nodes[3].registry.create_resource("web")
        assert created.resource_id is not None
        await trio.sleep(LINGER + 0.5)
        network.calls.clear()
        await trio.sleep(20)
        calls = Counter(method for _, _, method in network.calls)
        assert calls[ENTER] == 0
        assert calls[LISTS] <= NEAREST


async def test_what_a_script_stores_by_the_service_is_listed(autojump_clock) -> None:
    """Unmodified clients put keys by the original's functions."""
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        label = apart(network, nodes)
        key = a_key(label)

        def put(transaction: Transaction) -> bool:
            return rules.register_key(transaction, key, 0, "", RULES, NOW)

        for node in keepers(network, nodes, key.id):
            await node.store.write(put)
        await trio.sleep(FIRST_AFTER + TICK + 1)
        found = await nodes[0].registry.list_resources(OWNER.peer_id)
        assert found.resources is not None
        assert [resource.label for resource in found.resources] == [label]


async def before_there_were_indexes(nodes: list[SimulatedNode], *labels: str) -> None:
    """What they keep is listed nowhere."""

    def forget(transaction: Transaction) -> None:
        for label in labels:
            transaction.index.remove(OWNER.peer_id, label)

    for node in nodes:
        await node.store.write(forget)


async def test_a_resource_from_before_is_entered_at_its_renewal(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        label = apart(network, nodes)
        write = nodes[0].parts.node_api.write
        await write(Item(a_key(label)), factor=1, timeout=6)
        await trio.sleep(REMEMBERED_FOR + 1)
        await before_there_were_indexes(nodes, label)
        assert (await nodes[0].registry.list_resources(OWNER.peer_id)).resources == ()
        renewed = a_key(label, created=NOW + 5)
        await write(Item(renewed), factor=1, timeout=6)
        await trio.sleep(LINGER + 0.5)
        for node in keepers(network, nodes, OWNER.peer_id):
            assert await entry_on(node, label) == IndexEntry.of(renewed)


async def test_looking_through_what_is_stored_enters_what_isnt_listed(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        label = apart(network, nodes)
        await nodes[0].parts.node_api.write(Item(a_key(label)), factor=1, timeout=6)
        await trio.sleep(20)
        await before_there_were_indexes(nodes, label)
        for node in nodes:
            await node.parts.entering.look_through()
        for node in keepers(network, nodes, OWNER.peer_id):
            assert await entry_on(node, label) == IndexEntry.of(a_key(label))


async def test_keepers_of_an_index_compare_it_and_send_each_other_what_they_lack(autojump_clock) -> None:
    """More of one owner than a leaf of a hash tree holds."""
    entries = [IndexEntry.of(a_key(f"{number:03}")) for number in range(100)]
    removed = IndexEntry.of(a_key("007"), a_key_tombstone("007", issued=NOW + 1))
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        one, *others = keepers(network, nodes, OWNER.peer_id)
        assert set(await one.parts.replica.ingest.enter(entries[5:], STRANGER.peer_id)) == {None}
        for other in others:
            assert set(await other.parts.replica.ingest.enter([*entries[:-9], removed], STRANGER.peer_id)) == {None}
        for node in (one, *others):
            await node.parts.replication.replicate()
        known = {entry.label: entry for entry in [*entries, removed]}
        for node in (one, *others):
            assert [await entry_on(node, label) for label in known] == list(known.values())
        network.calls.clear()
        for node in (one, *others):
            await node.parts.replication.replicate()
        assert ENTER not in {method for _, _, method in network.calls}, "nothing differs any more"


async def test_what_a_peers_quota_refused_isnt_sent_again_each_hour(autojump_clock) -> None:
    small = NodeSettings(registry=RegistrySettings(keys_per_owner=3), upkeep=QUIET)
    async with simulated_nodes(2, small, clock) as (network, [one, other]):
        await trio.sleep(10)
        for node, labels in ((one, "abc"), (other, "xyz")):
            entries = [IndexEntry.of(a_key(label)) for label in labels]
            assert await node.parts.replica.ingest.enter(entries, STRANGER.peer_id) == [None] * 3
            refused = await node.parts.replica.ingest.enter([IndexEntry.of(a_key("more"))], STRANGER.peer_id)
            assert [error and error.known_code for error in refused] == [Code.QUOTA_EXCEEDED]
        for node in (one, other):
            await node.parts.replication.replicate()
        network.calls.clear()
        for node in (one, other):
            await node.parts.replication.replicate()
        assert ENTER not in {method for _, _, method in network.calls}


async def test_who_moves_up_after_a_departure_gets_the_index(autojump_clock) -> None:
    async with simulated_nodes(COUNT, SETTINGS, clock) as (network, nodes):
        await trio.sleep(10)
        owner = nodes[3]
        for number in range(5):
            assert (await owner.registry.create_resource(f"web{number}")).resource_id is not None
        for _ in range(3):  # one after the other, the nearest each time
            gone = next(node for node in keepers(network, nodes, owner.peer_id) if node is not owner)
            network.down.add(gone.peer_id)
            network.membership_changed()
            await trio.sleep(15)
        for node in keepers(network, nodes, owner.peer_id):
            found = [await entry_on(node, f"web{number}", owner.peer_id) for number in range(5)]
            assert None not in found


async def test_a_peer_of_before_indexes_is_compared_with_all_the_same(autojump_clock) -> None:
    async with simulated_nodes(2, SETTINGS, clock) as (_, [one, other]):
        await trio.sleep(10)

        async def unknown(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            raise NoSuchMethod(other.peer_id, ENTER)

        other.peer.intercept(ENTER, unknown)
        await one.parts.replica.ingest.store([Item(a_key("a"))], STRANGER.peer_id)
        await one.parts.replication.replicate()
        assert (await other.store.resource(a_key("a").id)).key == a_key("a")
        assert one.parts.replication.status().pending == 0
