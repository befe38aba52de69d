"""The heaviest source gives way: bounds, fair shares, and that everything is given back."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from overlay.limits.fair_quota import FairQuota, Holding


class Owner:
    """Something that holds; notes whether it gave way."""

    def __init__(self, quota: FairQuota, source: str, amount: int = 0, *, is_idle: bool = False) -> None:
        self.gave_way = False
        self.is_idle = is_idle
        self.holding = quota.open(source, self._give_way, is_idle=lambda: self.is_idle)
        if amount:
            assert self.holding.take(amount)

    def _give_way(self) -> None:
        self.gave_way = True


def test_what_fits_is_held_and_given_back() -> None:
    quota = FairQuota(10, 6)
    one, two = Owner(quota, "a", 4), Owner(quota, "b", 6)
    assert (quota.total, quota.of("a"), quota.of("b")) == (10, 4, 6)
    one.holding.give_back(3)
    two.holding.close()
    two.holding.close()
    assert (quota.total, quota.of("a"), quota.of("b")) == (1, 1, 0)
    assert not two.holding.take(1)
    two.holding.give_back(5)
    assert quota.total == 1


def test_giving_back_more_than_is_held_is_a_fault() -> None:
    holding = Owner(FairQuota(10, 10), "a", 2).holding
    with pytest.raises(ValueError, match="3 is given back of 2"):
        holding.give_back(3)


def test_source_at_its_own_bound_loses_what_is_idle_of_its_own_and_nothing_else() -> None:
    quota = FairQuota(100, 10)
    busy, idle, later, other = (
        Owner(quota, "a", 4),
        Owner(quota, "a", 3, is_idle=True),
        Owner(quota, "a", 3, is_idle=True),
        Owner(quota, "b", 10, is_idle=True),
    )
    assert Owner(quota, "a").holding.take(2)
    assert [owner.gave_way for owner in (busy, idle, later, other)] == [False, True, False, False]
    assert not Owner(quota, "a").holding.take(5)
    assert not quota.fits_source("a", 5)
    assert not busy.gave_way


def test_what_asks_isnt_ended_for_being_idle_itself() -> None:
    quota = FairQuota(10, 10)
    owner = Owner(quota, "a", 6, is_idle=True)
    assert not owner.holding.take(5)
    assert not owner.gave_way


def test_when_all_is_taken_the_heaviest_loses_what_is_idle_then_the_oldest() -> None:
    quota = FairQuota(12, 12)
    oldest, idle, newest = Owner(quota, "a", 3), Owner(quota, "a", 3, is_idle=True), Owner(quota, "a", 3)
    modest = Owner(quota, "b", 3)
    assert Owner(quota, "c").holding.take(2)
    assert [owner.gave_way for owner in (oldest, idle, newest, modest)] == [False, True, False, False]
    assert Owner(quota, "c").holding.take(2)
    assert [owner.gave_way for owner in (oldest, idle, newest, modest)] == [True, True, False, False]
    assert quota.total == 10


def test_who_would_hold_as_much_as_the_heaviest_is_refused() -> None:
    quota = FairQuota(10, 10)
    heavy = Owner(quota, "a", 6)
    light = Owner(quota, "b", 4)
    assert not light.holding.take(2)
    assert quota.fits_source("b", 2)
    assert light.holding.take(1)
    assert heavy.gave_way
    assert quota.of("b") == 5


def test_what_has_to_give_way_for_what_it_asks_for_gets_nothing() -> None:
    """Such as a copy that a peer brings for a particle of another peer, which has to end for it."""
    quota = FairQuota(10, 10)
    part = quota.open("light", lambda: None)
    whole = quota.open("heavy", part.close)
    assert whole.take(8)
    assert not part.take(3)
    assert quota.total == 0


def test_closed_holding_lets_go_of_its_owner() -> None:
    quota = FairQuota(10, 10)
    owner = Owner(quota, "a", 1)
    holding, is_alive = owner.holding, weakref.ref(owner)
    gc.disable()
    try:
        holding.close()
        del owner
        assert is_alive() is None
    finally:
        gc.enable()


SOURCES = "abcde"
MOST, MOST_PER_SOURCE = 60, 40


class Crowd(RuleBasedStateMachine):
    """Sources that take and give back as they please, with some of it idle."""

    def __init__(self) -> None:
        super().__init__()
        self.quota = FairQuota(MOST, MOST_PER_SOURCE)
        self.owners: list[Owner] = []
        self.held = dict.fromkeys(SOURCES, 0)

    @initialize(holdings=st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(1, 20), st.booleans()), max_size=12))
    def begin(self, holdings: list[tuple[str, int, bool]]) -> None:
        for source, amount, is_idle in holdings:
            self.open(source, amount, is_idle)

    @rule(source=st.sampled_from(SOURCES), amount=st.integers(0, 30), is_idle=st.booleans())
    def open(self, source: str, amount: int, is_idle: bool) -> None:
        owner = Owner(self.quota, source, is_idle=is_idle)
        self.owners.append(owner)
        self._take(owner, amount)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), amount=st.integers(0, 30))
    def take_more(self, data: st.DataObject, amount: int) -> None:
        self._take(data.draw(st.sampled_from(self.owners)), amount)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        holding = data.draw(st.sampled_from(self.owners)).holding
        holding.give_back(data.draw(st.integers(0, holding.amount)))

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(self.owners))
        owner.holding.close()
        self.owners.remove(owner)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), is_idle=st.booleans())
    def change(self, data: st.DataObject, is_idle: bool) -> None:
        data.draw(st.sampled_from(self.owners)).is_idle = is_idle

    def _take(self, owner: Owner, amount: int) -> None:
        source = owner.holding.source
        before = {name: self.quota.of(name) for name in SOURCES}
        was_closed = owner.holding.is_closed
        done = owner.holding.take(amount)
        wanted = before[source] + amount
        sources = {name for name in SOURCES if before[name]} | {source}
        share = MOST / len(sources)
        fell = [other for other in self.owners if other.gave_way]
        self.owners = [other for other in self.owners if not other.gave_way]
        for other in fell:
            name = other.holding.source
            assert other is not owner
            assert other.holding.is_closed
            if name == source:
                assert other.is_idle
                assert wanted > MOST_PER_SOURCE
            else:
                assert before[name] > share, "whoever stays within a fair share gives way to nobody"
                assert before[name] > before[source]
        if not done and not was_closed:
            heavier = [name for name in SOURCES if self.quota.of(name) > self.quota.of(source) + amount]
            assert wanted > min(share, MOST_PER_SOURCE), "whoever stays within a fair share isn't refused"
            assert not heavier or not self.quota.fits_source(source, amount), "nor anybody while one is heavier"

    @invariant()
    def nothing_is_exceeded_or_lost(self) -> None:
        of_owners = dict.fromkeys(SOURCES, 0)
        for owner in self.owners:
            of_owners[owner.holding.source] += owner.holding.amount
        assert {name: self.quota.of(name) for name in SOURCES} == of_owners
        assert self.quota.total == sum(of_owners.values()) <= MOST
        assert max(of_owners.values()) <= MOST_PER_SOURCE

    def teardown(self) -> None:
        for owner in self.owners:
            owner.holding.close()
        assert self.quota.total == 0
        assert not any(map(self.quota.of, SOURCES))


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(2, 8), st.integers(1, 20))
def test_one_that_took_everything_leaves_all_others_their_share(sources: int, piece: int) -> None:
    quota = FairQuota(200, 200)
    holdings: list[Holding] = []
    while quota.total + piece <= 200:
        holdings.append(Owner(quota, "greedy", piece).holding)
    for number in range(1, sources):
        modest = Owner(quota, f"modest {number}").holding
        while modest.amount + piece <= 200 // sources:
            assert modest.take(piece)
    assert quota.total <= 200
    assert all(quota.of(f"modest {number}") > 200 // sources - piece for number in range(1, sources)), (
        "none of them had to give way"
    )
