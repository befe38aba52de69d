"""The read's state machine without a network: every order of answers, failures and times in small neighbourhoods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.codes import Code
from registry.errors import KeyNotExists, KeyRemoved, TooFewReplicas
from registry.model.merge import ResourceState, merged
from registry.protocol.error_info import ErrorInfo
from registry.quorum.read_machine import (
    ALONE,
    FIRST_AGAIN,
    HEDGE,
    PATIENCE,
    TRANSITIONS,
    Ask,
    AwaitAnswer,
    Finish,
    ReadMachine,
    ReadOutcome,
    ReadPhase,
    in_turn,
)
from registry.settings import RegistrySettings
from tests.unit.registry.builders import HOST, NOW, OWNER, a_key, a_key_tombstone, a_record, a_tombstone

SETTINGS: Final = RegistrySettings()
KEY: Final = a_key()
OWN: Final = "own"
BROKEN: Final = ErrorInfo(Code.UNREACHABLE, "broken")
LATENCY: Final = 0.02  # seconds between two events that don't wait for a timer


class Reply(NamedTuple):
    """What a replica does when it is asked: `state` is None for one that fails."""

    state: ResourceState | None
    caught_up: bool = True


RECORDS: Final = Reply(ResourceState.of(KEY, [a_record(KEY.id)]))
OTHER_RECORDS: Final = Reply(ResourceState.of(KEY, [a_record(KEY.id, issuer=OWNER, host=HOST)]))
KEY_ALONE: Final = Reply(ResourceState.of(KEY, []))
NOTHING: Final = Reply(ResourceState())
BEHIND: Final = Reply(ResourceState.of(KEY, [a_record(KEY.id)]), caught_up=False)
FAILURE: Final = Reply(None)
REMOVED: Final = Reply(ResourceState.of(None, [], a_key_tombstone(issued=NOW + 1)))
REPLIES: Final = (RECORDS, KEY_ALONE, NOTHING, FAILURE)


class Case(NamedTuple):
    """One read of a neighbourhood of `size` replicas, this node's own among them or not."""

    size: int
    own: bool
    ack: int
    key_suffices: bool
    deadline: float = 1.0
    written: ResourceState = ResourceState()
    drawn: int = 0  # of the replicas
    groups: int = 1
    doubted: tuple[str, ...] = ()

    @property
    def replicas(self) -> list[str]:
        """Nearest first, then those drawn; the own one isn't the nearest unless it is alone."""
        others = [f"peer {number}" for number in range(self.size - self.own)]
        return [*others[:1], OWN, *others[1:]] if self.own else others

    def group_of(self, peer_id: str) -> str:
        return str(self.replicas.index(peer_id) % self.groups)


class Run:
    """Drives one machine by hand, and checks at every step what always holds."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.now = 0.0
        self.asked: list[str] = []
        self.open: list[str] = []
        self.replies: dict[str, list[Reply]] = {}
        self.again: list[float] = []
        self.timers = 0
        self.outcome: ReadOutcome | None = None
        self.until = 0.0
        self.doubted_since: float | None = None
        self.machine = ReadMachine(
            KEY.id,
            case.replicas[: case.size - case.drawn],
            SETTINGS,
            own=OWN if case.own else None,
            ack=case.ack,
            key_suffices=case.key_suffices,
            deadline=case.deadline,
            written=case.written,
            drawn=case.replicas[case.size - case.drawn :],
            group_of=case.group_of,
            doubted=case.doubted,
        )
        self.settle()

    def settle(self) -> None:
        """Does all that the machine wants done now."""
        while True:
            before = self.machine.phase
            action = self.machine.step(self.now, NOW)
            if self.machine.phase is not before:
                assert self.machine.phase in TRANSITIONS[before]
            match action:
                case Ask(peer_ids):
                    self._check_who_is_asked(peer_ids)
                    self.asked.extend(peer_ids)
                    self.open.extend(peer_ids)
                case AwaitAnswer(until):
                    assert self.now < until <= self.case.deadline
                    assert self.open or self.machine.phase is ReadPhase.ASKING_AGAIN, "what is waited for?"
                    self.until = until
                    self._check_that_it_has_to_wait()
                    return
                case Finish(outcome):
                    assert self.machine.step(self.now, NOW) == action, "it stays finished"
                    self.outcome = outcome
                    return

    def reply(self, peer_id: str, reply: Reply) -> None:
        """The answer or failure of a replica that was asked, a little later."""
        self.now = min(self.now + LATENCY, self.until)
        self.open.remove(peer_id)
        self.replies.setdefault(peer_id, []).append(reply)
        before = self.machine.resource
        if reply.state is None:
            self.machine.failed(peer_id, BROKEN)
        else:
            self.machine.answered(peer_id, reply.state, caught_up=reply.caught_up)
            assert merged(before, reply.state).digest() == self.machine.resource.digest()
        assert merged(before, self.machine.resource).digest() == self.machine.resource.digest(), "it only grows"
        self.settle()

    def time_passes(self) -> None:
        """Nobody answers until the time up to which the machine wanted to wait."""
        self.now = self.until
        self.timers += 1
        self.settle()

    def answer_of(self, peer_id: str) -> Reply | None:
        """What a replica answered last; None for one that gave no answer."""
        return next((reply for reply in reversed(self.replies.get(peer_id, [])) if reply.state is not None), None)

    def lacks(self, peer_id: str) -> bool:
        """Whether a replica answered, but not for the key."""
        answer = self.answer_of(peer_id)
        return answer is not None and not is_holder(answer)

    def state(self) -> ResourceState:
        """The merge of all answers and of what was known before."""
        state = self.case.written
        for replies in self.replies.values():
            for reply in replies:
                state = state if reply.state is None else merged(state, reply.state)
        return state

    def holding(self) -> int:
        """How many replicas answered for the key, unless it was removed."""
        if self.state().key is None:
            return 0
        return sum(any(map(is_holder, replies)) for replies in self.replies.values())

    def answers(self) -> int:
        """How many replicas gave an answer that proves something."""
        return sum(any(reply.state is not None and reply.caught_up for reply in of) for of in self.replies.values())

    def is_enough(self) -> bool:
        """Rule 2, and how many have to reply by rules 1 and 4, said once more."""
        state, case = self.state(), self.case
        if self.answers() > case.size // 2:
            return self.has_ack() or (state.key is None and state.key_tombstone is not None)
        own = self.answer_of(OWN)
        opinions, groups = (4 if case.drawn else 2), min(2, case.groups, case.size)
        if own is not None and own.caught_up:
            opinions = groups = 1
        something = (case.key_suffices and state.key is not None) or bool(state.records(NOW, SETTINGS))
        answered = [peer for peer, of in self.replies.items() if any(r.state is not None and r.caught_up for r in of)]
        is_diverse = len({*map(case.group_of, answered)}) >= groups
        return self.has_ack() and something and len(answered) >= min(opinions, case.size) and is_diverse

    def has_ack(self) -> bool:
        return self.holding() >= max(self.case.ack, 1)

    def is_doubtful(self) -> bool:
        """Whether what is known may be nothing or one replica's alone, so that only more answers or time decide."""
        return self.has_ack() or (self.state().key is None and self.answers() > self.case.size // 2)

    def doubted_until(self) -> float:
        """Rule 4, said once more."""
        assert self.doubted_since is not None
        case = self.case
        answered = [peer for peer, of in self.replies.items() if any(r.state is not None and r.caught_up for r in of)]
        own = self.answer_of(OWN)
        wanted = 1 if own is not None and own.caught_up else min(2, case.size)
        groups = 1 if wanted == 1 else min(2, case.groups)
        is_alone = len(answered) < wanted or len({*map(case.group_of, answered)}) < groups
        if is_alone and len(answered) <= case.size // 2:
            return self.doubted_since + max(PATIENCE, min(ALONE, (case.deadline - self.doubted_since) / 2))
        return self.doubted_since + PATIENCE

    def is_worth_asking_again(self) -> bool:
        """Rule 3, said once more."""
        if self.state().key is None or self.has_ack() or len(set(self.asked)) < self.case.size:
            return False
        lacking = [peer_id for peer_id in self.replies if peer_id not in self.open and self.lacks(peer_id)]
        return bool(lacking) and self.holding() + len(lacking) + len(self.open) >= self.case.ack

    def _check_who_is_asked(self, peer_ids: tuple[str, ...]) -> None:
        assert peer_ids, "asking nobody is no step"
        assert set(peer_ids) <= set(self.case.replicas)
        assert not set(peer_ids) & set(self.open), "nobody is asked while it is asked"
        again = [peer_id for peer_id in peer_ids if peer_id in self.asked]
        if again:
            assert self.is_worth_asking_again()
            assert all(map(self.lacks, peer_ids)), "only who lacked the key is asked again"
            assert self.now >= sum(FIRST_AGAIN * 2**number for number in range(len(self.again) + 1))
            self.again.append(self.now)

    def _check_that_it_has_to_wait(self) -> None:
        assert not self.is_enough(), "all that is wanted is known"
        doubted = self.is_doubtful()
        if self.machine.phase is not ReadPhase.OWN:
            assert (self.machine.phase is ReadPhase.DOUBTING) == doubted
            assert (self.machine.phase is ReadPhase.ASKING_AGAIN) == self.is_worth_asking_again()
        if doubted and self.doubted_since is None:
            self.doubted_since = self.now
        elif not doubted:
            self.doubted_since = None
        if self.doubted_since is not None:
            assert self.now < self.doubted_until()


def is_holder(reply: Reply) -> bool:
    """Whether a reply is an answer for the key."""
    return reply.state is not None and reply.caught_up and reply.state.key is not None


def check_end(run: Run) -> None:
    """The outcome against what the rules say of the answers that came, however they came."""
    outcome, case = run.outcome, run.case
    assert outcome is not None
    state = run.state()
    assert outcome.resource.digest() == state.digest()
    assert outcome.answered == run.holding()
    removed = state.key is None and state.key_tombstone is not None
    holders = [peer_id for peer_id in run.replies if any(map(is_holder, run.replies[peer_id]))]
    told = len(run.replies) - len(holders) + removed + (case.size < max(case.ack, 1))
    assert len(outcome.errors) == told, "each that doesn't hold the key is told of once"
    assert outcome.timed_out == (run.now >= case.deadline and not run.is_enough())
    doubt_over = run.doubted_since is not None and run.now >= run.doubted_until()
    nobody_left = len(set(run.asked)) == case.size and not run.open and not run.is_worth_asking_again()
    assert run.is_enough() or nobody_left or doubt_over or outcome.timed_out, "it ended too early"
    assert run.now <= case.deadline


def explore(case: Case, replies: tuple[Reply, ...], *, max_timers: int) -> Iterator[Run]:
    """All courses that a read can take, each as the finished run."""
    courses: list[list[Callable[[Run], None]]] = [[]]
    while courses:
        course = courses.pop()
        run = Run(case)
        for event in course:
            event(run)
        if run.outcome is not None:
            yield run
            continue
        if len(run.again) > 1:
            courses.append([*course, Run.time_passes])
            continue
        # Whoever is asked again has the key now or hasn't, and answers in turn: else there are too many courses.
        open_ones, possible = (run.open[:1], (RECORDS, NOTHING)) if run.again else (run.open, replies)
        for peer_id, reply in product(open_ones, possible):
            courses.append([*course, lambda run, peer_id=peer_id, reply=reply: run.reply(peer_id, reply)])  # type: ignore[misc]
        if (run.timers < max_timers and not run.again) or not run.open:
            courses.append([*course, Run.time_passes])


CASES: Final = [
    Case(size, own, ack, key_suffices, deadline=0.4)
    for size in (1, 2, 3)
    for own in (False, True)
    for ack in range(size + 2)
    for key_suffices in (False, True)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_course_of_a_small_read_ends_as_the_rules_say(case: Case) -> None:
    courses = 0
    for run in explore(case, REPLIES, max_timers=2):
        check_end(run)
        courses += 1
    assert courses >= len(REPLIES) + 1


@pytest.mark.parametrize("own", [False, True])
def test_answers_that_prove_nothing_and_tombstones_end_as_the_rules_say_too(own: bool) -> None:
    for run in explore(Case(2, own, 1, key_suffices=False), (RECORDS, BEHIND, REMOVED, NOTHING), max_timers=2):
        check_end(run)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.builds(
        Case,
        st.integers(1, 9),
        st.booleans(),
        st.integers(-1, 10),
        st.booleans(),
        st.sampled_from([0.01, 0.2, 1.0, 9]),
        st.sampled_from([ResourceState(), KEY_ALONE.state, RECORDS.state, REMOVED.state]),
        st.integers(0, 4),
        st.integers(1, 3),
    ),
    st.data(),
)
def test_every_course_of_a_larger_read_ends_by_its_deadline_as_the_rules_say(case: Case, data: st.DataObject) -> None:
    case = case._replace(drawn=min(case.drawn, case.size - 1))
    run = Run(case)
    replies = st.sampled_from([RECORDS, OTHER_RECORDS, KEY_ALONE, NOTHING, BEHIND, FAILURE, REMOVED])
    while run.outcome is None:
        peer_id = data.draw(st.sampled_from([None, *run.open]))
        if peer_id is None:
            run.time_passes()
        else:
            run.reply(peer_id, data.draw(replies))
    check_end(run)


@settings(deadline=None)  # a busy machine is no failure
@given(st.permutations([RECORDS, OTHER_RECORDS, KEY_ALONE, NOTHING, FAILURE]))
def test_the_order_of_the_answers_of_all_replicas_makes_no_difference(replies: list[Reply]) -> None:
    run = Run(Case(5, own=False, ack=5, key_suffices=False))
    for reply in replies:
        while not run.open:
            run.time_passes()
        run.reply(run.open[0], reply)
    assert run.outcome is not None
    both = merged(RECORDS.state or ResourceState(), OTHER_RECORDS.state or ResourceState())
    assert run.outcome.resource.digest() == both.digest()
    assert (run.outcome.answered, len(run.outcome.errors)) == (3, 2)


def test_as_many_as_are_needed_are_asked_the_nearest_first() -> None:
    run = Run(Case(5, own=False, ack=2, key_suffices=False))
    assert run.asked == ["peer 0", "peer 1"]
    run.reply("peer 1", FAILURE)
    assert run.asked == ["peer 0", "peer 1", "peer 2"], "the next makes up for one that failed"
    run.reply("peer 0", RECORDS)
    run.reply("peer 2", RECORDS)
    assert run.outcome is not None
    assert run.outcome.errors == [BROKEN.on("peer 1")]


def test_two_answers_are_merged_unless_this_nodes_own_counts() -> None:
    run = Run(Case(5, own=False, ack=1, key_suffices=False))
    assert run.asked == ["peer 0", "peer 1"]
    run.reply("peer 1", RECORDS)
    assert run.outcome is None
    run.reply("peer 0", OTHER_RECORDS)
    assert run.outcome is not None
    assert len(run.outcome.resource.slots) == 2
    run = Run(Case(5, own=True, ack=1, key_suffices=False))
    run.reply(OWN, RECORDS)
    assert run.outcome is not None
    assert run.asked == [OWN]


@pytest.mark.parametrize(("deadline", "patience"), [(20.0, ALONE), (LATENCY + 1.0, 0.5)])
def test_a_second_answer_is_waited_for_but_not_to_the_end(deadline: float, patience: float) -> None:
    run = Run(Case(3, own=False, ack=1, key_suffices=False, deadline=deadline))
    run.reply("peer 0", RECORDS)
    began = run.now
    run.time_passes()
    assert run.asked == ["peer 0", "peer 1", "peer 2"], "the second is slow"
    run.time_passes()
    assert run.now == pytest.approx(began + patience)
    assert run.outcome is not None
    assert not run.outcome.timed_out
    assert run.outcome.answered == 1


def test_a_liar_that_answers_first_decides_nothing_however_slow_the_others_are() -> None:
    ended = Reply(ResourceState.of(KEY, [a_tombstone(KEY.id, issued=NOW + 1)]))
    run = Run(Case(3, own=False, ack=1, key_suffices=False, deadline=20.0))
    run.reply("peer 0", RECORDS)
    run.time_passes()
    while run.now < 4 * PATIENCE:
        run.now += PATIENCE
        run.settle()
        assert run.outcome is None, "its answer alone doesn't end the read"
    run.reply("peer 2", ended)
    assert run.outcome is not None
    assert run.outcome.resource.records(NOW, SETTINGS) == []


def test_whoever_is_doubted_is_asked_last() -> None:
    run = Run(Case(4, own=False, ack=1, key_suffices=False, doubted=("peer 0", "peer 2")))
    assert run.asked == ["peer 1", "peer 3"]
    run.reply("peer 1", FAILURE)
    assert run.asked == ["peer 1", "peer 3", "peer 0"]


def test_those_that_lacked_a_known_key_are_asked_again_after_twice_the_time_each() -> None:
    run = Run(Case(3, own=False, ack=3, key_suffices=False, deadline=9.0))
    run.reply("peer 0", RECORDS)
    run.reply("peer 1", NOTHING)
    began = run.now
    run.reply("peer 2", BEHIND)
    for delay in (0.05, 0.1, 0.2, 0.4):
        assert run.machine.phase is ReadPhase.ASKING_AGAIN
        assert run.until == pytest.approx(began + delay)
        run.time_passes()
        assert sorted(run.open) == ["peer 1", "peer 2"]
        run.reply("peer 1", FAILURE)
        began = run.now
        run.reply("peer 2", NOTHING)
    run.time_passes()
    run.reply("peer 2", RECORDS)
    run.reply("peer 1", KEY_ALONE)
    assert run.outcome is not None
    assert (run.outcome.answered, run.outcome.errors) == (3, [])


def test_what_is_missing_at_the_deadline_is_told_once_by_each_that_lacks_it() -> None:
    run = Run(Case(3, own=False, ack=2, key_suffices=False))
    run.reply("peer 1", RECORDS)
    for peer_id in ("peer 0", "peer 2"):
        run.reply(peer_id, NOTHING)
    while run.outcome is None:
        run.time_passes()
        for peer_id in tuple(run.open):
            run.reply(peer_id, NOTHING)
    assert run.now == run.case.deadline
    assert run.outcome.timed_out
    assert run.outcome.answered == 1
    assert run.outcome.errors == [ErrorInfo.of(KeyNotExists(KEY.id)).on(f"peer {number}") for number in (0, 2)]


def test_what_was_written_through_this_node_lately_has_those_that_lack_it_asked_again() -> None:
    run = Run(Case(2, own=False, ack=1, key_suffices=False, written=RECORDS.state or ResourceState()))
    run.reply("peer 0", NOTHING)
    run.reply("peer 1", NOTHING)
    assert run.machine.phase is ReadPhase.ASKING_AGAIN
    run.time_passes()
    run.reply("peer 1", KEY_ALONE)
    assert run.outcome is not None
    assert run.outcome.answered == 1
    assert len(run.outcome.resource.records(NOW, SETTINGS)) == 1


def test_too_few_replicas_are_told_of_at_once() -> None:
    run = Run(Case(2, own=False, ack=3, key_suffices=False))
    run.reply("peer 0", RECORDS)
    run.reply("peer 1", NOTHING)
    assert run.outcome is not None
    assert run.outcome.answered == 1
    assert run.outcome.errors[0] == ErrorInfo.of(TooFewReplicas(2, 3))


def test_when_nobody_answers_for_a_moment_more_and_more_are_asked() -> None:
    run = Run(Case(9, own=False, ack=1, key_suffices=False))
    assert len(run.asked) == 2
    assert run.until == HEDGE
    for asked, until in ((4, 3 * HEDGE), (8, 7 * HEDGE), (9, run.case.deadline)):
        run.time_passes()
        assert len(run.asked) == asked
        assert run.until == pytest.approx(until)


def test_the_own_replica_is_asked_alone_first() -> None:
    run = Run(Case(4, own=True, ack=3, key_suffices=False))
    assert run.asked == [OWN]
    assert run.machine.phase is ReadPhase.OWN
    run.reply(OWN, RECORDS)
    assert run.asked == [OWN, "peer 0", "peer 1"]


def test_an_empty_answer_waits_for_a_majority_but_not_long() -> None:
    run = Run(Case(5, own=False, ack=1, key_suffices=False))
    run.reply("peer 0", KEY_ALONE)
    assert run.machine.phase is ReadPhase.DOUBTING
    assert run.asked == ["peer 0", "peer 1", "peer 2"], "a majority"
    began = run.now
    run.reply("peer 1", KEY_ALONE)
    assert run.until == run.now + HEDGE
    run.time_passes()
    assert run.until == began + PATIENCE, "patience is had once"
    run.time_passes()
    assert run.outcome is not None
    assert not run.outcome.timed_out
    assert run.outcome.resource == KEY_ALONE.state


def test_whoever_holds_a_key_that_a_majority_lacks_ends_the_doubt() -> None:
    run = Run(Case(5, own=False, ack=2, key_suffices=False))
    for number in range(3):
        run.reply(f"peer {number}", NOTHING)
    assert run.machine.phase is ReadPhase.DOUBTING
    run.reply("peer 3", RECORDS)
    assert run.machine.phase is ReadPhase.ASKING_AGAIN
    run.reply("peer 4", RECORDS)
    assert run.outcome is not None, "two hold it"
    assert run.outcome.errors == [ErrorInfo.of(KeyNotExists(KEY.id)).on(f"peer {number}") for number in (0, 1, 2)]


def test_a_removed_resource_is_answered_by_nobody_and_the_removal_is_told_first() -> None:
    run = Run(Case(2, own=False, ack=1, key_suffices=False))
    run.reply("peer 0", REMOVED)
    run.reply("peer 1", KEY_ALONE)
    assert run.outcome is not None
    assert run.outcome.answered == 0
    assert run.outcome.errors[0] == ErrorInfo.of(KeyRemoved(KEY.id))


def test_nobody_answers_who_was_not_asked() -> None:
    run = Run(Case(3, own=False, ack=1, key_suffices=False))
    with pytest.raises(ValueError, match="wasn't asked"):
        run.machine.failed("peer 2", BROKEN)
    run.reply("peer 0", NOTHING)
    with pytest.raises(ValueError, match="has answered already"):
        run.machine.failed("peer 0", BROKEN)


def test_a_neighbourhood_of_nobody_is_done_at_once() -> None:
    run = Run(Case(0, own=False, ack=1, key_suffices=False))
    assert run.outcome is not None
    assert run.outcome.resource.is_empty()
    assert not run.outcome.timed_out


def test_two_answers_of_one_address_group_wait_for_one_of_another_but_not_for_long() -> None:
    run = Run(Case(8, own=False, ack=1, key_suffices=False, groups=2))
    assert run.asked == ["peer 0", "peer 1"]
    run.reply("peer 1", FAILURE)
    assert run.asked[2:] == ["peer 2"], "the next nearest makes up for it"
    run.reply("peer 0", RECORDS)
    run.reply("peer 2", RECORDS)
    assert run.outcome is None
    assert run.asked[3:] == ["peer 3"], "of the other group"
    other = Run(Case(8, own=False, ack=1, key_suffices=False, groups=2))
    other.reply("peer 0", RECORDS)
    while other.outcome is None:
        other.time_passes()
    assert other.now <= LATENCY + ALONE
    run.reply("peer 3", RECORDS)
    assert run.outcome is not None


def test_where_members_crowd_those_drawn_from_the_region_are_asked_too() -> None:
    case = Case(30, own=False, ack=1, key_suffices=False, drawn=10, groups=30)
    run = Run(case)
    assert run.asked == ["peer 20", "peer 0", "peer 21", "peer 1"]
    for liar in ("peer 0", "peer 1"):
        run.reply(liar, NOTHING)
    run.reply("peer 20", NOTHING)
    run.reply("peer 21", RECORDS)
    assert run.outcome is not None
    assert run.outcome.answered == 1
    assert run.outcome.resource.records(NOW, SETTINGS)


@given(st.lists(st.integers(0, 40), unique=True, max_size=30), st.integers(0, 10), st.integers(1, 5))
def test_replicas_are_asked_in_an_order_in_which_each_is_once(peers: list[int], drawn: int, groups: int) -> None:
    names = [str(peer) for peer in peers]
    order = in_turn(names[drawn:], names[:drawn], lambda peer_id: str(int(peer_id) % groups))
    assert sorted(order) == sorted(names)
    if not drawn:
        assert len({int(name) % groups for name in order[:2]}) == min(2, len({int(name) % groups for name in names}))
    assert in_turn(names, []) == names
