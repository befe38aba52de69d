"""What peers' clocks say of ours: whose opinion counts, what liars can do, and what holds as time goes by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.clock.comparison import ENOUGH, LIMIT, MOST_UNCERTAIN, ClockComparison, Opinion, Standing, counted

WALL = 1_700_000_000.0
DAY = 86_400.0
seconds = st.floats(-1e6, 1e6)
honest = st.floats(-3.0, 3.0)


def opinions(*aheads: float, group: str | None = None) -> list[Opinion]:
    """One of each address group, or all of one."""
    return [Opinion(str(number) if group is None else group, ahead, 0.0) for number, ahead in enumerate(aheads)]


def judged(found: list[Opinion], *, could_tell: bool = True) -> tuple[Standing, float, int]:
    comparison = ClockComparison()
    comparison.asked(found, WALL, 0.0, could_tell=could_tell)
    verdict = comparison.verdict(WALL, 0.0)
    return verdict.standing, verdict.ahead, verdict.opinions


@pytest.mark.parametrize(
    ("aheads", "standing"),
    [
        ((2.0, 2.0), Standing.UNKNOWN),
        ((2 * DAY, 2 * DAY), Standing.SUSPECT),
        ((9.9, 9.9, 9.9), Standing.RIGHT),
        ((10.1, 10.1, 10.1), Standing.OFF),
        ((-29.0, -29.0, -29.0, 29.0), Standing.OFF),
        ((2 * DAY, 0.0, 0.0, 0.0), Standing.RIGHT),
    ],
)
def test_three_opinions_decide_and_fewer_only_raise_a_suspicion(aheads: tuple[float, ...], standing: Standing) -> None:
    assert judged(opinions(*aheads))[0] is standing


def test_nobody_was_asked_at_first() -> None:
    assert ClockComparison().verdict(WALL, 0.0).standing is Standing.UNCHECKED


@given(st.lists(honest, min_size=2, max_size=12), st.lists(seconds, max_size=11))
def test_liars_that_are_fewer_than_the_honest_move_nothing_out_of_what_those_say(
    true: list[float], lies: list[float]
) -> None:
    lies = lies[: len(true) - 1]
    found = counted(opinions(*lies, *true))
    assert min(true) <= found.ahead <= max(true)
    if found.count >= ENOUGH:
        assert judged(opinions(*lies, *true))[0] is Standing.RIGHT


@given(st.lists(honest, min_size=2, max_size=6), st.lists(seconds, min_size=1, max_size=50))
def test_however_many_liars_of_one_address_group_have_one_opinion(true: list[float], lies: list[float]) -> None:
    found = counted([*opinions(*true), *opinions(*lies, group="theirs")])
    assert min(true) <= found.ahead <= max(true)
    assert found.count == len(true) + 1


def test_where_all_are_of_one_group_each_has_an_opinion() -> None:
    assert judged(opinions(40.0, 40.0, 40.0, group="7f00")) == (Standing.OFF, 40.0, 3)
    assert judged([], could_tell=False)[0] is Standing.UNKNOWN
    assert judged(opinions(40.0, 40.0, group="7f00"))[0] is Standing.SUSPECT
    assert judged([*opinions(40.0, 40.0, 40.0, group="7f00"), *opinions(40.0)])[0] is Standing.SUSPECT, "two parties"


def test_an_answer_that_took_long_is_worth_less_and_then_nothing() -> None:
    slow = [Opinion(str(number), LIMIT + 1.0, 1.5) for number in range(3)]
    assert judged(slow)[0] is Standing.RIGHT, "it may differ by less than the limit"
    slower = [Opinion(str(number), DAY, MOST_UNCERTAIN + 0.1) for number in range(3)]
    assert judged(slower, could_tell=False)[0] is Standing.UNKNOWN


@given(st.floats(-LIMIT, LIMIT), st.floats(0, 1e5), seconds)
def test_a_jump_of_the_wall_clock_shows_at_once(ahead: float, later: float, jump: float) -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(ahead, ahead, ahead), WALL, 7.0, could_tell=True)
    verdict = comparison.verdict(WALL + later + jump, 7.0 + later)
    assert verdict.ahead == pytest.approx(ahead + jump, abs=1e-3)
    if abs(abs(ahead + jump) - LIMIT) > 1e-3:
        assert verdict.is_off == (abs(ahead + jump) > LIMIT)


def test_a_clock_that_was_set_right_is_right_at_once_without_asking() -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(2 * DAY, 2 * DAY, 2 * DAY), WALL, 0.0, could_tell=True)
    assert comparison.verdict(WALL + 5, 5.0).is_off
    assert comparison.verdict(WALL + 5 - 2 * DAY, 5.0).standing is Standing.RIGHT


def test_that_nobody_answers_changes_nothing() -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(40.0, 40.0, 40.0), WALL, 0.0, could_tell=True)
    comparison.asked([], WALL, 0.0, could_tell=False)
    assert comparison.verdict(WALL, 0.0).is_off
    comparison.asked([], WALL + DAY, 0.0, could_tell=True)
    assert comparison.verdict(WALL + DAY, 0.0).is_off


def test_as_long_as_nobody_answers_who_should_nobody_counts_as_asked() -> None:
    assert judged([], could_tell=True)[0] is Standing.UNCHECKED
    assert judged(opinions(0.0), could_tell=True)[0] is Standing.UNKNOWN


def test_after_a_jump_with_nobody_to_ask_it_isnt_known_whether_the_clock_was_set_or_the_machine_slept() -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(0.0, 0.0, 0.0), WALL, 0.0, could_tell=True)
    assert comparison.verdict(WALL + DAY, 0.0).is_off, "until others were asked, it isn't trusted"
    comparison.asked(opinions(0.0), WALL + DAY, 0.0, could_tell=False)
    assert comparison.verdict(WALL + DAY, 0.0).standing is Standing.UNKNOWN


@pytest.mark.parametrize("ahead", [0.0, 40.0])
def test_what_too_few_said_before_a_jump_says_nothing_of_the_time_after_it(ahead: float) -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(ahead), WALL, 0.0, could_tell=False)
    said = comparison.verdict(WALL + LIMIT - 0.1, 0.0).standing
    assert said is (Standing.SUSPECT if ahead else Standing.UNKNOWN)
    assert comparison.verdict(WALL + 60, 60.0).standing is said, "time went by"
    assert comparison.verdict(WALL + 2 * DAY, 0.0).standing is Standing.UNCHECKED
    comparison.asked([], WALL + 2 * DAY, 0.0, could_tell=True)
    assert comparison.verdict(WALL + 2 * DAY, 0.0).standing is Standing.UNCHECKED, "nothing came of asking"
    comparison.asked([], WALL + 2 * DAY, 0.0, could_tell=False)
    assert comparison.verdict(WALL + 2 * DAY, 0.0).standing is Standing.UNKNOWN, "nobody is there to ask"


@given(st.floats(-LIMIT, LIMIT), st.integers(1, 2), st.sampled_from((-DAY, 45.0, 2 * DAY)))
def test_after_a_jump_fewer_than_decide_suffice_to_say_that_all_is_as_it_was_decided(
    ahead: float, count: int, jump: float
) -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(0.0, 0.0, 0.0), WALL, 0.0, could_tell=True)
    comparison.asked(opinions(*[jump + ahead] * count), WALL + jump, 0.0, could_tell=False)
    assert comparison.verdict(WALL + jump, 0.0).is_off
    comparison.asked([], WALL + jump + 60, 60.0, could_tell=False)
    assert comparison.verdict(WALL + jump + 60, 60.0).is_off, "the last one left, and set nothing"
    assert comparison.verdict(WALL + 60, 60.0).standing is Standing.RIGHT


@pytest.mark.parametrize(
    ("ahead", "told"), [(172_800.4, "172,800 s ahead of 3 peers'"), (-45.0, "45 s behind 3 peers'")]
)
def test_the_verdict_says_the_difference_in_words(ahead: float, told: str) -> None:
    comparison = ClockComparison()
    comparison.asked(opinions(ahead, ahead, ahead), WALL, 0.0, could_tell=True)
    assert str(comparison.verdict(WALL, 0.0)) == told
