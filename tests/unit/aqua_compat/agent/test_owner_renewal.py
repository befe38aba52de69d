"""Whether the resources of owners whose keys a node holds outlast a year, in virtual time."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import trio
import trio.testing

from aqua_compat.agent.owner_keys import OwnerKeys
from aqua_compat.agent.owner_renewal import OwnerRenewal
from overlay.identity import Identity
from registry.client.results import Listed
from registry.codes import Code
from registry.model.merge import ResourceState, merged
from registry.model.owner_index import IndexEntry, listed
from registry.model.signing import key_id_of
from registry.model.values import Key, KeyTombstone
from registry.model.verification import check_key
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy
from registry.protocol.messages import Item, WriteOutcome
from registry.settings import DAY, RegistrySettings
from registry.upkeep.schedule import Schedule
from tests.unit.aqua_compat.acting import a_record

COMPANY = Identity.from_seed(bytes(32))
SETTINGS = RegistrySettings()
PERIOD = 43_200.0  # seconds
START = 1_800_000_000  # seconds since 1970


def clock() -> float:
    return START + trio.current_time() - BEGAN


BEGAN = 0.0


class Network:
    """Merges what is written as replicas do, and takes nothing whose signature isn't good at the time."""

    def __init__(self) -> None:
        self.resources: dict[str, ResourceState] = {}
        self.writes = 0
        self.majorities: list[int] = []
        self.is_listed = True

    async def write(self, item: Item, timeout: float) -> WriteOutcome:
        await trio.lowlevel.checkpoint()
        key = item.key_or_tombstone
        assert isinstance(key, Key)
        check_key(key, int(clock()), SETTINGS)
        known = self.resources.get(key.id, ResourceState.of(None, []))
        self.resources[key.id] = merged(known, ResourceState.of(key, []))
        self.writes += 1
        return WriteOutcome(1, 1)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> object:
        await trio.lowlevel.checkpoint()
        self.majorities.append(ack)
        return SimpleNamespace(resource=self.resources.get(key_id, ResourceState.of(None, [])))

    async def neighbours(self, key_id: str, *, timeout: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        return ["peer"] * 20

    async def list_resources(self, owner: str, *, after: str | None = None) -> Listed:
        await trio.lowlevel.checkpoint()
        if not self.is_listed:
            return Listed(None, ("too few answered",), code=Code.TOO_FEW_REPLICAS)
        entries = [IndexEntry.of(each.key or each.key_tombstones[0]) for each in self.resources.values()]
        following = sorted((one for one in entries if after is None or one.label > after), key=lambda one: one.label)
        shown = tuple(listed(one, int(clock()), SETTINGS) for one in following[:2])
        return Listed(shown, (), shown[-1].label if len(following) > 2 else None)


def holder(network: Network) -> tuple[OwnerKeys, OwnerRenewal]:
    """Who has the company's key."""
    keys = OwnerKeys({COMPANY.peer_id: COMPANY}, network.write, trio.lowlevel.checkpoint, clock)
    return keys, OwnerRenewal(keys, cast("Any", network), cast("Any", network), SETTINGS, PERIOD, clock)


def begin() -> None:
    global BEGAN  # noqa: PLW0603 - when this test's virtual time begins
    BEGAN = trio.current_time()


def signed(label: str, timestamp: int, policy: Policy | None = None) -> Key:
    rules = (b"", "") if policy is None else (encode_policy(policy), POLICY_TYPE)
    unsigned = Key(label, COMPANY.peer_id, timestamp, *rules, b"")
    return Key(label, COMPANY.peer_id, timestamp, *rules, COMPANY.sign(unsigned.signed_bytes()))


async def test_what_two_holders_have_is_renewed_by_one_of_them_for_longer_than_a_signature_is_good(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begin()
    network = Network()
    labels = ["db", "policed", "web"]
    for label in labels:
        policy = Policy(revision=3, open=True) if label == "policed" else None
        await network.write(Item(signed(label, int(clock()), policy)), 1.0)
    network.writes = 0
    async with trio.open_nursery() as nursery:
        for seed in range(2):
            _, renewal = holder(network)
            schedule = Schedule(
                "renew",
                renewal.run_in_words,
                delay=30.0,
                period=PERIOD,
                jitter=0.1,
                clock=clock,
                randomness=random.Random(seed),
            )
            nursery.start_soon(schedule.run)
        days = 370
        for _ in range(days):
            await trio.sleep(DAY)
            for resource in network.resources.values():
                assert resource.key is not None
                age = int(clock()) - resource.key.timestamp_created
                assert age < SETTINGS.expired_age, f"{resource.key.label}: nobody renewed it for {age} s"
        nursery.cancel_scope.cancel()
    policed = network.resources[key_id_of("policed", COMPANY.peer_id)].key
    assert policed is not None
    assert policed.revision == 3, "its policy stays"
    assert 11 in network.majorities, "a majority was asked for what has a policy"
    assert network.writes < len(labels) * days * 2.5, "not by each holder each time"


async def test_what_was_removed_isnt_made_again_nor_what_expired_with_nothing_on_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begin()
    network, now = Network(), int(clock())
    long_ago = now - 3 * DAY
    ended = KeyTombstone(key_id_of("gone", COMPANY.peer_id), "gone", COMPANY.peer_id, long_ago, bytes(64))
    used, empty, policed = (
        signed("used", long_ago),
        signed("empty", long_ago),
        signed("policed", long_ago, Policy(revision=1, open=True)),
    )
    record = a_record()
    on_used = msgspec.structs.replace(record, metadata=msgspec.structs.replace(record.metadata, key_id=used.id))
    network.resources = {
        ended.id: ResourceState.of(None, [], ended),
        used.id: ResourceState.of(used, [on_used]),
        empty.id: ResourceState.of(empty, []),
        policed.id: ResourceState.of(policed, []),
    }
    _, renewal = holder(network)
    assert await renewal.run_in_words() == "keys 2, failed 0"
    renewed = [each.key.label for each in network.resources.values() if each.key and each.key.timestamp_created >= now]
    assert renewed == ["used", "policed"]


async def test_holders_that_get_no_list_say_so_and_come_again(autojump_clock: trio.testing.MockClock) -> None:
    begin()
    network = Network()
    await network.write(Item(signed("web", int(clock()))), 1.0)
    network.is_listed = False
    _, renewal = holder(network)
    await trio.sleep(DAY / 2)
    assert await renewal.run_in_words() == "keys 0, failed 0"
    network.is_listed = True
    assert await renewal.run_in_words() == "keys 1, failed 0"
