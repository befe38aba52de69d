"""Nobody can make another's resource unusable by filling its slots, with live records or ended ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import pytest

from overlay.identity import Identity
from registry.codes import Code
from registry.model.values import Key, Record, State, Tombstone
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.settings import DAY, NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.builders import NOW, OWNER, a_key, a_record, a_tombstone, identity

RULES: Final = RegistrySettings(tombstone_burst=100_000)
KEY: Final = a_key("service", OWNER)
HONEST: Final = identity(20_000)
TRUSTED: Final = identity(20_001)
STRANGERS: Final = [identity(number) for number in range(1_000, 1_300)]
HOSTS: Final = [identity(number) for number in range(2_000, 2_600)]


class Victim:
    """A node with a resource of OWNER's that others attack."""

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self.taken: list[State] = []

    async def put(self, states: Iterable[State], key: Key = KEY) -> int:
        """Puts states as one peer does; how many were taken."""
        batch = list(states)
        errors = await self.node.parts.replica.ingest.store([Item(key, state) for state in batch], "somebody")
        self.taken += [state for state, error in zip(batch, errors, strict=True) if error is None]
        return errors.count(None)

    async def refusal(self, state: State) -> ErrorInfo | None:
        [error] = await self.node.parts.replica.ingest.store([Item(KEY, state)], "somebody")
        return error

    async def slots(self) -> int:
        return len((await self.node.store.resource(KEY.id)).slots)

    async def check_usable(self, *, for_strangers: bool = True) -> None:
        """The owner, the node itself and whoever its operator trusts can register; others where there is room."""
        honest = await self.refusal(a_record(KEY.id, HONEST, HOSTS[-1]))
        assert honest is None if for_strangers else honest is not None and honest.code == Code.VALUES_LIMIT_EXCEEDED
        own = self.node.identity
        for issuer, host in ((OWNER, HOSTS[-1]), (own, own), (HONEST, own), (TRUSTED, HOSTS[-1])):
            assert await self.refusal(a_record(KEY.id, issuer, host)) is None
            assert await self.refusal(a_tombstone(KEY.id, issuer, host, NOW + 1)) is None

    async def check_nothing_comes_back(self) -> None:
        """Of what was ended here, no record comes back."""
        ended = {state.slot for state in self.taken if isinstance(state, Tombstone)}
        records = [state for state in self.taken if isinstance(state, Record) and state.slot in ended]
        assert records
        assert await self.put(records) == 0


@asynccontextmanager
async def victim(rules: RegistrySettings = RULES) -> AsyncIterator[Victim]:
    settings = NodeSettings(registry=rules, weights={TRUSTED.peer_id: 1})
    async with simulated_nodes(1, settings, lambda: NOW) as (_, [node]):
        assert await node.parts.replica.ingest.store([Item(KEY)], "somebody") == [None]
        yield Victim(node)


def registered_and_ended(issuers: Sequence[Identity], hosts: Sequence[Identity]) -> Iterable[list[State]]:
    """An issuer after the other registers on each host and ends it at once."""
    for issuer in issuers:
        yield [
            state
            for host in hosts
            for state in (a_record(KEY.id, issuer, host), a_tombstone(KEY.id, issuer, host, NOW + 1))
        ]


async def test_ended_slots_of_one_stranger_leave_room_for_all_others(autojump_clock) -> None:
    async with victim() as attacked:
        for states in registered_and_ended(STRANGERS[:1], HOSTS):
            await attacked.put(states)
        assert await attacked.slots() == RULES.slots_per_issuer
        await attacked.check_usable()
        await attacked.check_nothing_comes_back()


async def test_ended_slots_of_many_strangers_leave_the_last_quarter_to_those_with_few(autojump_clock) -> None:
    rules = RegistrySettings(slots_per_key=256, slots_per_issuer=32, tombstone_burst=100_000)
    async with victim(rules) as attacked:
        for states in registered_and_ended(STRANGERS[:20], HOSTS[:32]):
            await attacked.put(states)
        assert await attacked.slots() <= 256
        await attacked.check_usable(for_strangers=False)
        await attacked.check_nothing_comes_back()
    async with victim(rules) as attacked:
        for states in registered_and_ended(STRANGERS[:6], HOSTS[:32]):
            await attacked.put(states)
        await attacked.check_usable()


async def test_tombstones_for_nothing_give_way_to_records(autojump_clock) -> None:
    rules = RegistrySettings(slots_per_key=64, slots_per_issuer=32, tombstones_per_key=64, tombstone_burst=100_000)
    async with victim(rules) as attacked:
        for stranger in STRANGERS:
            await attacked.put(a_tombstone(KEY.id, stranger, host) for host in HOSTS[:32])
        assert await attacked.slots() == 64
        await attacked.check_usable()
        newcomers = [a_record(KEY.id, identity(30_000 + number), HOSTS[0]) for number in range(40)]
        assert await attacked.put(newcomers) == 40
        assert await attacked.slots() <= 64 + 4


async def test_what_holds_an_old_record_down_outlives_tombstones_for_nothing(autojump_clock) -> None:
    rules = RegistrySettings(slots_per_key=64, slots_per_issuer=64, tombstones_per_key=64, tombstone_burst=100_000)
    async with victim(rules) as attacked:
        for states in registered_and_ended([HONEST], HOSTS[:10]):
            assert await attacked.put(states) == 20
        for stranger in STRANGERS:
            await attacked.put(a_tombstone(KEY.id, stranger, host) for host in HOSTS[:8])
            await attacked.put(a_record(KEY.id, stranger, host) for host in HOSTS[8:16])
        await attacked.check_nothing_comes_back()


@pytest.mark.parametrize(
    ("strangers", "records_of_each", "for_strangers"), [(1, 256, True), (8, 32, True), (30, 32, False), (256, 1, False)]
)
async def test_junk_records_keep_nobody_out_who_has_a_right(
    autojump_clock, strangers: int, records_of_each: int, for_strangers: bool
) -> None:
    """Many strangers with few records each can't be told from honest ones: against those only a weight helps."""
    async with victim() as attacked:
        for stranger in STRANGERS[:strangers]:
            await attacked.put(a_record(KEY.id, stranger, host) for host in HOSTS[:records_of_each])
        assert await attacked.slots() <= RULES.records_per_key
        await attacked.check_usable(for_strangers=for_strangers)


async def test_the_owners_records_stay_whatever_strangers_put(autojump_clock) -> None:
    async with victim() as attacked:
        owners = [a_record(KEY.id, OWNER, host) for host in HOSTS[: RULES.records_per_issuer]]
        assert await attacked.put(owners) == len(owners)
        for stranger in STRANGERS:
            await attacked.put([a_record(KEY.id, stranger, HOSTS[0])])
        trusted = [a_record(KEY.id, TRUSTED, host) for host in HOSTS[: RULES.records_per_issuer]]
        assert await attacked.put(trusted) == len(trusted)
        stored = set((await attacked.node.store.resource(KEY.id)).slots.values())
        assert stored.issuperset(owners)
        assert stored.issuperset(trusted)
        assert len(stored) == RULES.records_per_key


async def test_tombstones_whose_victims_cant_be_good_any_more_give_way(autojump_clock) -> None:
    rules = RegistrySettings(slots_per_key=32, slots_per_issuer=32, tombstone_burst=100_000)
    old = NOW - rules.record_lifetime + DAY
    now = [float(NOW)]
    settings = NodeSettings(registry=rules)
    async with simulated_nodes(1, settings, lambda: now[0]) as (_, [node]):
        ingest = node.parts.replica.ingest
        for issuer in STRANGERS[:8]:
            for host in HOSTS[:4]:
                states = [a_record(KEY.id, issuer, host, old, NOW), a_tombstone(KEY.id, issuer, host, NOW)]
                assert await ingest.store([Item(KEY, state) for state in states], "somebody") == [None, None]
        newcomer = [Item(KEY, a_record(KEY.id, HONEST, HOSTS[0]))]
        [error] = await ingest.store(newcomer, "somebody")
        assert error is not None
        now[0] += DAY - 10
        [error] = await ingest.store(newcomer, "somebody")
        assert error is not None, "they hold down what could still be good"
        now[0] += 9
        fresh = [Item(KEY, a_record(KEY.id, HONEST, HOSTS[0], int(now[0])))]
        [error] = await ingest.store(fresh, "somebody")
        assert error is not None
        now[0] += 1
        assert await ingest.store(fresh, "somebody") == [None]
