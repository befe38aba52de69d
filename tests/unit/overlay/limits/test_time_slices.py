"""Work for others on the Trio thread: one piece at a time, and of nobody more than half of the time."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from itertools import groupby

import pytest
import trio
import trio.testing

from overlay.limits.time_slices import ALONE, TimeSlices, served, turn, work_for


async def test_whoever_computes_much_leaves_the_thread_to_others_between() -> None:
    time_slices = TimeSlices()
    order: list[str] = []

    async def work(source: str, seconds: float) -> None:
        async with time_slices.slice(source):
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            order.append(source)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(work, "greedy", 0.01)
        for _ in range(20):
            nursery.start_soon(work, "modest", 0.0)
        began = time.perf_counter()
    assert time.perf_counter() - began >= 0.19, "it rests as long as it works"
    assert order.index("modest") <= 1
    assert "greedy" not in order[3:20], "all modest work is done while the greedy one rests"


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 100])
async def test_longer_work_is_done_to_its_end_with_turns_of_others_within(count: int) -> None:
    time_slices, order = TimeSlices(), list[str]()

    def work(source: str) -> Iterator[None]:
        for _ in range(count):
            order.append(source)
            yield

    async with trio.open_nursery() as nursery:
        for source in "ab":
            nursery.start_soon(time_slices.run, source, work(source))
    assert sorted(order) == sorted("ab" * count)
    longest = max((len(list(group)) for _, group in groupby(order)), default=0)
    assert longest <= 2 * 32


class Source(str):
    """A peer id that can be referred to weakly."""

    __slots__ = ("__weakref__",)


async def test_cancelled_slice_lets_the_next_begin_and_leaves_nothing_of_its_source(autojump_clock) -> None:
    time_slices, source = TimeSlices(), Source("a")
    is_kept = weakref.ref(source)
    with trio.move_on_after(1):
        async with time_slices.slice(source):
            await trio.sleep_forever()
    with trio.fail_after(1):
        async with time_slices.slice(source):
            pass
    del source
    gc.collect()
    assert is_kept() is None


class Rounds(trio.abc.Instrument):
    """Counts how often the loop went round."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_slices_of_all_run_one_in_each_round_of_the_loop() -> None:
    """Also of two peers in one loop: it's the loop that is shared."""
    rounds, began = Rounds(), list[int]()

    async def work(time_slices: TimeSlices, source: str) -> None:
        async with time_slices.slice(source, 0.0):
            began.append(rounds.count)

    trio.lowlevel.add_instrument(rounds)
    async with trio.open_nursery() as nursery:
        for time_slices in (TimeSlices(), TimeSlices()):
            for number in range(20):
                nursery.start_soon(work, time_slices, f"{number}")
    trio.lowlevel.remove_instrument(rounds)
    assert len(set(began)) == len(began) == 40


async def test_whoever_is_charged_rests_and_others_dont(autojump_clock) -> None:
    time_slices = TimeSlices()
    async with time_slices.slice("greedy", 3.0):
        time_slices.charge("greedy", 4.0)
    began = trio.current_time()
    async with time_slices.slice("modest", 1.0):
        assert trio.current_time() == began
    async with time_slices.slice("greedy", 0.0):
        assert trio.current_time() == began + 7.0


async def test_giving_up_while_resting_spares_nothing(autojump_clock) -> None:
    time_slices = TimeSlices()
    async with time_slices.slice("greedy", 5.0):
        pass
    with trio.move_on_after(1.0) as gave_up:
        async with time_slices.slice("greedy", 0.0):
            pass
    assert gave_up.cancelled_caught
    async with time_slices.slice("greedy", 0.0):
        assert trio.current_time() == 5.0


async def test_turn_is_charged_to_whom_the_task_serves(autojump_clock) -> None:
    time_slices = TimeSlices()

    async def serve(caller: str, cost: float) -> None:
        work_for(caller, time_slices)
        assert served() == (time_slices, caller)
        await turn(cost)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, "a", 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, "b", 1.0)
    assert trio.current_time() == 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, "a", 0.0)
    assert trio.current_time() == 2.0


async def test_turn_of_work_for_nobody_is_a_checkpoint(autojump_clock) -> None:
    assert served() is None
    for _ in range(3):
        await turn(100.0)
    assert trio.current_time() == 0.0
    with trio.CancelScope() as scope:
        scope.cancel()
        await turn(0.0)
    assert scope.cancelled_caught


async def test_hundreds_of_works_of_one_source_dont_keep_anothers_one_waiting() -> None:
    slices, begun = TimeSlices(), list[str]()

    async def work(source: str) -> None:
        await slices.begin(source)
        begun.append(source)

    async with trio.open_nursery() as nursery:
        for _ in range(512):
            nursery.start_soon(work, "greedy")
        for number in range(20):
            before = len(begun)
            await work("modest")
            assert begun[before:].count("greedy") <= (2 * ALONE if number == 0 else 2), "one each time round"
            await trio.lowlevel.checkpoint()
        assert begun.count("greedy") < 512, "it wasn't done before"
    assert begun.count("greedy") == 512


async def test_an_only_source_begins_many_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    slices, rounds, begun = TimeSlices(), 0, 0

    async def work() -> None:
        nonlocal begun
        await slices.begin("only")
        begun += 1

    await slices.begin("another")
    await trio.sleep(2)  # that one is no longer busy
    async with trio.open_nursery() as nursery:
        for _ in range(10 * ALONE):
            nursery.start_soon(work)
        while begun < 10 * ALONE:
            await trio.lowlevel.checkpoint()
            rounds += 1
    assert rounds <= 40


async def test_whoever_is_cancelled_while_waiting_to_begin_leaves_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slices, begun = TimeSlices(), list[int]()

    async def work(number: int) -> None:
        await slices.begin("source")
        begun.append(number)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trio.open_nursery() as cancelled:
                for number in range(3 * ALONE):
                    cancelled.start_soon(work, number)
        nursery.start_soon(work, -1)
        await trio.sleep(0.1)
    assert begun[-1] == -1
    assert len(begun) <= ALONE + 1
