"""Nobody fills a node's disk, keeps others out of it, or has what others stored dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import structlog

from overlay.identity import Identity
from registry.assembly import assembled
from registry.client.node_status import NodeStatus
from registry.codes import Code, Kind
from registry.model.values import State
from registry.permission.policy import Policy
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.replica.ingest import Ingest
from registry.settings import DAY, NodeSettings, RegistrySettings
from registry.storage import Store, Transaction, open_store
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import NOW, OWNER, a_key, a_key_tombstone, a_record, a_tombstone, identity, keys_of

MB: Final = 2**20
BUDGET: Final = 4 * MB
NODE: Final = identity(40_000)
HONEST: Final = identity(40_001)
TRUSTED: Final = identity(40_002)
STRANGERS: Final = [identity(number) for number in range(41_000, 41_500)]
MIDDLING: Final = "x" * 7_500
BIG: Final = "x" * 60_000


class Attacked:
    """A node with a small budget and a database on the disk."""

    def __init__(self, ingest: Ingest, store: Store, path: Path, now: list[float]) -> None:
        self.ingest = ingest
        self.store = store
        self.path = path
        self.now = now

    async def put(self, items: Iterable[Item], source: str = "an attacker") -> list[ErrorInfo | None]:
        """As a peer that puts some at a time."""
        errors: list[ErrorInfo | None] = []
        batch: list[Item] = []
        for item in items:
            batch.append(item)
            if len(batch) == 64:
                errors += await self.ingest.store(batch, source)
                batch.clear()
        return errors + (await self.ingest.store(batch, source) if batch else [])

    async def stores(self, items: Iterable[Item], source: str = "a neighbour") -> bool:
        return not any(await self.put(items, source))

    async def used(self) -> int:
        return await self.store.read(Transaction.used_bytes)

    def on_disk(self) -> int:
        return sum(path.stat().st_size for path in self.path.parent.iterdir() if path.name.startswith(self.path.name))

    async def check_budget(self, budget: int = BUDGET) -> None:
        assert await self.used() <= budget + budget // 50
        assert self.on_disk() <= budget + budget // 50 + 16 * MB, "what one transaction changed lies beside it"

    async def holds(self, states: Sequence[State]) -> bool:
        return all([(await self.store.resource(state.slot.key_id)).slots.get(state.slot) == state for state in states])


async def no_status() -> NodeStatus:
    raise NotImplementedError


@asynccontextmanager
async def attacked(folder: Path, **rules: object) -> AsyncIterator[Attacked]:
    registry = RegistrySettings(**{"max_disk_bytes": BUDGET, "tombstone_burst": 100_000, **rules})  # type: ignore[arg-type]
    settings = NodeSettings(registry=registry, weights={TRUSTED.peer_id: 1})
    network, now, path = SimulatedNetwork(), [float(NOW)], folder / "registry.sqlite"
    async with open_store(path, inline=True) as store:
        peer = network.add(NODE.peer_id)
        async with assembled(peer, NODE, store, settings, no_status, lambda: now[0], starts_network=True) as parts:
            yield Attacked(parts.replica.ingest, store, path, now)


def junk(stranger: Identity, count: int, value: str = "", issued: int = NOW) -> Iterable[Item]:
    """Records under keys of the stranger's own, 32 under each."""
    for number in range(count):
        key = a_key(f"junk {number // 32}", stranger)
        yield Item(key, a_record(key.id, stranger, identity(50_000 + number % 32), issued, value=value))


def service(issuer: Identity, number: int = 0, issued: int = NOW, value: str = "somewhere") -> Item:
    """A record as an honest peer registers it, on a resource of OWNER's."""
    key = a_key(f"service {number}", OWNER)
    return Item(key, a_record(key.id, issuer, issuer, issued, value=value))


def states_of(items: Iterable[Item]) -> list[State]:
    return [item.state for item in items if item.state is not None]


async def test_updates_are_charged_for_as_well(tmp_path: Path, autojump_clock) -> None:
    async with attacked(tmp_path) as node:
        services = [service(identity(60_000 + number), number) for number in range(100)]
        assert await node.stores(services)
        small = [list(junk(stranger, 40)) for stranger in STRANGERS[:10]]
        for items in small:
            assert not any(await node.put(items, source=f"attacker {id(items)}"))
        errors = []
        for stranger in STRANGERS[:10]:
            errors += await node.put(junk(stranger, 40, BIG, NOW + 1), source=stranger.peer_id)
        assert errors.count(None) > 10
        await node.check_budget()
        assert await node.holds(states_of(services))
        renewed = [service(identity(60_000 + number), number, NOW + 2) for number in range(100)]
        assert await node.stores(renewed), "what doesn't grow is renewed on a full node, too"


async def test_one_identity_has_a_share_and_newcomers_find_room(tmp_path: Path, autojump_clock) -> None:
    async with attacked(tmp_path, sender_share=1.0) as node:
        errors = await node.put(junk(STRANGERS[0], 200, BIG))
        assert {error.code for error in errors if error} == {Code.QUOTA_EXCEEDED}
        assert await node.used() < BUDGET / 2
        for stranger in STRANGERS[1:8]:
            await node.put(junk(stranger, 100, BIG), source=stranger.peer_id)
        await node.check_budget()
        newcomers = [service(identity(61_000 + number), number) for number in range(200)]
        assert await node.stores(newcomers), "the greediest give way"
        assert await node.holds(states_of(newcomers))
        await node.check_budget()


async def test_signers_that_one_sender_makes_up_fill_little_of_the_second_half(tmp_path: Path, autojump_clock) -> None:
    async with attacked(tmp_path) as node:
        errors = await node.put(item for stranger in STRANGERS for item in junk(stranger, 1, MIDDLING))
        last = errors[-1]
        assert last is not None
        assert (last.code, last.kind) == (Code.RATE_EXCEEDED, Kind.LOAD)
        assert await node.used() < BUDGET * 0.75
        assert await node.stores([service(HONEST, number) for number in range(50)])
        assert await node.put(junk(NODE, 1), source=NODE.peer_id) == [None]


async def test_many_small_strangers_take_nothing_from_those_who_were_there(tmp_path: Path, autojump_clock) -> None:
    """They can't be told from honest newcomers, which are refused then as well; nothing that was acknowledged goes."""
    async with attacked(tmp_path) as node:
        before = [service(HONEST, number) for number in range(10)]
        assert await node.stores(before)
        for stranger in STRANGERS:
            errors = await node.put(junk(stranger, 1, MIDDLING), source=stranger.peer_id)
        assert errors[-1] is not None
        assert (errors[-1].code, errors[-1].kind) == (Code.DISK_FULL, Kind.DISK)
        await node.check_budget()
        assert await node.holds(states_of(before))
        assert await node.stores([service(HONEST, number, NOW + 1) for number in range(10)])
        trusted = [service(TRUSTED, number) for number in range(100)]
        assert await node.stores(trusted), "whoever has a weight finds room"
        assert await node.put(junk(NODE, 100), source=NODE.peer_id) == [None] * 100
        await node.put((item for stranger in STRANGERS[:200] for item in junk(stranger, 8)), source="another attacker")
        assert await node.holds(states_of(trusted))
        assert await node.holds(states_of(junk(NODE, 100)))


def permitted(issuers: Sequence[Identity], owner: Identity = OWNER, value: str = "somewhere") -> list[Item]:
    """Records of issuers that the policy of a resource allows."""
    key = a_key("closed", owner, policy=Policy(revision=1, allow=keys_of(*issuers)))
    return [Item(key, a_record(key.id, issuer, issuer, value=value)) for issuer in issuers]


async def test_small_strangers_who_fill_a_node_give_way_to_those_whom_a_policy_permits(
    tmp_path: Path, autojump_clock
) -> None:
    async with attacked(tmp_path) as node:
        for stranger in STRANGERS:
            errors = await node.put(junk(stranger, 1, MIDDLING), source=stranger.peer_id)
        assert errors[-1] is not None
        assert errors[-1].code == Code.DISK_FULL
        permits = permitted([identity(62_000 + number) for number in range(20)], value=MIDDLING)
        assert await node.stores(permits)
        await node.check_budget()
        for number in range(100):  # who come later, and have less, push none of these out
            await node.put(junk(identity(63_000 + number), 1), source=f"newcomer {number}")
        assert await node.holds(states_of(permits))
        await node.check_budget()


async def test_who_names_himself_on_resources_of_his_own_takes_half_of_a_full_node_and_no_more(
    tmp_path: Path, autojump_clock
) -> None:
    async with attacked(tmp_path, sender_share=4.0) as node:
        for stranger in STRANGERS:
            await node.put(junk(stranger, 1, MIDDLING), source=stranger.peer_id)
        before = [state for stranger in STRANGERS for state in states_of(junk(stranger, 1, MIDDLING))]
        held = sum([await node.holds([state]) for state in before])
        for number in range(40):
            himself = [identity(64_000 + number * 24 + each) for each in range(24)]
            errors = await node.put(permitted(himself, himself[0], MIDDLING), source=f"attacker {number}")
        assert errors[-1] is not None
        assert errors[-1].code == Code.DISK_FULL
        await node.check_budget()
        named, of_all = await node.store.read(
            lambda transaction: (transaction.accounts.named_bytes(), transaction.accounts.all_bytes())
        )
        assert named <= of_all // 2 + len(MIDDLING) + 1_024
        left = sum([await node.holds([state]) for state in before])
        assert left >= held * 0.4


@pytest.mark.parametrize("what", ["key tombstones", "tombstones"])
async def test_tombstones_for_nothing_are_bounded_and_give_way(tmp_path: Path, autojump_clock, what: str) -> None:
    async with attacked(tmp_path, sender_share=4.0) as node:
        items: list[Item] = []
        for number, stranger in enumerate(STRANGERS):
            for count in range(2):
                if what == "key tombstones":
                    items.append(Item(a_key_tombstone(f"{number} {count} " + "x" * 4_000, stranger)))
                else:
                    key = a_key(f"{number // 10}", OWNER)
                    host = identity(50_000 + count)
                    items.append(Item(key, a_tombstone(key.id, stranger, host, solution=b"x" * 4_000)))
        errors = await node.put(items)
        assert errors[-1] is not None
        assert errors[-1].code == Code.DISK_FULL
        await node.check_budget()
        newcomers = [service(identity(61_000 + number), number) for number in range(300)]
        assert await node.stores(newcomers)
        assert await node.holds(states_of(newcomers))
        await node.check_budget()


async def test_a_full_node_says_so_and_recovers_by_itself(tmp_path: Path, autojump_clock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with attacked(tmp_path, sender_share=1.0) as node:
            for stranger in STRANGERS:
                errors = await node.put(junk(stranger, 1, MIDDLING), source=stranger.peer_id)
            assert errors[-1] is not None
            assert errors[-1].code == Code.DISK_FULL
            assert node.store.space.is_full
            assert node.store.space.refused > 100
            node.now[0] += DAY
            fresh = int(node.now[0])
            refused = [0]
            while refused[-1] < 200 and len(refused) < 20:
                errors = await node.put([service(HONEST, number, fresh) for number in range(200)], "a neighbour")
                refused.append(errors.count(None))
            assert refused[-1] == 200, f"what expired goes, some of it each time: {refused}"
            assert not node.store.space.is_full
        async with attacked(tmp_path, max_disk_bytes=2 * BUDGET) as node:
            node.now[0] += DAY
            assert await node.stores([service(HONEST, number, fresh) for number in range(200, 300)])
            assert not node.store.space.is_full
    told = [entry["event"] for entry in logs if "disk budget" in entry["event"]]
    assert told == [
        "the disk budget is full: strangers' new data is refused; raise max_disk_bytes",
        "the disk budget has room again",
    ]


@pytest.mark.slow
async def test_a_flood_of_large_updates_stays_within_sixteen_mebibytes(tmp_path: Path, autojump_clock) -> None:
    async with attacked(tmp_path, max_disk_bytes=16 * MB, sender_share=1.0) as node:
        for value, issued in (("", NOW), (BIG, NOW + 1)):
            for stranger in STRANGERS[:40]:
                await node.put(junk(stranger, 110, value, issued), source=stranger.peer_id)
        await node.check_budget(16 * MB)
