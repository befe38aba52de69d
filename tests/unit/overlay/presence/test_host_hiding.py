"""When a replica hides a host, shows it again, and when it mustn't hide it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.host_hiding import HostView, Move, ViewState
from overlay.presence.statements import NEVER, Version, Word
from overlay.presence.timings import HOLD, NO_BEAT, OWN_TRY, REPLICA_RETRY, TRY_COUNTS, WITH_WORDS

FIRST = Version(1, 0)


def known() -> HostView:
    """A view of a host that told its presence."""
    view = HostView()
    view.renewed(FIRST, 0.0)
    return view


def word(witness: str, number: int, version: Version = FIRST, *, is_down: bool = True) -> Word:
    """A witness's word."""
    return Word(witness, "host", version, is_down, number, 30)


@dataclass
class Driver:
    """Does what a view wants: each try ends after `takes` seconds, and a proof comes `proof_takes` after asking."""

    view: HostView
    outcome: DialOutcome
    takes: float = 2.0
    now: float = 0.0
    proof_takes: float = math.inf
    tried_at: float = math.inf
    proof_at: float = math.inf
    began: float = math.inf
    moves: list[tuple[float, Move]] = field(default_factory=list)

    def note(self, moves: list[Move]) -> None:
        """Moves of an event that happened now."""
        self.moves += [(self.now, move) for move in moves]
        if Move.TRY in moves:
            assert self.began == math.inf, "one try at a time"
            self.began, self.tried_at = self.now, self.now + self.takes
        if Move.ASK in moves or Move.ASK_FEW in moves:
            self.proof_at = min(self.proof_at, self.now + self.proof_takes)

    def until(self, end: float) -> None:
        """Let the time pass."""
        while (due := min(self.view.wake_at, self.tried_at, self.proof_at)) <= end:
            self.now = due
            if self.tried_at <= due:
                began, self.began, self.tried_at = self.began, math.inf, math.inf
                self.note(self.view.tried(self.outcome, began, self.now))
            elif self.proof_at <= due:
                self.proof_at = math.inf
                self.note(self.view.proven(FIRST, self.now))
            else:
                self.note(self.view.wake(self.now))
                assert self.view.wake_at > due, "it would be woken for ever"
        self.now = end

    def hidden_at(self) -> float:
        """When it was hidden first."""
        return next((at for at, move in self.moves if move is Move.HIDE), math.inf)


def test_three_words_and_a_refused_try_hide_at_once() -> None:
    driver = Driver(known(), DialOutcome.REFUSED, takes=0.05, now=10.0)
    for number, witness in enumerate("abc"):
        driver.note(driver.view.said(word(witness, number), driver.now))
    driver.until(11.0)
    assert driver.hidden_at() == pytest.approx(10.05)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_words_take_longer(count: int) -> None:
    driver = Driver(known(), DialOutcome.REFUSED, takes=0.05, now=10.0)
    for witness in "ab"[:count]:
        driver.note(driver.view.said(word(witness, 1), driver.now))
    driver.note(driver.view.complained(driver.now))
    driver.until(30.0)
    assert WITH_WORDS[count] <= driver.hidden_at() - 10.0 <= WITH_WORDS[count] + 1.2


def test_mute_host_of_which_nobody_speaks_has_the_long_clock() -> None:
    driver = Driver(known(), DialOutcome.MUTE, takes=OWN_TRY, now=10.0)
    driver.note(driver.view.complained(10.0))
    driver.until(40.0)
    assert NO_BEAT <= driver.hidden_at() - 10.0 <= NO_BEAT + OWN_TRY + 1.1


def test_hint_counts_from_when_it_came() -> None:
    driver = Driver(known(), DialOutcome.SILENT, now=10.0)
    driver.note(driver.view.hinted("a", 10.0))
    driver.until(12.5)
    for witness in "abc":
        driver.note(driver.view.said(word(witness, 1), driver.now))
    assert driver.hidden_at() == 12.5


def test_proof_ends_the_doubt_and_false_accusers_are_not_listened_to() -> None:
    view = known()
    assert {Move.ASK, Move.TRY} <= {*view.said(word("a", 1), 10.0)}
    assert view.proven(FIRST, 10.2) == []
    assert view.tried(DialOutcome.ALIVE, 10.0, 10.3) == []
    assert view.state is ViewState.SHOWN
    assert view.said(word("a", 2), 12.0) == []
    assert view.state is ViewState.SHOWN
    assert Move.TRY in view.said(word("b", 1), 13.0)
    assert view.count(13.0) == 2


def test_distrust_doubles_up_to_its_bound() -> None:
    view, now, pauses = known(), 0.0, []
    for number in range(1, 3000):
        now += 1.0
        if view.said(word("a", number), now):
            pauses.append(now)
            view.proven(FIRST, now + 0.1)
    between = [later - earlier for earlier, later in pairwise(pauses)]
    assert between[:3] == pytest.approx([21, 41, 81], abs=1.1)
    assert max(between) <= 601.5


def test_host_that_never_told_its_presence_is_never_hidden() -> None:
    view = HostView()
    for witness in "abcde":
        assert view.said(word(witness, 1, NEVER), 1.0) == []
    assert view.complained(1.0) == view.hinted("a", 1.0) == []
    assert view.tried(DialOutcome.REFUSED, 0.9, 1.0) == []
    assert view.wake(100.0) == []
    assert view.is_listed


def test_leaving_hides_at_once_and_what_still_answers_does_not_show_it() -> None:
    view = known()
    assert view.renewed(Version(1, 1), 5.0, is_leaving=True) == [Move.HIDE]
    assert view.proven(Version(1, 0), 5.1) == view.tried(DialOutcome.ALIVE, 5.0, 5.2) == []
    assert view.state is ViewState.LEFT
    assert view.renewed(Version(2, 0), 9.0) == [Move.SHOW]


def test_newer_version_shows_and_voids_words_of_older_ones_alone() -> None:
    driver = Driver(known(), DialOutcome.REFUSED, takes=0.05)
    for witness in "abc":
        driver.note(driver.view.said(word(witness, 1), driver.now))
    driver.until(1.0)
    assert driver.view.state is ViewState.HIDDEN
    driver.view.said(word("d", 1, Version(2, 0)), 1.0)
    assert Move.SHOW in driver.view.renewed(Version(2, 0), 1.1)
    assert driver.view.accusing(1.1) == ["d"]
    assert driver.view.said(word("a", 2, FIRST), 1.2) == []


def test_third_reappearance_is_held_back() -> None:
    view, now, held = known(), 0.0, []
    for incarnation in range(2, 6):
        view.renewed(Version(incarnation, 0), now, is_leaving=True)
        now += 5.0
        held.append(Move.SHOW not in view.renewed(Version(incarnation, 1), now))
        if held[-1]:
            until = view.wake_at
            assert view.state is ViewState.HELD
            assert view.wake(until) == [Move.SHOW]
            now = until
    assert held == [False, False, True, True]
    assert HOLD[0] < HOLD[1]


def test_one_witness_that_lies_all_the_time_does_not_have_a_host_held_again_and_again() -> None:
    driver = Driver(known(), DialOutcome.ALIVE, takes=0.1)
    view = driver.view
    for incarnation in range(2, 5):
        driver.note(view.renewed(Version(incarnation, 0), driver.now, is_leaving=True))
        driver.until(driver.now + 5.0)
        driver.note(view.renewed(Version(incarnation, 1), driver.now))
    assert view.state is ViewState.HELD
    held_at, shown_at = driver.now, math.inf
    for number in range(1, 60):
        driver.note(view.said(word("liar", number, view.version), driver.now))
        driver.until(driver.now + 0.5)
        if view.is_listed:
            shown_at = min(shown_at, driver.now)
    assert shown_at <= held_at + HOLD[0] + 1.0
    assert view.is_listed


def test_retries_of_a_hidden_host_come_rarer_and_do_not_hang_on_outcomes() -> None:
    driver = Driver(known(), DialOutcome.SILENT, takes=math.inf)  # no try ever ends
    view = driver.view
    for witness in "abc":
        view.said(word(witness, 1), 0.0)
    view.tried(DialOutcome.REFUSED, 0.0, 0.1)
    assert view.state is ViewState.HIDDEN
    times = []
    for _ in range(60):
        now = view.wake_at
        times.append(now)
        view.wake(now)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(later >= earlier - 0.001 for earlier, later in pairwise(pauses))
    assert pauses[0] == pytest.approx(REPLICA_RETRY[0], abs=0.01)
    assert pauses[-1] == pytest.approx(REPLICA_RETRY[1], abs=0.01)
    view.links_returned(now)
    assert view.wake_at <= now + REPLICA_RETRY[0]


EVENTS = st.one_of(
    st.tuples(st.just("word"), st.sampled_from("abcde"), st.integers(0, 40), st.integers(0, 3)),
    st.tuples(st.just("tried"), st.sampled_from([*DialOutcome]), st.floats(0.0, 3.0), st.none()),
    st.tuples(st.sampled_from(["hint", "complaint", "proof", "stall", "wake"]), st.none(), st.none(), st.none()),
    st.tuples(st.sampled_from(["told", "leaves"]), st.none(), st.integers(0, 3), st.none()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 4.0), st.booleans()), max_size=60))
def test_whatever_happens(events: list[tuple[tuple[str, object, object, object], float, bool]]) -> None:
    """Only what rule 7 wants hides, or the host's own leaving; a hidden host has a timer; versions don't fall."""
    view, now = HostView(), 0.0
    failed_at = proven_at = stalled_at = -math.inf
    for (event, one, two, three), pause, judges in events:
        now += pause
        version, moves, was_listed = view.version, [], view.is_listed
        if event == "word":
            moves = view.said(word(str(one), int(str(two)), Version(int(str(three)), 0)), now, judges=judges)
        elif event == "tried" and isinstance(one, DialOutcome):
            began = now - float(str(two))
            if one not in (DialOutcome.ALIVE, DialOutcome.OWN_FAULT) and stalled_at <= began:
                failed_at = now
            proven_at = now if one is DialOutcome.ALIVE else proven_at
            moves = view.tried(one, began, now, judges=judges)
        elif event == "hint":
            moves = view.hinted("a", now)
        elif event == "complaint":
            moves = view.complained(now)
        elif event == "proof":
            proven_at = now
            moves = view.proven(view.version, now)
        elif event == "stall":
            stalled_at = now
            view.stalled(now)
        elif event in ("told", "leaves"):
            moves = view.renewed(Version(int(str(two)), 0), now, is_leaving=event == "leaves")
        moves = [*moves, *(view.wake(now, judges=judges) if view.wake_at <= now else [])]
        if Move.HIDE in moves and event != "leaves":
            assert judges
            assert version > NEVER
            assert now - failed_at <= TRY_COUNTS
            assert failed_at > proven_at
            assert failed_at >= stalled_at
        assert view.version >= version
        assert view.is_listed == (was_listed if Move.HIDE not in moves and Move.SHOW not in moves else view.is_listed)
        assert view.is_listed or now < view.wake_at < math.inf
        assert view.is_listed or view.wake_at <= now + 1.001 * max(REPLICA_RETRY[1], HOLD[1])


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0.0, 3.0)), min_size=1, max_size=60))
def test_liars_alone_hide_nobody_that_the_replica_reaches(lies: list[tuple[str, float]]) -> None:
    driver = Driver(known(), DialOutcome.ALIVE, takes=OWN_TRY)
    for number, (witness, pause) in enumerate(lies):
        driver.until(driver.now + pause)
        driver.note(driver.view.hinted(witness, driver.now))
        driver.note(driver.view.said(word(witness, number), driver.now))
    driver.until(driver.now + 60.0)
    assert driver.hidden_at() == math.inf


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.0, 3.0)), min_size=1, max_size=60))
def test_liars_hide_nobody_of_whom_one_honest_witness_brings_proof(lies: list[tuple[str, float]]) -> None:
    """Though our own path to the host is cut."""
    driver = Driver(known(), DialOutcome.SILENT, proof_takes=0.1)
    for number, (witness, pause) in enumerate(lies):
        driver.until(driver.now + pause)
        driver.note(driver.view.said(word(witness, number), driver.now))
    driver.until(driver.now + 60.0)
    assert driver.hidden_at() == math.inf


def test_a_refused_try_counts_though_this_peer_stalls_again_and_again() -> None:
    view = known()
    driver = Driver(view, DialOutcome.REFUSED, takes=0.01)
    driver.note(view.said(word("witness 1", 1), 0.0))
    driver.note(view.said(word("witness 2", 1), 0.0))
    for number in range(1, 4):
        driver.until(1.2 * number)
        view.stalled(1.2 * number)
    assert view.state is ViewState.HIDDEN


@pytest.mark.parametrize("outcome", [DialOutcome.SILENT, DialOutcome.MUTE])
def test_any_other_vain_try_before_an_own_stall_says_nothing(outcome: DialOutcome) -> None:
    view = known()
    driver = Driver(view, outcome, takes=0.01)
    driver.note(view.said(word("witness 1", 1), 0.0))
    driver.note(view.said(word("witness 2", 1), 0.0))
    for number in range(1, 4):
        driver.until(1.2 * number)
        view.stalled(1.2 * number)
    assert view.state is ViewState.DOUBTED


@pytest.mark.parametrize(("outcome", "hidden_after"), [(DialOutcome.REFUSED, 0.2), (DialOutcome.SILENT, WITH_WORDS[1])])
def test_where_all_keepers_speak_a_refused_dial_is_enough(outcome: DialOutcome, hidden_after: float) -> None:
    view = known()
    view.keep_keepers(["only witness"])
    driver = Driver(view, outcome, takes=0.1)
    driver.note(view.said(word("only witness", 1), 0.0))
    driver.until(20.0)
    (hidden_at,) = [at for at, move in driver.moves if move is Move.HIDE]
    assert hidden_after - 0.2 <= hidden_at <= hidden_after + 0.1
