"""Self-doubt, distrust, hold-down, own stalls and timers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from overlay.presence.accusers import Accusers
from overlay.presence.flap import Flap
from overlay.presence.own_stalls import OwnStalls
from overlay.presence.self_doubt import SelfDoubt
from overlay.presence.timers import Timers
from overlay.presence.timings import FLAP_WINDOW, HOLD, LOST_WITHIN, SELF_DOUBT

HOME = [f"member-{number}" for number in range(28)]


def doubting(home: list[str], lost: int) -> SelfDoubt:
    """Whoever lost so many of its home at 10 s."""
    doubt = SelfDoubt()
    doubt.note_home(home, 0.0)
    for member in home[:lost]:
        doubt.lost(member, 10.0)
    return doubt


def test_most_of_the_home_lost_is_our_own_fault_until_some_answer() -> None:
    doubt = doubting(HOME, 15)
    assert doubt.is_doubting(10.0)
    for member in HOME[20:22]:
        doubt.answered(member, 10.5)
    assert doubt.is_doubting(10.5)
    doubt.answered(HOME[20], 10.6)  # the same one says nothing new
    assert doubt.is_doubting(10.6)
    doubt.answered(HOME[1], 10.7)
    assert not doubt.is_doubting(10.7)


def test_half_of_the_home_is_no_doubt() -> None:
    assert not doubting(HOME, 14).is_doubting(10.0)


def test_lost_members_count_though_they_are_linked_no_more() -> None:
    doubt = SelfDoubt()
    doubt.note_home(HOME, 0.0)
    for number, member in enumerate(HOME[:15]):
        doubt.lost(member, 10.0)
        doubt.note_home(HOME[number + 1 :], 10.0)
    assert doubt.is_doubting(10.0)


def test_doubt_ends_after_its_time() -> None:
    doubt = doubting(HOME, 28)
    assert doubt.is_doubting(10.0 + SELF_DOUBT - 1)
    assert not doubt.is_doubting(10.0 + SELF_DOUBT)


def test_losses_far_apart_do_not_add_up() -> None:
    doubt = SelfDoubt()
    doubt.note_home(HOME, 0.0)
    for number, member in enumerate(HOME):
        assert not doubt.lost(member, number * LOST_WITHIN / 10)


def test_small_home_needs_half_of_it() -> None:
    doubt = doubting(["a", "b", "c"], 2)
    assert doubt.is_doubting(10.0)
    doubt.answered("c", 10.1)
    assert not doubt.is_doubting(10.1)


def test_hold_doubles_up_to_its_bound_and_is_forgotten() -> None:
    flap = Flap()
    holds = [flap.returned(10.0 * number) for number in range(8)]
    assert holds == [0.0, 0.0, HOLD[0], 2 * HOLD[0], 4 * HOLD[0], HOLD[1], HOLD[1], HOLD[1]]
    assert flap.returned(70.0 + 3 * FLAP_WINDOW) == 0.0


def test_pauses_of_more_than_a_second_are_stalls() -> None:
    stalls = OwnStalls(0.0)
    assert stalls.note(0.9) == 0.0
    assert stalls.note(2.0) > 1.0
    assert stalls.note(2.1) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0.0, 700.0)), max_size=60))
def test_distrust_is_bounded(accusations: list[tuple[str, float]]) -> None:
    accusers, now = Accusers(), 0.0
    for witness, pause in accusations:
        now += pause
        accusers.note_false([witness], [witness], now)
        assert not accusers.believes(witness, now)
        assert accusers.believes(witness, now + 600.0)
        assert not accusers.heeds_hint(witness, now + 5.0)
    accusers.keep("ab")
    assert all(accusers.believes(witness, now) for witness in "cde")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.floats(0.0, 20.0), st.just(math.inf))), max_size=40))
def test_timers_are_those_of_a_table(sets: list[tuple[str, float]]) -> None:
    timers: Timers[str] = Timers()
    table: dict[str, float] = {}
    for now, (key, wait) in enumerate(sets):
        timers.set(key, now + wait)
        table[key] = now + wait
        assert timers.next_at <= min(table.values())
        due = {name for name, at in table.items() if at <= now}
        assert {*timers.due(now)} == due
        for name in due:
            del table[name]
