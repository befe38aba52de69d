"""How late the loop is, told of the last minute."""

from __future__ import annotations

import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from overlay.limits.loop_lag import LagHistory, LoopLag


def test_nothing_noted_is_no_lag() -> None:
    told = LagHistory().statistics(1000.0)
    assert (told.max, told.p99) == (0.0, 0.0)


def test_worst_is_told_for_a_minute() -> None:
    history = LagHistory()
    history.note(0.5, 1000.0)
    history.note(0.001, 1001.0)
    assert history.statistics(1054.0).max == 0.5
    assert history.statistics(1061.0).max == 0.0


def test_one_stall_of_many_turns_is_the_worst_and_not_the_rule() -> None:
    history = LagHistory()
    for turn in range(1000):
        history.note(0.3 if turn == 500 else 0.0001, 1000.0 + turn / 100)
    told = history.statistics(1010.0)
    assert told.max == 0.3
    assert 0.0001 <= told.p99 <= 0.0002


@given(lags=st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_p99_is_at_most_twice_too_much(lags: list[float]) -> None:
    history = LagHistory()
    for lag in lags:
        history.note(lag, 1000.0)
    told = history.statistics(1000.0)
    exact = sorted(lags, reverse=True)[len(lags) // 100]
    assert told.max == max(lags)
    assert exact <= told.p99 * (1 + 1e-9)
    assert told.p99 <= max(2 * exact, 1e-6)


@given(moments=st.lists(st.floats(0, 10_000), max_size=50))
def test_memory_is_bounded_however_long_it_runs(moments: list[float]) -> None:
    history = LagHistory()
    for now in sorted(moments):
        history.note(1.0, now)
    recent = [now for now in moments if moments and now > max(moments) - 55]
    assert bool(recent) == (history.statistics(max(moments, default=0.0)).max > 0)


@pytest.mark.parametrize("stall", [0.0, 0.2])
async def test_task_that_holds_the_loop_up_is_noticed(stall: float) -> None:
    lag = LoopLag()
    with lag.measured():
        await trio.sleep(0.01)
        time.sleep(stall)  # noqa: ASYNC251 - this is the stall
        await trio.sleep(0.01)
    assert lag.statistics().max >= stall
    if stall:
        assert lag.statistics().p99 > 0


async def test_waiting_for_long_is_no_lag() -> None:
    lag = LoopLag()
    with lag.measured():
        await trio.sleep(0.3)
        await trio.lowlevel.checkpoint()
    assert lag.statistics().max < 0.3


async def test_nothing_is_measured_outside() -> None:
    lag = LoopLag()
    with lag.measured():
        await trio.lowlevel.checkpoint()
    before = lag.statistics().max
    time.sleep(0.2)  # noqa: ASYNC251 - this is the stall
    await trio.lowlevel.checkpoint()
    assert lag.statistics().max == before
