"""Comparing resources with a peer that answers oddly: what it is sent, and how much is read for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import pytest
import trio

from registry.codes import Code
from registry.errors import StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.values import Key, KeyTombstone, Record
from registry.permission.policy import Policy
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item, PutAnswer, PutBody, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.replication import anti_entropy
from registry.replication.anti_entropy import AntiEntropy, Compared
from registry.replication.epoch import epoch_of
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    MAX_ENTRIES,
    CompareAnswer,
    CompareBody,
    KeySummary,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    Summary,
    packed,
)
from registry.replication.ranges import EVERYWHERE, Ranges
from registry.replication.view import RangeView
from registry.settings import RegistrySettings
from registry.storage import Transaction, open_store
from registry.storage.database import IN_MEMORY
from tests.unit.registry.builders import NODE, NOW, a_key, a_key_tombstone, a_record

LIAR = "a peer that answers oddly"
KEYS = [a_key(f"resource {number}") for number in range(8)]
CLOSED = a_key("closed", policy=Policy(revision=1))
OPEN = a_key("closed", policy=Policy(revision=17, open=True))
NEVER = ExpiryHorizon(*[2**62] * 6)
"""By which nothing lives."""
RECORDS = [a_record(key.id, value="x" * 1000) for key in KEYS]


class Odd:
    """A network of this node and one peer, which says of the entries it is asked about what `answers` says."""

    peer_id = NODE.peer_id

    def __init__(self, answers: Callable[[CompareBody], CompareAnswer]) -> None:
        self._answers = answers
        self.asked: list[int] = []
        self.taken: list[list[Item]] = []
        self.refuses: ErrorInfo | None = None

    def serve(self, *_: object) -> None:
        """Nobody asks this node."""

    def neighbours(self) -> list[str]:
        return [LIAR]

    async def call(self, _peer_id: str, method: str, body: object, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        if method == COMPARE:
            request = parse(body, CompareBody)
            self.asked.append(len(request.entries))
            return build(self._answers(request))
        items = PutBody(parse(body, ReplicateBody).items).decoded()
        self.taken.append([item for item in items if isinstance(item, Item)])
        return build(PutAnswer((self.refuses,) * len(items)))


class Kept:
    """The settings of this node's replica."""

    settings = RegistrySettings()


async def compared_by(
    odd: Odd,
    pairs: Sequence[tuple[Key | KeyTombstone, Record]] = tuple(zip(KEYS, RECORDS, strict=True)),
    *,
    times: int = 1,
) -> None:
    def put(transaction: Transaction) -> None:
        for key, record in pairs:
            if isinstance(key, Key):
                transaction.put_key(key, NOW, 0)
            else:
                transaction.put_key_tombstones((key,))
            transaction.put_state(record, 0)

    async with open_store(IN_MEMORY, inline=True) as store:
        await store.write(put)
        comparing = AntiEntropy(cast("Network", odd), store, cast("Replica", Kept()), lambda: NOW + 1)
        for _ in range(times):
            await comparing.with_peer(LIAR, [record.slot.key_id for _, record in pairs], last=True)


async def test_who_says_again_and_again_that_it_lacks_a_resource_is_sent_that_once() -> None:
    odd = Odd(
        lambda request: CompareAnswer(
            request.horizon, len(request.entries), tuple(Summary(number % 2, True) for number in range(MAX_ENTRIES))
        )
    )
    await compared_by(odd)
    assert [item.state for items in odd.taken for item in items] == RECORDS[:2]


async def test_of_what_a_peer_lacks_only_so_much_is_read_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anti_entropy, "MOST_MISSING", 3000)
    odd = Odd(
        lambda request: CompareAnswer(
            request.horizon,
            len(request.entries),
            tuple(Summary(number, True) for number in reversed(range(len(request.entries)))),
        )
    )
    await compared_by(odd)
    assert [item.state for items in odd.taken for item in items] == RECORDS
    assert max(map(len, odd.taken)) <= 3
    assert odd.asked[0] == len(KEYS)


@pytest.mark.parametrize("theirs", [None, CLOSED, OPEN], ids=["no key", "the same key", "a greater one"])
async def test_what_the_policy_here_withholds_is_offered_to_who_has_a_greater_key(theirs: Key | None) -> None:
    """A host that isn't a keeper kept a record that the closed resource didn't permit, and never heard that it was
    opened: nobody else had it, and it never offered it again (seed 68 of the simulation)."""
    told = KeySummary.of(theirs) if theirs is not None else None
    odd = Odd(lambda request: CompareAnswer(request.horizon, len(request.entries), (Summary(0, True, key=told),)))
    record = a_record(CLOSED.id)
    await compared_by(odd, [(CLOSED, record)])
    offered = [item.state for items in odd.taken for item in items if item.state is not None]
    assert offered == ([record] if theirs is OPEN else [])


@pytest.mark.parametrize("mine", [a_key_tombstone("closed", revision=17), CLOSED], ids=["a tombstone", "an older key"])
async def test_what_the_policy_of_a_peer_refused_is_offered_again_once_that_is_another(
    mine: Key | KeyTombstone,
) -> None:
    """Seed 990 of the simulation: a host that knew the removal alone offered its record at each comparison."""
    theirs = [a_key("closed", policy=Policy(revision=18 + each)) for each in range(2)]
    told = [theirs[0], theirs[0], theirs[1], theirs[1]]
    odd = Odd(
        lambda request: CompareAnswer(
            request.horizon, len(request.entries), (Summary(0, True, key=KeySummary.of(told.pop(0))),)
        )
    )
    odd.refuses = ErrorInfo(Code.CERTIFICATE_ROOT, "the policy names others")
    record = a_record(CLOSED.id, issued=NOW + 1)
    await compared_by(odd, [(mine, record)], times=len(told))
    offered = [item.state for items in odd.taken for item in items if item.state is not None]
    assert offered == [record, record]


async def test_what_the_policy_of_a_key_refused_of_which_a_peer_didnt_tell_is_offered_again_once_it_tells_of_one() -> (
    None
):
    """It got the key just after it had told what it has, or has one that is too old to be told of."""
    told = [None, None, KeySummary.of(OPEN)]
    odd = Odd(
        lambda request: CompareAnswer(request.horizon, len(request.entries), (Summary(0, True, key=told.pop(0)),))
    )
    odd.refuses = ErrorInfo(Code.CERTIFICATE_ROOT, "the policy names others")
    record = a_record(CLOSED.id, issued=NOW + 1)
    await compared_by(odd, [(a_key_tombstone("closed"), record)], times=len(told))
    offered = [item.state for items in odd.taken for item in items if item.state is not None]
    assert offered == [record, record], "once for no key, and once for that one"


class Strict(Odd):
    """A network with a peer by whose rules nothing lives, and another one that has the same as this node."""

    def __init__(self) -> None:
        super().__init__(lambda _: CompareAnswer(NEVER, 0, ()))
        self.handlers: dict[str, Callable[[str, object], Awaitable[object]]] = {}

    def serve(self, method: str, handler: Callable[[str, object], Awaitable[object]]) -> None:  # type: ignore[override]
        self.handlers[method] = handler

    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        is_told = parse(body, RangesBody).horizon is not None
        return build(RangesAnswer(False, horizon=NEVER) if peer_id == LIAR and not is_told else RangesAnswer(True))

    def members(self) -> frozenset[str]:
        return frozenset()


async def test_by_whatever_rules_a_peer_compares_nothing_is_read_anew_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def everywhere(_: RangeView) -> Ranges:
        await trio.lowlevel.checkpoint()
        return EVERYWHERE

    async def failing(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StorageError("it was read already")

    monkeypatch.setattr(RangeView, "taken", everywhere)
    strict = Strict()
    async with open_store(IN_MEMORY, inline=True) as store:
        await store.write(lambda transaction: [transaction.put_key(key, NOW, 0) for key in KEYS])
        comparing = AntiEntropy(cast("Network", strict), store, cast("Replica", Kept()), lambda: NOW + 1)
        body = RangesBody(epoch_of(NOW + 1, Kept.settings.clock_skew), NEVER, packed(EVERYWHERE), bytes(16), (), False)
        for _ in range(2):
            await comparing.over_ranges("another", EVERYWHERE, last=False)
        await comparing.over_ranges(LIAR, EVERYWHERE, last=False)
        await strict.handlers[COMPARE_RANGES](LIAR, build(body))
        monkeypatch.setattr(store, "read", failing)
        monkeypatch.setattr(store, "resource", failing)
        assert await comparing.over_ranges("another", EVERYWHERE, last=False) == Compared([], ())
