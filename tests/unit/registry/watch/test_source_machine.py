"""Who keeps a view up to date, without a network: every course of small neighbourhoods, many of larger ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.codes import Code
from registry.model.merge import ResourceState, merged
from registry.protocol.error_info import ErrorInfo
from registry.settings import RegistrySettings
from registry.watch.messages import LONGEST_AGE, MAX_DEPTH, SubscriptionReply
from registry.watch.source_machine import (
    AVOID,
    EXPIRY_MARGIN,
    FRESH,
    LONGEST_WAIT,
    MAX_NAMED,
    RENEW,
    RETRY,
    SETTLE,
    SOONEST,
    SOURCES,
    SourceMachine,
    next_renewal,
)
from registry.watch.source_states import (
    NEXT_PHASE,
    SOURCE_TRANSITIONS,
    FollowPhase,
    LookUp,
    Read,
    ReadOwn,
    SourceEvent,
    SourceState,
    Subscribe,
    Wait,
)
from registry.watch.view import View
from tests.unit.registry.builders import HOST, NOW, OWNER, a_key, a_record

SETTINGS: Final = RegistrySettings()
KEY: Final = a_key()
REFUSAL: Final = ErrorInfo(Code.NOT_RESPONSIBLE, "not responsible any more")
UNREADY: Final = SubscriptionReply(depth=1, age=LONGEST_AGE)
STATES: Final = (
    ResourceState.of(KEY, [a_record(KEY.id)]),
    ResourceState.of(KEY, [a_record(KEY.id, issuer=OWNER, host=HOST)]),
    ResourceState.of(KEY, []),
)
AGREES, REFUSES, FULL, FAILS, LEAVES = "agrees", "refuses", "is full", "fails while it is compared with", "leaves"


class Run:
    """Drives one machine by hand, and checks at every step what always holds."""

    def __init__(self, peers: int, *, own: ResourceState | None = None) -> None:
        self.now = 1000.0
        self.neighbours = [f"peer {number}" for number in range(peers)]
        self.own = own
        self.servers = ["server 0", "server 1"]  # watchers that serve others; whoever is full names them
        self.members = {*self.neighbours, *self.servers}
        self.knows = dict(zip([*self.neighbours, *self.servers], STATES * 4, strict=False))
        self.depths = dict(zip(self.servers, (1, 3), strict=True))
        self.view = View(KEY.id, SETTINGS)
        self.machine = SourceMachine(self.view, "me", random.Random(1), self.now)
        self.asked: tuple[str, ...] = ()
        self.asked_in_round: set[str] = set()
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
                    self.asked_in_round.update(peer_ids)
                    self.check_servers()
                    return
                case ReadOwn():
                    self.machine.own_read(self.own, self.now, self.wall_clock)
                case LookUp(avoided):
                    assert len(self.machine.sources) < SOURCES
                    assert avoided == {each for each, until in self.avoided.items() if until > self.now}
                    self.lookups += 1
                    self.asked_in_round.clear()
                    self.machine.looked_up(["me", *self.neighbours, *self.neighbours], self.now)  # told twice
                case Read():
                    assert not self.machine.sources
                    assert self.own is None
                    self.reads += 1
                    self.machine.read(ResourceState(), is_complete=True, wall_clock=self.wall_clock)
                case Wait(until):
                    assert self.machine.phase is FollowPhase.WAIT
                    assert self.now < until <= self.now + max(LONGEST_WAIT, SETTINGS.expired_age) + EXPIRY_MARGIN
                    if not self.machine.sources:
                        assert until <= self.now + RETRY[1] * 1.2
                    elif len(self.machine.sources) < SOURCES:
                        assert until <= self.now + RENEW * 1.2
                    assert len(self.machine.sources) <= SOURCES
                    self.until = until
                    return
        raise AssertionError("it never waits")

    def check_servers(self) -> None:
        """One source is a replica, as long as there are replicas to ask."""
        served = [each for each in {*self.machine.sources, *self.asked} if each in self.servers]
        if len(served) >= SOURCES:
            for peer_id in set(self.neighbours) - self.asked_in_round:
                assert self.machine.state_of(peer_id) is not SourceState.STRANGER, f"{peer_id} isn't asked"

    def renew(self, peer_id: str, how: str = AGREES) -> None:
        """A source's answer to the renewal of all subscriptions."""
        assert peer_id in self.machine.sources
        self.now += 0.01
        if how == FAILS:
            self.machine.unrenewed(peer_id, self.now)
            self.note_drop(peer_id)
        elif how == REFUSES:
            self.machine.renewed(peer_id, SubscriptionReply(error=REFUSAL), self.now)
            self.note_drop(peer_id)
        else:
            self.machine.renewed(peer_id, self.reply(peer_id), self.now)
            assert peer_id in self.machine.sources

    def reply(self, peer_id: str) -> SubscriptionReply:
        return SubscriptionReply(digest=self.knows[peer_id].digest(), depth=self.depths.get(peer_id, 0))

    @property
    def wall_clock(self) -> float:
        return NOW + self.now - 1000.0

    def answer(self, peer_id: str, how: str) -> None:
        """The answer of a replica that was asked, a little later."""
        self.now += 0.01
        if how in (REFUSES, FULL):
            self.refuse(peer_id, self.servers if how == FULL else [])
            return
        state, reply = self.knows[peer_id], self.reply(peer_id)
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

    def refuse(self, peer_id: str, servers: Sequence[str] = ()) -> None:
        self.machine.refused(peer_id, self.now, ["me", *servers])
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
    for peer_id, how in product(
        [each for each in run.asked if each not in answered], (AGREES, REFUSES, FULL, FAILS, LEAVES)
    ):
        yield Answer(peer_id, how)
    if not run.asked:
        yield Run.wait
    for peer_id in run.machine.sources:
        yield lambda run, peer_id=peer_id: run.lose(peer_id)  # type: ignore[misc]
        yield lambda run, peer_id=peer_id: run.distrust(peer_id)  # type: ignore[misc]
        for how in (AGREES, REFUSES, FAILS):
            yield lambda run, peer_id=peer_id, how=how: run.renew(peer_id, how)  # type: ignore[misc]


@pytest.mark.parametrize("own", [None, STATES[0]], ids=["not kept here", "kept here"])
@pytest.mark.parametrize("peers", [0, 1, 2, 3])
def test_every_course_keeps_the_rules(peers: int, own: ResourceState | None) -> None:
    count = 0
    for run in courses(peers, own, length=4):
        count += 1
        states = {peer_id: run.machine.state_of(peer_id) for peer_id in run.knows}
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
    for lost in run.machine.members_changed(run.members, run.now):  # a server that left while it was asked again
        run.note_drop(lost)
    end = run.now + AVOID + 2 * RENEW
    while run.now < end:
        run.settle()
        for peer_id in run.machine.sources:
            run.renew(peer_id)
        run.settle()
        run.now += RENEW
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
    assert [NEXT_PHASE[phase] for phase in FollowPhase] == [*list(FollowPhase)[1:], FollowPhase.COMPARE]


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


def test_a_new_source_is_compared_again_soon_and_then_when_it_knows_something_else() -> None:
    run = Run(2)
    run.settle()
    assert run.until <= 1000.0 + SETTLE + 0.1
    run.wait()
    run.advance()
    assert run.asked == ("peer 0", "peer 1")
    for peer_id in run.asked:
        run.answer(peer_id, AGREES)
    run.advance()
    assert run.until > run.now + RENEW, "nothing is left to do"
    assert run.fetched == ["peer 0", "peer 1"], "nothing is fetched again that is known to be known"
    run.renew("peer 0")
    run.renew("peer 1")
    assert not run.machine.is_poked
    run.knows["peer 1"] = ResourceState.of(KEY, [a_record(KEY.id, issued=NOW + 1)])
    run.renew("peer 1")
    assert run.machine.is_poked
    run.advance()
    assert run.asked == ("peer 1",)
    run.answer("peer 1", AGREES)
    run.advance()
    assert run.fetched == ["peer 0", "peer 1", "peer 1"]


def test_whoever_is_full_names_watchers_and_one_source_stays_a_replica() -> None:
    run = Run(5)
    run.advance()
    assert run.asked == ("peer 0", "peer 1")
    for peer_id in run.asked:
        run.answer(peer_id, FULL)
    run.advance()
    assert run.asked == ("peer 2", "server 0")
    run.answer("peer 2", FULL)
    run.answer("server 0", AGREES)
    run.advance()
    assert run.asked == ("peer 3",), "there are replicas to ask"
    run.answer("peer 3", AGREES)
    run.settle()
    assert run.machine.sources == ["server 0", "peer 3"]
    assert run.machine.depth == 0


def test_without_a_place_at_any_replica_watchers_serve() -> None:
    run = Run(3)
    run.advance()
    while run.asked:
        for peer_id in run.asked:
            run.answer(peer_id, AGREES if peer_id in run.servers else FULL)
        run.advance()
    assert run.machine.sources == run.servers
    assert run.machine.depth == 1
    run.lose("server 0")
    run.settle(FULL)
    assert run.machine.sources == ["server 1"]
    assert run.machine.depth == 3
    run.now += AVOID + 1
    run.members.update(run.knows)
    run.machine.members_changed(run.members, run.now)
    run.settle()
    assert run.machine.sources == ["server 1", "peer 0"]


def test_a_replica_that_others_name_as_a_watcher_is_asked_once() -> None:
    """It may be one, watching by others of them; and who has no place may name whom it likes."""
    run = Run(4)
    run.servers = ["peer 2"]
    run.advance()
    for peer_id in run.asked:
        run.answer(peer_id, FULL)
    run.advance()
    assert run.asked == ("peer 2", "peer 3")
    for peer_id in run.asked:
        run.answer(peer_id, AGREES)
    run.settle()
    assert run.machine.sources == ["peer 2", "peer 3"]


def test_of_watchers_that_are_named_only_so_many_are_asked_in_a_round() -> None:
    run = Run(1)
    run.servers = [f"server {number}" for number in range(5 * MAX_NAMED)]
    run.advance()
    lookups, asked = run.lookups, 0
    while run.asked:
        asked += len(run.asked)
        for peer_id in run.asked:
            run.answer(peer_id, FULL)
        run.advance()
    assert run.lookups == lookups
    assert asked == 1 + MAX_NAMED


def test_what_was_dropped_of_what_a_source_told_is_fetched_again() -> None:
    """A clock that is wrong for a moment drops what is good."""
    run = Run(2)
    run.advance()
    for peer_id in run.asked:
        reply = run.reply(peer_id)
        assert run.machine.agreed(peer_id, reply, run.now)
        dropped = ResourceState()
        run.machine.compared(peer_id, reply, dropped, is_connected=True, now=run.now, wall_clock=run.wall_clock)
    run.settle()
    for peer_id in run.machine.sources:
        assert merged(run.view.state, run.knows[peer_id]).digest() != run.view.state.digest()
        run.renew(peer_id)
    run.settle()
    for peer_id in run.machine.sources:
        assert merged(run.view.state, run.knows[peer_id]).digest() == run.view.state.digest()


def test_what_a_source_is_not_ready_to_show_is_asked_for_again_soon() -> None:
    run = Run(2)
    run.advance()
    for peer_id in run.asked:
        assert not run.machine.agreed(peer_id, UNREADY, run.now)
        run.machine.compared(peer_id, UNREADY, None, is_connected=True, now=run.now, wall_clock=run.wall_clock)
    run.advance()
    assert run.machine.sources == ["peer 0", "peer 1"]
    assert not run.view.is_ready
    assert run.until <= run.now + SETTLE
    run.wait()
    run.settle()
    assert run.view.is_ready
    assert run.fetched == ["peer 0", "peer 1"]


def test_knowledge_is_as_old_as_what_a_source_tells() -> None:
    run = Run(2)
    assert run.machine.age(run.now) == LONGEST_AGE
    run.settle()
    reply = SubscriptionReply(digest=run.view.state.digest(), depth=1, age=FRESH)
    run.now += FRESH
    run.machine.renewed("peer 0", reply, run.now)
    assert run.machine.age(run.now) == pytest.approx(FRESH, abs=0.1)
    run.now += 1.0
    assert not run.machine.is_fresh(run.now)
    run.machine.renewed("peer 1", SubscriptionReply(digest=run.view.state.digest(), age=2.0), run.now)
    assert run.machine.age(run.now) == pytest.approx(2.0)
    assert run.machine.is_fresh(run.now)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_watchers_that_only_listen_to_each_other_notice(count: int) -> None:
    runs = [Run(0) for _ in range(count)]
    for run in runs:
        run.settle()
        run.neighbours = ["before me"]
        run.members = {"before me"}
        run.knows = {"before me": ResourceState()}
        run.depths = {"before me": 1}
        run.wait()
        run.settle()
        assert run.machine.sources == ["before me"]
    rounds = 0
    while any(run.machine.sources for run in runs):
        rounds += 1
        assert rounds <= MAX_DEPTH + 1
        for run, before in zip(runs, [runs[-1], *runs[:-1]], strict=True):
            run.now += RENEW / count
            depth = before.machine.depth + 1
            reply = SubscriptionReply(digest=ResourceState().digest(), depth=depth, age=before.machine.age(before.now))
            run.machine.renewed("before me", reply, run.now)


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
