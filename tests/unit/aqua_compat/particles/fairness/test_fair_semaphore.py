"""Places for what waits for other peers: bounded for all and for each source, free ones to whom holds fewest."""

from __future__ import annotations

from collections import Counter

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls.host_calls import Tetraplets, in_places
from tests.unit.aqua_compat.particles.scripts import a_holding, a_particle


class Crowd:
    """Who holds places, and in which order they got them."""

    def __init__(self, places: FairSemaphore) -> None:
        self.places = places
        self.held: Counter[str] = Counter()
        self.order: list[str] = []

    async def hold(self, source: str, seconds: float, patience: float = 1e6) -> None:
        with trio.move_on_after(patience):
            async with self.places.place(source):
                self.held[source] += 1
                self.order.append(source)
                try:
                    await trio.sleep(seconds)
                finally:
                    self.held[source] -= 1


async def test_one_source_leaves_places_to_others(autojump_clock) -> None:
    crowd = Crowd(FairSemaphore(8, 2))
    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(crowd.hold, "greedy", 5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert crowd.held == {"greedy": 2}
        with trio.fail_after(0.1):
            await crowd.hold("modest", 0.0)
        nursery.cancel_scope.cancel()
    assert crowd.places.are_idle


async def test_free_place_goes_to_the_source_that_holds_fewest(autojump_clock) -> None:
    crowd = Crowd(FairSemaphore(4, 3))
    async with trio.open_nursery() as nursery:
        for source, seconds in (("a", 1.0), ("a", 2.0), ("b", 3.0), ("b", 9.0), ("a", 9.0), ("b", 9.0), ("c", 9.0)):
            nursery.start_soon(crowd.hold, source, seconds)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3.5)
        assert crowd.order == ["a", "a", "b", "b", "c", "a", "b"]
        nursery.cancel_scope.cancel()


async def test_sources_that_hold_as_many_get_places_in_turn(autojump_clock) -> None:
    crowd = Crowd(FairSemaphore(1, 1))
    sources = ["first", "second", "third", "fourth"]
    async with trio.open_nursery() as nursery:
        for source in sources:
            for _ in range(2):
                nursery.start_soon(crowd.hold, source, 1.0)
            await trio.testing.wait_all_tasks_blocked()
    assert crowd.order == sources * 2


async def test_whoever_gives_up_waiting_loses_nobody_a_place(autojump_clock) -> None:
    crowd = Crowd(FairSemaphore(1, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.hold, "a", 2.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(crowd.hold, "b", 1.0, 1.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(crowd.hold, "c", 1.0)
    assert crowd.order == ["a", "c"]
    assert crowd.places.are_idle


async def test_place_of_who_is_cancelled_while_getting_it_goes_to_who_waits(autojump_clock) -> None:
    crowd = Crowd(FairSemaphore(1, 1))
    for _ in range(20):  # either may be first
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crowd.hold, "cancelled", 0.0, 0.0)
                nursery.start_soon(crowd.hold, "waiting", 0.0)
    assert crowd.order == ["waiting"] * 20
    assert crowd.places.are_idle


async def test_builtins_that_ask_others_leave_places_to_those_of_other_peers_particles(autojump_clock) -> None:
    places = FairSemaphore(64, 16)
    running: Counter[str] = Counter()

    async def slow(context: Context, arguments: list[object], tetraplets: Tetraplets) -> object:
        running[context.source] += 1
        await trio.sleep(5)
        return None

    call = in_places(slow, places)
    greedy, modest = (Context(a_particle(), source, 1e6, a_holding()) for source in ("greedy", "modest"))
    async with trio.open_nursery() as nursery:
        for _ in range(1024):
            nursery.start_soon(call, greedy, [], [])
        await trio.testing.wait_all_tasks_blocked()
        assert running == {"greedy": 16}
        with trio.fail_after(5.1):
            await call(modest, [], [])
        nursery.cancel_scope.cancel()


MOMENTS = st.integers(0, 8).map(float)
WANTS = st.lists(st.tuples(st.sampled_from("abcd"), MOMENTS, MOMENTS, MOMENTS), max_size=30)


@given(WANTS, st.integers(1, 4), st.integers(1, 4))
def test_places_are_never_exceeded_nor_lost(
    wants: list[tuple[str, float, float, float]], most: int, most_per_source: int
) -> None:
    async def run() -> None:
        crowd = Crowd(FairSemaphore(most, most_per_source))

        async def want(source: str, at: float, seconds: float, patience: float) -> None:
            await trio.sleep(at)
            await crowd.hold(source, seconds, patience)

        async def watch() -> None:
            while True:
                await trio.sleep(0.5)
                await trio.testing.wait_all_tasks_blocked()
                assert crowd.held.total() <= most
                assert all(number <= most_per_source for number in crowd.held.values())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as wanting:
                for one in wants:
                    wanting.start_soon(want, *one)
            nursery.cancel_scope.cancel()
        assert crowd.places.are_idle
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for number in range(most):
                    nursery.start_soon(crowd.hold, f"new {number}", 0.5)
                await trio.testing.wait_all_tasks_blocked()
                assert crowd.held.total() == most

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
