"""The state of a check over time: thresholds, damping, jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.agent.check_state import FIRST_WITHIN, JITTER, Check, CheckResult, CheckState, cut
from aqua_compat.agent.definitions import CheckTiming

P, W, C = CheckState.PASSING, CheckState.WARNING, CheckState.CRITICAL


def states(results: str, timing: CheckTiming | None = None) -> str:
    """What is shown after each of `results`, a letter each, one an interval."""
    timing = timing or CheckTiming()
    check, shown = Check(timing, 0.0, lambda: 0.0), ""
    for number, letter in enumerate(results):
        check.take(CheckResult({"p": P, "w": W, "c": C}[letter], letter), number * timing.interval)
        shown += {P: "p", W: "w", C: "c"}[check.shown.state]
    return shown


def test_a_check_is_critical_until_it_passed() -> None:
    check = Check(CheckTiming(), 5.0, lambda: 0.0)
    assert check.shown == CheckResult(C, "not checked yet")
    assert check.since == 5.0
    assert states("p") == "p"
    assert states("w") == "w"


def test_results_in_a_row_change_the_state() -> None:
    timing = CheckTiming(passes=2, failures=3)
    assert states("ppccpcccpcpp", timing) == "cppppppccccp"
    assert states("pwpccwccc", timing) == "cwpppwwwc"


@given(st.text("pwc", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_thresholds_are_those_of_brute_force_while_nothing_is_damped(results: str, passes: int, failures: int) -> None:
    timing, expected, state = CheckTiming(passes=passes, failures=failures), "", "c"
    changes = 0
    for end in range(1, len(results) + 1):
        seen, last = results[:end], results[end - 1]
        good = len(seen) - len(seen.rstrip("pw"))
        bad = len(seen) - len(seen.rstrip("c"))
        before = state
        if state == "c":
            state = last if good >= passes else "c"
        else:
            state = last if good else ("c" if bad >= failures else state)
        changes += state != before
        expected += state
    if changes <= 4:  # the first is none, three more are no flapping
        assert states(results, timing) == expected


def test_a_restart_is_no_flapping_and_a_check_that_flaps_gets_better_only_once_it_lasts() -> None:
    assert states("ppcpcp") == "ppcpcp"
    timing = CheckTiming(interval=10.0)
    check = Check(timing, 0.0, lambda: 0.0)
    now = 0.0
    for number in range(20):
        now = number * 10.0
        check.take(CheckResult(P if number % 2 else C, ""), now)
    assert check.shown.state is C
    assert check.shown.note == "it flaps; last: passing"
    steady = 0
    while check.shown.state is C:
        now, steady = now + 10.0, steady + 1
        changed = check.take(CheckResult(P), now)
        assert changed == (check.shown.state is P)
    assert 10 <= steady <= 18, "three half-lives of six intervals at most"
    assert check.shown == CheckResult(P)
    assert check.since == now


@given(st.text("pwc", max_size=60))
def test_damping_shows_nothing_better_than_it_is(results: str) -> None:
    order = "pwc"
    assert all(
        order.index(shown) >= order.index(result) for shown, result in zip(states(results), results, strict=True)
    )


def test_what_changed_is_told_once() -> None:
    check = Check(CheckTiming(failures=2), 0.0, lambda: 0.0)
    assert check.take(CheckResult(P, "HTTP 200"), 1.0)
    assert not check.take(CheckResult(P, "HTTP 204"), 2.0), "why it passes is nothing new"
    assert not check.take(CheckResult(C, "refused"), 3.0), "one of two"
    assert check.take(CheckResult(C, "refused"), 4.0)
    assert not check.take(CheckResult(C, "refused"), 5.0)
    assert check.take(CheckResult(C, "no answer"), 6.0), "it fails for another reason"
    assert check.since == 4.0


@given(st.floats(0, 1), st.floats(0.1, 1000), st.floats(0, 10_000))
def test_jitter_brings_a_check_forward_and_never_back(random: float, interval: float, now: float) -> None:
    check = Check(CheckTiming(interval=interval, timeout=3.0), now, lambda: random)
    assert now <= check.due <= now + min(interval, FIRST_WITHIN) + 1e-6
    started = check.due
    assert check.start(started) == started + 3.0
    assert started + interval * (1 - JITTER) - 1e-6 <= check.due <= started + interval + 1e-6


@given(st.text())
def test_notes_are_short_and_printable(note: str) -> None:
    kept = cut(note)
    assert len(kept.encode()) <= 256
    assert not kept or kept.isprintable()
