"""How long peers rest that couldn't be dialled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.discovery.dial_failures import DialFailures

FIRST, LONGEST, MOST = 5.0, 60.0, 8


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def some_failures() -> tuple[DialFailures, Clock]:
    clock = Clock()
    return DialFailures(clock, first=FIRST, longest=LONGEST, most=MOST), clock


def test_one_failure_is_soon_forgiven() -> None:
    failures, clock = some_failures()
    failures.note("peer")
    assert failures.is_resting("peer")
    assert not failures.is_resting("another")
    clock.now = FIRST
    assert not failures.is_resting("peer")


def test_who_fails_again_and_again_rests_ever_longer() -> None:
    failures, clock = some_failures()
    rests = []
    for _ in range(6):
        failures.note("peer")
        rests.append(failures.rests_until("peer") - clock.now)
        clock.now = failures.rests_until("peer")
    assert rests == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_many_callers_who_try_together_are_no_more_than_one() -> None:
    failures, clock = some_failures()
    for clock.now in (0.0, 0.5, 4.0):
        failures.note("peer")
    assert failures.rests_until("peer") == 4.0 + FIRST


def test_who_was_linked_begins_anew() -> None:
    failures, clock = some_failures()
    for _ in range(4):
        failures.note("peer")
        clock.now = failures.rests_until("peer")
    failures.forget("peer")
    assert failures.rests_until("peer") == 0.0
    failures.note("peer")
    assert failures.rests_until("peer") == clock.now + FIRST


def test_no_more_than_so_many_are_remembered() -> None:
    failures, _ = some_failures()
    for number in range(3 * MOST):
        failures.note(str(number))
    assert [number for number in range(3 * MOST) if failures.is_resting(str(number))] == [*range(2 * MOST, 3 * MOST)]


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans()), max_size=60))
def test_a_rest_is_never_longer_than_told_and_none_outlasts_a_link(steps: list[tuple[float, bool]]) -> None:
    failures, clock = some_failures()
    for wait, fails in steps:
        clock.now += wait
        if fails:
            failures.note("peer")
            assert failures.rests_until("peer") - clock.now + 1e-6 >= FIRST
        else:
            failures.forget("peer")
        assert failures.rests_until("peer") - clock.now <= LONGEST + 1e-6
        assert failures.is_resting("peer") is (failures.rests_until("peer") > clock.now)
        assert fails or not failures.is_resting("peer")
