"""With whom a node compares, and when, without a network and without waiting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.replication.block_view import NEVER_DENSE
from registry.replication.comparison_plan import (
    AT_ONCE,
    COMPARED_AT_ONCE,
    LONGEST_PAUSE,
    LONGEST_RANGES,
    LONGEST_RESOURCES,
    MAX_FAILED,
    MAX_PULLED,
    PULL_BURST,
    PULL_RATE,
    RETRY_LIMIT,
    UNWANTED_RETRIES,
    CompareRanges,
    CompareResources,
    ComparisonPlan,
    FindChanges,
)
from registry.replication.messages import MAX_RANGES
from registry.replication.ranges import Range, Ranges
from registry.settings import UpkeepSettings

SETTINGS: Final = UpkeepSettings()
START: Final = 100.0
LATE: Final = 3000.0  # seconds in which whatever failed is tried again
SOME: Final[Ranges] = (Range(0, 10),)
MORE: Final[Ranges] = (Range(20, 30),)

Comparison = CompareRanges | CompareResources


class Begun(NamedTuple):
    at: float
    comparison: Comparison


class Driven:
    """A plan, driven as a scheduler does it; each comparison takes `takes` seconds, and goes as `succeeds` says."""

    def __init__(self, *members: str) -> None:
        self.members = [*members]
        self.now = START
        self.takes: Callable[[Comparison], float] = lambda _: 0.0
        self.succeeds: Callable[[Comparison], bool] = lambda _: True
        self.unwanted: Ranges = ()
        self.differing: Sequence[str] = ()
        self.first: dict[str, Ranges] = {}
        self.later: dict[str, Ranges] = {}
        self.begun: list[Begun] = []
        self.changes: list[FindChanges] = []
        self.under_way: dict[str, tuple[float, Begun]] = {}  # until when
        self.pauses: list[float] = []
        self.owed: dict[str, set[str]] = {}
        self.plan = ComparisonPlan(
            "here",
            SETTINGS,
            neighbours=lambda: self.members,
            crowding=lambda: NEVER_DENSE,
            uniform=lambda _, high: high,
        )
        self.plan.note_change(self.now)

    def come(self, peer_id: str) -> None:
        if peer_id not in self.members:
            self.members.append(peer_id)
        self.plan.note_change(self.now)

    def go(self, peer_id: str) -> None:
        if peer_id in self.members:
            self.members.remove(peer_id)
        self.plan.note_change(self.now)

    def fail(self, peer_id: str, *key_ids: str) -> None:
        """A write doesn't reach a peer."""
        self.plan.note_failure(peer_id, key_ids, self.now)
        if peer_id in self.members:
            self.owed.setdefault(peer_id, set()).update(key_ids)

    def peers_begun(self) -> list[str]:
        return [begun.comparison.peer_id for begun in self.begun]

    def until(self, end: float) -> None:
        """Time passes."""
        while True:
            self._step()
            ends = min((at for at, _ in self.under_way.values()), default=math.inf)
            self.now = max(self.now, min(self.plan.wake_at, ends, end))
            for peer_id, (at, begun) in [*self.under_way.items()]:
                if at <= self.now:
                    del self.under_way[peer_id]
                    self._end(begun.comparison)
                    self.pauses.append(self.now + min(self.now - begun.at, LONGEST_PAUSE))
            if self.now >= end:
                self._step()
                return

    def settle(self) -> None:
        self.until(self.now + LATE)
        assert self.plan.is_settled
        assert not self.plan.has_work(self.now)

    def _step(self) -> None:
        found = True
        while found:
            found = False
            for action in self.plan.step(self.now):
                if isinstance(action, FindChanges):
                    self.changes.append(action)
                    for peer_id in action.went:
                        self.owed.pop(peer_id, None)
                    self.plan.changes_found(action, self.first, self.later)
                    found = True
                else:
                    self._begin(action)
        assert self.plan.wake_at > self.now, "it would be called again and again"

    def _begin(self, comparison: Comparison) -> None:
        peer_id = comparison.peer_id
        assert peer_id not in self.under_way
        assert not self.plan.is_postponed(peer_id, self.now)
        self.begun.append(Begun(self.now, comparison))
        self.under_way[peer_id] = self.now + self.takes(comparison), self.begun[-1]
        self.pauses = [until for until in self.pauses if until > self.now]
        assert len(self.under_way) + len(self.pauses) <= AT_ONCE

    def _end(self, comparison: Comparison) -> None:
        peer_id = comparison.peer_id
        if not self.succeeds(comparison):
            if not self.plan.failed(comparison, self.now):
                self.owed.pop(peer_id, None)  # it has gone
        elif isinstance(comparison, CompareRanges):
            _, rest = comparison.batch(())
            if self.plan.ranges_compared(comparison, rest, self.differing, self.unwanted):
                self.plan.finished(peer_id, [], self.plan.take_unwanted(peer_id), self.now)
        else:
            ranges = self.plan.take_unwanted(peer_id) if comparison.is_last else ()
            self.plan.finished(peer_id, [], ranges, self.now)
            self.owed.get(peer_id, set()).difference_update(comparison.key_ids)
        self.plan.ended(peer_id, self.now)


def settled(*members: str) -> Driven:
    """One that has compared with these members."""
    driven = Driven(*members)
    driven.settle()
    driven.begun.clear()
    driven.changes.clear()
    return driven


def test_those_who_were_there_before_are_compared_with_be_it_only_to_say_that_this_is_all() -> None:
    driven = Driven("a", "b")
    assert not driven.plan.is_settled
    driven.until(START + SETTINGS.join_delay / 2)
    assert driven.changes == []
    driven.until(START + SETTINGS.join_delay)
    [change] = driven.changes
    assert (change.came, change.went, change.before, change.after) == ({"a", "b"}, set(), set(), {"a", "b"})
    assert [begun.comparison.due for begun in driven.begun if begun.comparison.due] == []
    assert all(isinstance(begun.comparison, CompareResources) for begun in driven.begun)
    assert all(begun.comparison.is_last for begun in driven.begun if isinstance(begun.comparison, CompareResources))
    assert sorted(driven.peers_begun()) == ["a", "b"]
    driven.settle()


def test_a_peer_that_went_may_come_back_for_some_seconds_and_is_forgotten_then() -> None:
    driven = settled("a", "b")
    driven.succeeds = lambda _: False
    driven.fail("a", "key")
    driven.until(driven.now + 2.1)
    assert driven.plan.is_postponed("a", driven.now + SETTINGS.departure_grace)
    driven.go("a")
    gone = driven.now
    driven.until(gone + SETTINGS.departure_grace)
    assert driven.changes == []
    assert not driven.plan.is_settled
    driven.until(gone + SETTINGS.departure_grace + SETTINGS.join_delay)
    [change] = driven.changes
    assert (change.came, change.went, change.before, change.after) == (set(), {"a"}, {"a", "b"}, {"b"})
    driven.settle()
    assert driven.peers_begun() == ["a"], "it isn't compared with again"


def test_a_peer_that_was_away_for_a_moment_counts_as_a_newcomer() -> None:
    driven = settled("a", "b")
    driven.go("a")
    driven.until(driven.now + 1.0)
    driven.come("a")
    driven.settle()
    [change] = driven.changes
    assert (change.came, change.went, change.before, change.after) == ({"a"}, set(), {"b"}, {"a", "b"})
    assert driven.peers_begun() == ["a"]


@pytest.mark.parametrize("is_told", [True, False])
def test_who_comes_and_goes_while_changes_are_looked_for_is_looked_at_afterwards(is_told: bool) -> None:
    driven = settled("a")
    driven.come("b")
    now = driven.now + SETTINGS.join_delay
    assert driven.plan.step(driven.now) == []
    [change] = driven.plan.step(now)
    assert isinstance(change, FindChanges)
    driven.members = ["a", "c"]
    if is_told:
        driven.plan.note_change(now)
    assert driven.plan.wake_at == math.inf, "one look at a time"
    driven.plan.changes_found(change, {}, {})
    driven.now = now
    driven.settle()
    assert [each.came for each in driven.changes] == [{"c"}]
    assert driven.peers_begun() == ["c"]


def test_where_others_come_first_this_node_gives_them_a_head_start() -> None:
    driven = settled("a", "b")
    driven.first, driven.later = {"c": SOME}, {"c": MORE, "b": MORE}
    driven.come("c")
    looked_at = driven.now + SETTINGS.join_delay
    driven.until(looked_at)
    assert [(begun.comparison.peer_id, begun.comparison.due.ranges) for begun in driven.begun] == [("c", SOME)]
    driven.begun.clear()
    driven.until(looked_at + 1.24 * SETTINGS.head_start)
    assert driven.begun == []
    assert driven.plan.pending == 2
    driven.until(looked_at + 1.25 * SETTINGS.head_start)
    assert [(begun.comparison.peer_id, begun.comparison.due.ranges) for begun in driven.begun] == [
        ("c", MORE),
        ("b", MORE),
    ]


def test_two_at_a_time_each_followed_by_a_pause_as_long_as_it_took_but_not_for_ever() -> None:
    driven = settled("a", "b", "c", "d", "e")
    times = {"a": 0.5, "b": 0.6, "c": 10.0, "d": 30.0, "e": 10.0}
    driven.takes = lambda comparison: times[comparison.peer_id]
    driven.plan.add_everything("abcde")
    began = driven.now
    driven.settle()
    assert [(begun.comparison.peer_id, begun.at - began) for begun in driven.begun] == [
        ("a", 0.0),
        ("b", 0.0),
        ("c", pytest.approx(1.0)),
        ("d", pytest.approx(1.2)),
        ("e", pytest.approx(11.0 + LONGEST_PAUSE)),
    ]
    assert {begun.comparison.timeout for begun in driven.begun} == {LONGEST_RANGES}


def test_whoever_waits_comes_before_what_is_left_of_those_who_had_their_turn() -> None:
    driven = settled("a", "b", "c")
    driven.takes = lambda _: 1.0
    many = [f"{number:04}" for number in range(COMPARED_AT_ONCE + 1)]
    driven.fail("a", *many)
    driven.fail("b", "key")
    driven.fail("c", "key")
    driven.settle()
    portions = [begun.comparison for begun in driven.begun if isinstance(begun.comparison, CompareResources)]
    assert [(each.peer_id, len(each.key_ids), each.is_last) for each in portions] == [
        ("a", COMPARED_AT_ONCE, False),
        ("b", 1, True),
        ("c", 1, True),
        ("a", 1, True),
    ]
    assert {each.timeout for each in portions} == {LONGEST_RESOURCES}


def test_many_writes_that_fail_together_are_one_failure_and_further_ones_wait_longer() -> None:
    driven = settled("a")
    driven.succeeds = lambda _: False
    began = driven.now
    for number in range(50):
        driven.fail("a", f"key {number}")
    driven.until(began + 3600)
    at = [begun.at - began for begun in driven.begun]
    assert at[:8] == pytest.approx([2.0, 6.0, 14.0, 30.0, 62.0, 126.0, 254.0, 510.0])
    assert at[-1] - at[-2] == pytest.approx(RETRY_LIMIT)
    assert {len(begun.comparison.due.key_ids) for begun in driven.begun} == {50}
    driven.succeeds = lambda _: True
    driven.settle()
    driven.fail("a", "key")
    assert driven.plan.is_postponed("a", driven.now + 1.9)
    assert not driven.plan.is_postponed("a", driven.now + 2.0), "it begins anew"


def test_a_peer_that_missed_very_many_writes_is_compared_with_over_everything() -> None:
    driven = settled("a")
    driven.fail("a", *(f"key {number}" for number in range(MAX_FAILED)))
    driven.fail("a", "one more")
    assert driven.plan.pending == MAX_FAILED + 1
    driven.until(driven.now + 2.0)
    [begun] = driven.begun
    assert isinstance(begun.comparison, CompareRanges)
    assert begun.comparison.due.everything


def test_writes_that_dont_reach_strangers_or_this_node_make_nothing_due() -> None:
    driven = settled("a")
    driven.plan.note_failure("stranger", ["key"], driven.now)
    driven.plan.note_failure("here", ["key"], driven.now)
    assert driven.plan.is_settled


def test_who_left_in_the_middle_of_a_comparison_is_not_compared_with_again() -> None:
    driven = settled("a")
    driven.takes, driven.succeeds = lambda _: 10.0, lambda _: False
    driven.plan.add_everything("a")
    driven.until(driven.now + 1.0)
    driven.go("a")
    driven.settle()
    assert driven.peers_begun() == ["a"]


def test_ranges_come_first_and_then_what_differs_in_them() -> None:
    driven = settled("a")
    driven.fail("a", "missed")
    driven.plan.add_everything("a")
    driven.differing = ["differs"]
    driven.settle()
    ranges, resources = (begun.comparison for begun in driven.begun)
    assert isinstance(ranges, CompareRanges)
    assert isinstance(resources, CompareResources)
    assert not ranges.is_last(())
    assert resources.key_ids == ("differs", "missed")
    assert resources.is_last


def test_more_ranges_than_one_comparison_takes_are_compared_one_batch_after_the_other() -> None:
    many = tuple(Range(2 * number, 2 * number + 1) for number in range(MAX_RANGES + 1))
    driven = settled("a", "b")
    driven.first = {"c": many}
    driven.come("c")
    driven.settle()
    batches = [begun.comparison.batch(()) for begun in driven.begun if isinstance(begun.comparison, CompareRanges)]
    assert batches == [(many[:MAX_RANGES], many[MAX_RANGES:]), (many[MAX_RANGES:], ())]
    last = driven.begun[0].comparison
    assert isinstance(last, CompareRanges)
    assert [last.is_last(rest) for _, rest in batches] == [False, True]


def test_what_a_peer_doesnt_take_though_it_should_is_offered_some_more_times() -> None:
    driven = settled("a", "b")
    driven.first = {"c": (*SOME, *MORE)}
    driven.unwanted = MORE
    driven.come("c")
    driven.settle()
    assert [begun.comparison.due.ranges for begun in driven.begun] == [(*SOME, *MORE), *[MORE] * UNWANTED_RETRIES]
    gaps = [later.at - begun.at for begun, later in zip(driven.begun, driven.begun[1:], strict=False)]
    assert gaps == pytest.approx([2.0**number for number in range(1, UNWANTED_RETRIES + 1)])


def test_what_nobody_asked_for_in_particular_is_not_offered_again() -> None:
    driven = settled("a")
    driven.unwanted = MORE
    driven.plan.add_everything("a")
    driven.settle()
    assert driven.peers_begun() == ["a"]


def test_a_replica_that_asks_is_compared_with_at_once_though_comparing_with_it_was_postponed() -> None:
    driven = settled("a")
    driven.fail("a", "key")
    assert driven.plan.begin_pull("a", driven.now)
    assert driven.plan.is_waiting("a")
    assert not driven.plan.begin_pull("a", driven.now), "one at a time"
    driven.until(driven.now + 0.1)
    everything, missed = (begun.comparison for begun in driven.begun)
    assert isinstance(everything, CompareRanges)
    assert isinstance(missed, CompareResources)
    assert missed.key_ids == ("key",)
    assert not driven.plan.is_waiting("a")


def test_replicas_that_ask_again_and_again_have_to_pause() -> None:
    driven = settled("a")
    granted = 0
    for tenth in range(1000):
        now = driven.now + tenth / 10
        if driven.plan.begin_pull("a", now):
            granted += 1
            driven.plan.end_pull("a")
    assert granted <= PULL_BURST + 100 * PULL_RATE


def test_so_many_replicas_may_ask_at_the_same_time() -> None:
    peers = [f"peer {number}" for number in range(MAX_PULLED + 1)]
    driven = settled(*peers)
    assert [driven.plan.begin_pull(peer_id, driven.now) for peer_id in peers] == [True] * MAX_PULLED + [False]
    driven.plan.end_pull(peers[0])
    assert driven.plan.begin_pull(peers[-1], driven.now)


EVENTS: Final[Sequence[Callable[[Driven], None]]] = (
    lambda driven: driven.come("a"),
    lambda driven: driven.go("a"),
    lambda driven: driven.fail("a", "key"),
    lambda driven: driven.plan.add_everything(driven.members),
    lambda driven: driven.until(driven.now + 0.1),
    lambda driven: driven.until(driven.now + SETTINGS.departure_grace),
)


def test_whatever_order_things_happen_in_all_is_settled_in_the_end() -> None:
    for events in product(EVENTS, repeat=4):
        driven = Driven("a", "b")
        driven.takes = lambda _: 0.2
        for event in events:
            event(driven)
        driven.settle()
        assert not driven.owed.get("a")


peers = st.sampled_from("abcdef")
happening = st.one_of(
    st.tuples(st.just("come"), peers),
    st.tuples(st.just("go"), peers),
    st.tuples(st.just("fail"), peers, st.sampled_from(["one", "two", "three"])),
    st.tuples(st.just("everything")),
    st.tuples(st.just("pull"), peers),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.3, 2.0, 3.1, 40.0])),
)


@given(
    st.lists(happening, max_size=40),
    st.lists(st.tuples(st.sampled_from([0.0, 0.4, 7.0]), st.booleans()), min_size=1, max_size=7),
    st.dictionaries(peers, st.sampled_from([SOME, MORE])),
    st.dictionaries(peers, st.sampled_from([SOME, MORE])),
)
def test_nothing_that_is_due_gets_lost_and_nothing_happens_too_early_or_too_often(
    happenings: list[tuple[str, ...]],
    outcomes: list[tuple[float, bool]],
    first: dict[str, Ranges],
    later: dict[str, Ranges],
) -> None:
    """What `Driven` asserts of each step holds whatever happens, and in the end each peer got what it missed."""
    driven = Driven("a", "b", "c")
    driven.first, driven.later = first, later
    driven.takes = lambda _: outcomes[len(driven.begun) % len(outcomes)][0]
    driven.succeeds = lambda _: outcomes[len(driven.begun) % len(outcomes)][1]
    for event, *details in happenings:
        match event, *details:
            case "come", peer_id:
                driven.come(peer_id)
            case "go", peer_id:
                driven.go(peer_id)
            case "fail", peer_id, key_id:
                driven.fail(peer_id, key_id)
            case "everything", *_:
                driven.plan.add_everything(driven.members)
            case "pull", peer_id if peer_id in driven.members and driven.plan.begin_pull(peer_id, driven.now):
                driven.plan.end_pull(peer_id)
            case "wait", seconds:
                driven.until(driven.now + float(seconds))
    driven.succeeds = lambda _: True
    driven.settle()
    assert {peer_id: owed for peer_id, owed in driven.owed.items() if owed and peer_id in driven.members} == {}
    assert driven.plan.pending == 0
