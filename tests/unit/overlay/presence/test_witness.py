"""When a witness speaks against a host, and when it mustn't."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.timings import KERNEL_DOUBT, KERNEL_DOWN, LATE_BEAT, NO_BEAT, WITNESS_RETRY
from overlay.presence.witness import Duty, Witness, WitnessState

VAIN = [DialOutcome.SILENT, DialOutcome.MUTE, DialOutcome.REFUSED, DialOutcome.OWN_FAULT]


def woken_until(witness: Witness, end: float, *, judges: bool = True) -> list[tuple[float, Duty]]:
    """What it does when its timers alone run, until a time."""
    done: list[tuple[float, Duty]] = []
    while witness.wake_at <= end:
        at = witness.wake_at
        duties = witness.wake(at, judges=judges)
        done += [(at, duty) for duty in duties]
        assert duties or witness.wake_at > at, "it would be woken for ever"
    return done


def down(now: float = 0.0) -> Witness:
    """A witness of a host whose process is gone."""
    witness = Witness(now, is_witness=True)
    witness.link_ended(now)
    assert witness.dialled(DialOutcome.REFUSED, now, now) == [Duty.SAY_DOWN]
    return witness


def test_ended_link_is_dialled_at_once_and_refusal_is_enough() -> None:
    witness = Witness(0.0, is_witness=True)
    assert witness.link_ended(1.0) == [Duty.DIAL, Duty.HINT]
    assert witness.dialled(DialOutcome.REFUSED, 1.0, 1.1) == [Duty.SAY_DOWN]
    assert witness.state is WitnessState.DOWN


def test_silence_after_the_link_ended_is_enough() -> None:
    witness = Witness(0.0, is_witness=True)
    witness.link_ended(1.0)
    assert witness.dialled(DialOutcome.SILENT, 1.0, 3.0) == [Duty.SAY_DOWN]


def test_mute_machine_has_the_long_clock() -> None:
    witness = Witness(0.0, is_witness=True)
    witness.link_ended(1.0)
    assert witness.dialled(DialOutcome.MUTE, 1.0, 3.0) == []
    assert woken_until(witness, 1.0 + LATE_BEAT) == [(1.0 + LATE_BEAT, Duty.DIAL), (1.0 + LATE_BEAT, Duty.HINT)]
    assert witness.dialled(DialOutcome.MUTE, 1.0 + LATE_BEAT, 9.9) == []
    assert woken_until(witness, 20.0)[0] == (1.0 + NO_BEAT, Duty.SAY_DOWN)


def test_silent_kernel_is_dialled_then_down() -> None:
    witness = Witness(0.0, is_witness=True)
    assert witness.silent(0.0, KERNEL_DOUBT) == [Duty.DIAL, Duty.HINT]
    assert witness.dialled(DialOutcome.SILENT, KERNEL_DOUBT, KERNEL_DOWN) == [Duty.SAY_DOWN]


def test_mute_dial_cancels_the_silence_of_the_kernel() -> None:
    witness = Witness(0.0, is_witness=True)
    witness.silent(0.0, KERNEL_DOUBT)
    assert witness.dialled(DialOutcome.MUTE, KERNEL_DOUBT, 4.0) == []
    assert witness.silent(0.0, 4.0) == []
    assert witness.silent(0.0, 6.0) == []
    assert witness.silent(0.0, 4.0 + KERNEL_DOUBT) == [Duty.DIAL, Duty.HINT]


def test_beats_in_spite_of_silence_are_not_doubted_each_time() -> None:
    """A path that is cut one way: each beat would cost a dial and a warning."""
    witness, dials, now = Witness(0.0, is_witness=True), 0, 0.0
    while now < 60.0:
        witness.heard(now)
        for later in (0.5, 1.0, 1.5, 2.0, 2.5, 2.9):
            if later >= 2.0:
                duties = witness.silent(now, now + later)
                dials += duties.count(Duty.DIAL)
                if Duty.DIAL in duties:
                    witness.dialled(DialOutcome.SILENT, now + later, now + later)
        now += 3.0
    assert dials <= 2


def test_host_without_presence_is_never_spoken_against_unasked() -> None:
    assert woken_until(Witness(0.0, is_witness=True, is_known=False), 1000.0) == []


def test_unknown_host_is_dialled_when_asked() -> None:
    witness = Witness(0.0, is_witness=True, is_known=False)
    assert witness.asked(5.0) == [Duty.DIAL, Duty.HINT]
    assert witness.dialled(DialOutcome.SILENT, 5.0, 7.0) == [Duty.SAY_DOWN]


def test_keeper_looks_only_when_asked_without_proof() -> None:
    witness = Witness(0.0, is_witness=False)
    assert woken_until(witness, 100.0) == []
    witness.asked(100.0)
    assert woken_until(witness, 102.0) == [(101.0, Duty.DIAL), (101.0, Duty.HINT)]
    other = Witness(0.0, is_witness=False)
    other.asked(100.0)
    other.heard(100.5)
    assert woken_until(other, 200.0) == []


def test_mute_host_is_dialled_by_a_keeper_until_the_long_clock_is_over() -> None:
    witness, now, said = Witness(0.0, is_witness=False), 101.0, math.inf
    witness.asked(100.0)
    assert witness.wake(101.0) == [Duty.DIAL, Duty.HINT]
    while said == math.inf:
        duties = witness.dialled(DialOutcome.MUTE, now, now + 1.0)
        said = now + 1.0 if Duty.SAY_DOWN in duties else math.inf
        now = witness.wake_at
        assert said < math.inf or witness.wake(now) == [Duty.DIAL]
    assert 101.0 + NO_BEAT <= said <= 101.0 + NO_BEAT + 1.5


def test_heard_while_down_is_accused_and_newer_version_ends_it() -> None:
    witness = down()
    assert witness.heard(1.0) == [Duty.ACCUSE]
    assert witness.state is WitnessState.DOWN
    assert witness.renewed(1.1, from_itself=True) == []
    assert witness.state is WitnessState.OK


def test_newer_version_from_others_makes_us_look() -> None:
    witness = down()
    assert witness.renewed(1.0, from_itself=False) == [Duty.DIAL]
    assert witness.state is WitnessState.DOWN


def test_host_that_left_is_left_alone() -> None:
    witness = Witness(0.0, is_witness=True)
    witness.left()
    assert witness.link_ended(0.1) == []
    assert woken_until(witness, 1000.0) == []
    witness.renewed(5.0, from_itself=True)
    assert witness.state is WitnessState.OK


@given(st.lists(st.sampled_from([*DialOutcome, None]), max_size=30))
def test_down_host_has_one_timer_whatever_becomes_of_the_dials(outcomes: list[DialOutcome | None]) -> None:
    witness = down()
    for outcome in outcomes:
        at = witness.wake_at
        assert 0 < at < math.inf
        witness.wake(at)
        assert WITNESS_RETRY[0] <= witness.wake_at - at <= WITNESS_RETRY[1] + 0.001
        if outcome is not None:  # None: it isn't told in time
            witness.dialled(outcome, at, at + 0.5)


@given(
    st.lists(
        st.tuples(st.floats(0.01, NO_BEAT - 0.1), st.sampled_from([DialOutcome.MUTE, DialOutcome.ALIVE])), max_size=20
    ),
    st.booleans(),
)
def test_process_silent_for_less_than_a_verdict_yields_no_word(
    gaps: list[tuple[float, DialOutcome]], is_witness: bool
) -> None:
    """Whose machine acknowledges: dials to it are mute at worst, and take all of their time."""
    witness, now = Witness(0.0, is_witness=is_witness), 0.0
    for gap, outcome in gaps:
        witness.asked(now)
        beat, answer, began = now + gap, math.inf, math.inf
        while min(witness.wake_at, answer) < beat:
            now = min(witness.wake_at, answer)
            if answer <= now:
                duties, answer = witness.dialled(outcome, began, now), math.inf
            else:
                duties = witness.wake(now)
            assert Duty.SAY_DOWN not in duties
            if Duty.DIAL in duties:
                began, answer = now, now + witness.dial_timeout
        now = beat
        assert witness.heard(now) == []
        if answer < math.inf:
            witness.dialled(DialOutcome.ALIVE, began, now)


EVENTS = st.one_of(
    st.tuples(st.just("dialled"), st.sampled_from([*DialOutcome])),
    st.tuples(
        st.sampled_from(["heard", "ended", "silent", "acked", "asked", "stalled", "wake", "renewed", "told"]), st.none()
    ),
)


def happen(  # noqa: PLR0911
    witness: Witness, event: str, outcome: DialOutcome | None, now: float, *, judges: bool
) -> list[Duty]:
    """One event."""
    match event:
        case "heard":
            return witness.heard(now)
        case "ended":
            return witness.link_ended(now)
        case "silent":
            return witness.silent(now - 3.0, now, judges=judges)
        case "asked":
            return witness.asked(now)
        case "wake":
            return witness.wake(now, judges=judges)
        case "renewed" | "told":
            return witness.renewed(now, from_itself=event == "renewed")
        case "acked":
            witness.acknowledged(now)
        case "stalled":
            witness.stalled(now)
        case _:
            assert outcome is not None
            return witness.dialled(outcome, now - 0.5, now, judges=judges)
    return []


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 5.0)), max_size=40), st.booleans(), st.booleans())
def test_whatever_happens(
    events: list[tuple[tuple[str, DialOutcome | None], float]], is_witness: bool, known: bool
) -> None:
    """Who doubts itself says nothing; nobody says it twice; who is down has a timer, and none is due for ever."""
    for judges in (False, True):
        witness, now = Witness(0.0, is_witness=is_witness, is_known=known), 0.0
        for (event, outcome), pause in events:
            now += pause
            before = witness.state
            duties = happen(witness, event, outcome, now, judges=judges)
            assert Duty.SAY_DOWN not in duties or (judges and before is not WitnessState.DOWN)
            assert duties.count(Duty.DIAL) <= 1
            assert (witness.state is WitnessState.DOWN) == (witness.down_since < math.inf)
            assert witness.state is not WitnessState.DOWN or witness.wake_at < math.inf
            for _ in range(10):
                if witness.wake_at > now:
                    break
                witness.wake(now, judges=judges)
            else:
                pytest.fail("it would be woken for ever")


@given(st.floats(0.0, 8.0), st.floats(1.1, 30.0), st.sampled_from([DialOutcome.SILENT, DialOutcome.MUTE]))
def test_nothing_is_held_against_a_host_that_happened_before_our_own_stall(
    before: float, stall: float, outcome: DialOutcome
) -> None:
    witness = Witness(0.0, is_witness=True)
    woken_until(witness, before)
    now = before + stall
    witness.stalled(now)
    if before >= LATE_BEAT:
        assert Duty.SAY_DOWN not in witness.dialled(outcome, LATE_BEAT, now)
    assert Duty.SAY_DOWN not in witness.wake(now)
    assert Duty.SAY_DOWN not in witness.silent(0.0, now)
    assert all(duty is not Duty.SAY_DOWN for _, duty in woken_until(witness, now + KERNEL_DOWN - 0.1))


def test_who_was_never_heard_and_has_no_address_is_dialled_when_asked_for_alone() -> None:
    witness = Witness(0.0, is_witness=True, is_known=False)
    assert Duty.DIAL in witness.asked(0.0)
    assert witness.dialled(DialOutcome.OWN_FAULT, 0.0, 0.0) == []
    assert woken_until(witness, 3600.0) == []
    assert Duty.DIAL in witness.asked(3600.0)
    assert witness.dialled(DialOutcome.SILENT, 3600.0, 3602.0) == [Duty.SAY_DOWN]


def test_who_was_heard_and_has_no_address_is_dialled_ever_more_rarely() -> None:
    witness = Witness(0.0, is_witness=True)
    at, dialled = 0.0, list[float]()
    duties = witness.link_ended(at)
    while at < 3600:
        if Duty.DIAL in duties:
            dialled.append(at)
            witness.dialled(DialOutcome.OWN_FAULT, at, at)
        at = witness.wake_at
        duties = witness.wake(at)
    assert [at for at in dialled if at <= 4] == [0, 1, 2, 3, 4], "addresses and routes may come soon"
    assert len(dialled) <= 3600 / WITNESS_RETRY[1] + 25
    assert witness.state is WitnessState.DOUBT
    assert witness.dialled(DialOutcome.REFUSED, at, at) == [Duty.SAY_DOWN]


def wakes(witness: Witness, end: float) -> list[float]:
    """When its timers wake it until a time, where each dial fails at once for a fault of ours."""
    times: list[float] = []
    while witness.wake_at <= end:
        at = max([witness.wake_at, *times[-1:]])
        times.append(at)
        assert len(times) < 3 or times[-3:] != [at] * 3, f"it is woken for ever at {at}"
        if Duty.DIAL in witness.wake(at):
            witness.dialled(DialOutcome.OWN_FAULT, at, at)
    return times


def test_a_silent_host_that_was_never_heard_and_has_no_address_isnt_dialled_without_end() -> None:
    witness = Witness(0.0, is_witness=True, is_known=False)
    for look in range(60):
        if Duty.DIAL in witness.silent(0.0, float(look)):
            witness.dialled(DialOutcome.OWN_FAULT, float(look), float(look))
        assert len(wakes(witness, look + 1.0)) <= 3


STEPS = st.sampled_from(["silent", "acknowledged", "asked", "ended", "heard", "renewed", "stalled", "wait"])


@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.5, 1.3, 2.7, 4.0, 9.0])), max_size=12),
)
def test_no_timer_comes_again_and_again_at_one_time(
    is_witness: bool, is_known: bool, steps: list[tuple[str, float]]
) -> None:
    witness, now = Witness(0.0, is_witness=is_witness, is_known=is_known), 0.0
    for step, pause in steps:
        duties: list[Duty] = []
        match step:
            case "silent":
                duties = witness.silent(now - pause, now)
            case "acknowledged":
                witness.acknowledged(now)
            case "asked":
                duties = witness.asked(now)
            case "ended":
                duties = witness.link_ended(now)
            case "heard":
                duties = witness.heard(now)
            case "renewed":
                duties = witness.renewed(now, from_itself=pause > 1)
            case "stalled":
                witness.stalled(now)
        if Duty.DIAL in duties:
            witness.dialled(DialOutcome.OWN_FAULT, now, now)
        wakes(witness, now + pause)
        now += pause
