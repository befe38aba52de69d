"""Who keeps a view up to date, without a network: every course of small neighbourhoods, many of larger ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.model.merge import ResourceState, merged
from registry.settings import RegistrySettings
from registry.watch.messages import SubscriptionReply
from registry.watch.source_machine import (
    AVOID,
    EXPIRY_MARGIN,
    FRESH,
    NEXT_PHASE,
    RENEW,
    RETRY,
    SETTLE,
    SOONEST,
    SOURCE_TRANSITIONS,
    SOURCES,
    FollowPhase,
    LookUp,
    Read,
    ReadOwn,
    SourceEvent,
    SourceMachine,
    SourceState,
    Subscribe,
    Wait,
    next_renewal,
)
from registry.watch.view import View
from tests.unit.registry.builders import HOST, NOW, OWNER, a_key, a_record

SETTINGS: Final = RegistrySettings()
KEY: Final = a_key()
STATES: Final = (
    ResourceState.of(KEY, [a_record(KEY.id)]),
    ResourceState.of(KEY, [a_record(KEY.id, issuer=OWNER, host=HOST)]),
    ResourceState.of(KEY, []),
)
AGREES, REFUSES, FAILS, LEAVES, LIES = "agrees", "refuses", "fails while it is compared with", "leaves", "lies"


class Run:
    """Drives one machine by hand, and checks at every step what always holds."""

    def __init__(self, peers: int, *, own: ResourceState | None = None) -> None:
        self.now = 1000.0
        self.neighbours = [f"peer {number}" for number in range(peers)]
        self.own = own
        self.members = set(self.neighbours)
        self.knows = dict(zip(self.neighbours, STATES * 4, strict=False))
        self.view = View(KEY.id, SETTINGS)
        self.machine = SourceMachine(self.view, "me", 0.0, random.Random(1), self.now)
        self.asked: tuple[str, ...] = ()
        self.reads = 0
        self.lookups = 0
        self.fetched: list[str] = []
        self.avoided: dict[str, float] = {}
        self.until = 0.0

    def advance(self) -> None:
        """Does all that needs no answer of a replica, until one is asked or there is nothing to do."""
        self.asked = ()
        for _ in range(50):
            action = self.machine.step(self.now, self.wall_clock)
            match action:
                case Subscribe(peer_ids):
                    assert 0 < len(peer_ids) <= SOURCES
                    assert len(set(peer_ids)) == len(peer_ids)
                    for peer_id in peer_ids:
                        assert self.avoided.get(peer_id, 0.0) <= self.now, "it is avoided"
                    self.asked = peer_ids
                    return
                case ReadOwn():
                    self.machine.own_read(self.own, self.now, self.wall_clock)
                case LookUp():
                    assert len(self.machine.sources) < SOURCES
                    self.lookups += 1
                    self.machine.looked_up(["me", *self.neighbours, *self.neighbours], self.now)  # told twice
                case Read():
                    assert not self.machine.sources
                    assert self.own is None
                    self.reads += 1
                    self.machine.read(ResourceState(), is_complete=True, wall_clock=self.wall_clock)
                case Wait(until):
                    assert self.machine.phase is FollowPhase.WAIT
                    assert self.now < until <= self.now + RENEW + SOONEST + EXPIRY_MARGIN
                    if not self.machine.sources:
                        assert until <= self.now + RETRY[1] * 1.2
                    assert len(self.machine.sources) <= SOURCES
                    self.until = until
                    return
        raise AssertionError("it never waits")

    @property
    def wall_clock(self) -> float:
        return NOW + self.now - 1000.0

    def answer(self, peer_id: str, how: str) -> None:
        """The answer of a replica that was asked, a little later."""
        self.now += 0.01
        if how == REFUSES:
            self.refuse(peer_id)
            return
        state = self.knows[peer_id]
        reply = SubscriptionReply(digest=state.digest())
        is_lacking = self.machine.agreed(peer_id, reply, self.now)
        if how == FAILS:
            self.refuse(peer_id)
            return
        if how == LEAVES:
            self.members.discard(peer_id)
        if is_lacking:
            self.fetched.append(peer_id)
        before = self.machine.state_of(peer_id)
        self.machine.compared(
            peer_id,
            reply,
            state if is_lacking else None,
            is_connected=peer_id in self.members,
            now=self.now,
            wall_clock=self.wall_clock,
        )
        assert merged(self.view.state, state).digest() == self.view.state.digest(), "what it knows is known here"
        if before is SourceState.AVOIDED:
            assert self.machine.state_of(peer_id) is SourceState.AVOIDED

    def refuse(self, peer_id: str) -> None:
        self.machine.refused(peer_id, self.now)
        self.note_drop(peer_id)

    def lose(self, peer_id: str) -> None:
        """A member is gone."""
        self.members.discard(peer_id)
        was_source = peer_id in self.machine.sources
        lost = self.machine.members_changed(self.members, self.now)
        assert (peer_id in lost) == was_source
        for each in lost:
            self.note_drop(each)

    def distrust(self, peer_id: str) -> None:
        """A replica announced what isn't signed."""
        was_source = peer_id in self.machine.sources
        self.machine.distrust(peer_id, self.now)
        if was_source:
            self.note_drop(peer_id)

    def note_drop(self, peer_id: str) -> None:
        assert self.machine.state_of(peer_id) is SourceState.AVOIDED
        assert peer_id not in self.machine.sources
        self.avoided[peer_id] = self.now + AVOID

    def wait(self) -> None:
        """Time passes until the machine wants something again."""
        self.now = max(self.until, self.now)

    def settle(self, how: str = AGREES) -> None:
        """All who are asked answer alike, until there is nothing to do."""
        self.advance()
        while self.asked:
            for peer_id in self.asked:
                self.answer(peer_id, how)
            self.advance()


Event = Callable[[Run], None]


def courses(peers: int, own: ResourceState | None, length: int) -> Iterator[Run]:
    """Every sequence of `length` events, each as the run after it."""
    open_courses: list[list[Event]] = [[]]
    while open_courses:
        course = open_courses.pop()
        run = Run(peers, own=own)
        run.advance()
        answered: set[str] = set()
        for event in course:
            answered = follow_up(run, event, answered)
        yield run
        if len(course) < length:
            open_courses.extend([*course, event] for event in possible(run, answered))


def follow_up(run: Run, event: Event, answered: set[str]) -> set[str]:
    """Lets `event` happen; who of those that are asked has answered by then."""
    peer_id = getattr(event, "answers", None)
    event(run)
    answered = {*answered, peer_id} if peer_id else answered
    if answered.issuperset(run.asked):
        run.advance()
        return set()
    return answered


class Answer:
    """A replica that is asked answers."""

    def __init__(self, peer_id: str, how: str) -> None:
        self.answers = peer_id
        self.how = how

    def __call__(self, run: Run) -> None:
        run.answer(self.answers, self.how)


def possible(run: Run, answered: set[str]) -> Iterator[Event]:
    """What may happen next."""
    for peer_id, how in product([each for each in run.asked if each not in answered], (AGREES, REFUSES, FAILS, LEAVES)):
        yield Answer(peer_id, how)
    if not run.asked:
        yield Run.wait
    for peer_id in run.machine.sources:
        yield lambda run, peer_id=peer_id: run.lose(peer_id)  # type: ignore[misc]
        yield lambda run, peer_id=peer_id: run.distrust(peer_id)  # type: ignore[misc]


@pytest.mark.parametrize("own", [None, STATES[0]], ids=["not kept here", "kept here"])
@pytest.mark.parametrize("peers", [0, 1, 2, 3])
def test_every_course_keeps_the_rules(peers: int, own: ResourceState | None) -> None:
    count = 0
    for run in courses(peers, own, length=4):
        count += 1
        states = {peer_id: run.machine.state_of(peer_id) for peer_id in run.neighbours}
        assert run.machine.sources == [each for each in run.machine.sources if states[each] is SourceState.SOURCE]
        if run.machine.is_fresh(run.now):
            assert run.view.is_ready
            assert run.machine.sources or own is not None
    assert count >= 5


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 8), st.booleans(), st.data())
def test_every_longer_course_keeps_the_rules(peers: int, is_own: bool, data: st.DataObject) -> None:
    run = Run(peers, own=STATES[1] if is_own else None)
    run.advance()
    answered: set[str] = set()
    for _ in range(data.draw(st.integers(0, 40))):
        events = list(possible(run, answered))
        if peers:
            events.append(lambda run: run.members.update(run.neighbours))
        answered = follow_up(run, data.draw(st.sampled_from(events)), answered)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(SOURCES, 8), st.data())
def test_with_replicas_that_agree_there_are_enough_sources_in_the_end(peers: int, data: st.DataObject) -> None:
    run = Run(peers)
    run.advance()
    answered: set[str] = set()
    for _ in range(data.draw(st.integers(0, 20))):
        answered = follow_up(run, data.draw(st.sampled_from(list(possible(run, answered)))), answered)
    for peer_id in set(run.asked) - answered:
        run.answer(peer_id, AGREES)
    run.members.update(run.neighbours)
    run.machine.members_changed(run.members, run.now)
    end = run.now + AVOID + 2 * RENEW
    while run.now < end:
        run.settle()
        run.wait()
    assert len(run.machine.sources) == SOURCES
    assert run.machine.is_fresh(run.now)


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(0, RENEW), st.floats(0, 1e7))
def test_each_renewal_is_followed_by_one_that_is_later(phase: float, now: float) -> None:
    for _ in range(20):
        following = next_renewal(now, phase)
        assert now + SOONEST / 2 < following <= now + RENEW + 2 * SOONEST
        now = following


def test_the_phases_of_a_round_follow_each_other() -> None:
    assert [NEXT_PHASE[phase] for phase in FollowPhase] == [*list(FollowPhase)[1:], FollowPhase.RENEW]


def test_the_table_of_states_has_an_answer_to_all_that_can_happen() -> None:
    impossible = {
        *product([SourceState.STRANGER], [SourceEvent.AGREE, SourceEvent.VANISH, SourceEvent.DROP]),
        *product([SourceState.STRANGER, SourceState.ASKED, SourceState.SOURCE], [SourceEvent.FORGIVE]),
        (SourceState.ASKED, SourceEvent.ASK),
        (SourceState.AVOIDED, SourceEvent.ASK),
    }
    assert set(SOURCE_TRANSITIONS) == set(product(SourceState, SourceEvent)) - impossible


def test_the_two_nearest_become_sources_and_what_they_know_is_fetched_once() -> None:
    run = Run(4)
    run.settle()
    assert run.machine.sources == ["peer 0", "peer 1"]
    assert run.fetched == ["peer 0", "peer 1"]
    assert run.view.is_ready
    assert len(run.view.visible) == 2
    assert run.reads == 0


def test_a_new_source_is_compared_again_soon_and_all_are_at_each_renewal() -> None:
    run = Run(2)
    run.settle()
    assert run.until <= 1000.0 + SETTLE + 0.1
    run.wait()
    run.advance()
    assert run.asked == ("peer 0", "peer 1")
    for peer_id in run.asked:
        run.answer(peer_id, AGREES)
    run.advance()
    assert run.until % RENEW == pytest.approx(0)
    assert run.fetched == ["peer 0", "peer 1"], "nothing is fetched again that is known to be known"
    run.wait()
    run.advance()
    assert run.asked == ("peer 0", "peer 1")


def test_a_lost_source_is_replaced_at_once() -> None:
    run = Run(3)
    run.settle()
    run.lose("peer 0")
    run.settle()
    assert run.machine.sources == ["peer 1", "peer 2"]


def test_a_source_that_lied_while_it_was_renewed_is_not_trusted_again_so_soon() -> None:
    run = Run(3)
    run.settle()
    run.wait()
    run.advance()
    assert "peer 0" in run.asked
    run.distrust("peer 0")
    for peer_id in run.asked:
        run.answer(peer_id, AGREES)
    run.settle()
    assert run.machine.sources == ["peer 1", "peer 2"]


def test_whoever_refused_is_asked_again_after_a_while() -> None:
    run = Run(1)
    run.settle(REFUSES)
    assert run.machine.state_of("peer 0") is SourceState.AVOIDED
    refused_at = run.now
    while not run.machine.sources:
        run.wait()
        run.settle()
    assert refused_at + AVOID <= run.now <= refused_at + AVOID + RETRY[1] * 1.3


def test_without_sources_the_resource_is_read_and_retried_later_and_later() -> None:
    run = Run(0)
    waits = []
    for _ in range(8):
        run.settle()
        waits.append(run.until - run.now)
        run.wait()
    assert run.reads == 8
    assert run.view.is_ready
    assert not run.machine.is_fresh(run.now), "a read alone is no source"
    assert RETRY[0] * 0.8 <= waits[0] <= RETRY[0] * 1.2
    assert waits[0] < waits[1] < waits[2]
    assert RETRY[1] * 0.8 <= waits[-1] <= RETRY[1] * 1.2


def test_what_this_peer_keeps_itself_is_shown_without_any_source() -> None:
    run = Run(0, own=STATES[0])
    run.settle()
    assert run.reads == 0
    assert run.machine.is_fresh(run.now)
    assert run.view.state.digest() == STATES[0].digest()


def test_knowledge_is_fresh_until_some_time_after_the_last_comparison() -> None:
    run = Run(2)
    run.settle()
    assert run.machine.is_fresh(run.now + FRESH - 0.1)
    assert not run.machine.is_fresh(run.now + FRESH + 0.1)
    for peer_id in ("peer 0", "peer 1"):
        run.lose(peer_id)
    assert not run.machine.is_fresh(run.now), "nobody would tell of changes"


def test_the_next_step_waits_for_all_who_were_asked() -> None:
    run = Run(2)
    run.advance()
    run.answer("peer 0", AGREES)
    with pytest.raises(AssertionError, match="not done"):
        run.advance()
