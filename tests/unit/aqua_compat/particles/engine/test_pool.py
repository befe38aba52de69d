"""Steps in threads: bounded, fair between sources, and what becomes of instances that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aqua_compat.particles.engine.pool import Pool
from aqua_compat.particles.engine.steps import Outcome, Step
from aqua_compat.particles.errors import InterpreterFailed, StepInterrupted
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.settings import AquaSettings
from tests.unit.aqua_compat.particles.scripts import a_step

DONE = Outcome(ret_code=0, error="", data=b"", next_peers=[], calls={})


class Runner:
    """Runs `act(script)` for a step; the epoch is a counter."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory_bytes = 0
        world.started.append(self)

    def run(self, step: Step, max_ticks: int) -> Outcome:
        self.world.ran.append(step.script)
        until = self.world.epoch + max_ticks
        self.world.act(self, step.script)
        while step.script == "endless":
            if self.world.epoch >= until:
                raise StepInterrupted("a step took too long")
            time.sleep(0.001)
        return DONE


class World:
    def __init__(self, act: Callable[[Runner, str], None] | None = None) -> None:
        self.act = act or (lambda runner, script: None)
        self.started: list[Runner] = []
        self.ran: list[str] = []
        self.epoch = 0
        self.metrics = Metrics()

    def advance(self) -> None:
        self.epoch += 1

    @asynccontextmanager
    async def pool(self, **changes: object) -> AsyncIterator[Pool]:
        settings = AquaSettings(**{"interpreters": 1, **changes})  # type: ignore[arg-type]
        pool = Pool(lambda: Runner(self), self.advance, settings, self.metrics)
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            yield pool
            nursery.cancel_scope.cancel()


async def test_step_has_its_outcome_and_the_instance_is_used_again() -> None:
    world = World()
    async with world.pool() as pool:
        for _ in range(3):
            assert await pool.step("a", a_step("(null)")) is DONE
    assert len(world.started) == 1
    assert world.metrics.snapshot()["steps"] == 3


async def test_endless_step_is_interrupted_and_its_instance_let_go() -> None:
    world = World()
    async with world.pool(step_timeout=0.1) as pool:
        with pytest.raises(StepInterrupted):
            await pool.step("a", a_step("endless"))
        assert await pool.step("a", a_step("(null)")) is DONE
    assert len(world.started) == 2
    assert world.metrics.snapshot()["interrupted"] == 1


async def test_pool_ends_at_once_while_a_step_is_endless() -> None:
    world = World()
    began = time.monotonic()
    with trio.move_on_after(0.2):
        async with world.pool(step_timeout=60.0) as pool:
            await pool.step("a", a_step("endless"))
    assert world.ran == ["endless"]
    assert time.monotonic() - began < 5


async def test_failed_step_and_a_fault_of_ours_cost_the_instance_only() -> None:
    def act(runner: Runner, script: str) -> None:
        if script == "trap":
            raise InterpreterFailed("trapped")
        if script == "fault":
            raise RuntimeError("a fault of ours")

    world = World(act)
    async with world.pool() as pool:
        for script in ("trap", "fault"):
            with pytest.raises(InterpreterFailed):
                await pool.step("a", a_step(script))
        assert await pool.step("a", a_step("(null)")) is DONE
    assert len(world.started) == 3


async def test_instance_that_has_grown_is_replaced() -> None:
    def grow(runner: Runner, script: str) -> None:
        runner.memory_bytes += 60

    world = World(grow)
    async with world.pool(kept_memory=100) as pool:
        for _ in range(4):
            await pool.step("a", a_step("(null)"))
    assert len(world.started) == 2


async def test_who_sends_many_steps_waits_for_himself() -> None:
    may_run = threading.Event()
    world = World(lambda runner, script: may_run.wait(5) and None)
    async with world.pool() as pool, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(pool.step, "greedy", a_step(f"greedy {number}"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        for number in range(3):
            nursery.start_soon(pool.step, "modest", a_step(f"modest {number}"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        may_run.set()
    order = [script.split()[0] for script in world.ran]
    assert order.index("modest") <= 2
    assert [position for position, who in enumerate(order) if who == "modest"][-1] <= 8


async def test_who_sends_slow_steps_gets_fewer_of_them() -> None:
    def act(runner: Runner, script: str) -> None:
        until = time.thread_time() + (0.05 if script.startswith("slow") else 0.001)
        while time.thread_time() < until:
            pass

    world = World(act)
    async with world.pool() as pool, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(pool.step, "slow", a_step(f"slow {number}"))
            nursery.start_soon(pool.step, "quick", a_step(f"quick {number}"))
    order = [script.split()[0] for script in world.ran]
    assert order[:13].count("quick") == 10


async def test_step_that_nobody_waits_for_any_more_isnt_run() -> None:
    may_run = threading.Event()
    world = World(lambda runner, script: may_run.wait(5) and None)
    async with world.pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.step, "a", a_step("first"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0.05):
            await pool.step("b", a_step("given up"))
        assert world.metrics.snapshot()["waiting_steps"] == 0
        may_run.set()
    assert world.ran == ["first"]


async def test_step_that_begins_while_the_pool_ends_is_interrupted() -> None:
    """Its thread is still making the instance when all are cancelled, and sets its deadline only then."""
    world, starting, go_on = World(), threading.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def start() -> Runner:
        starting.set()
        assert go_on.wait(10)
        return Runner(world)

    def advance() -> None:
        world.advance()
        if nursery.cancel_scope.cancel_called:
            token.run_sync_soon(go_on.set)  # once those have advanced it who do so at once

    pool = Pool(start, advance, AquaSettings(interpreters=1), world.metrics)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            nursery.start_soon(pool.step, "a", a_step("endless"))
            await trio.to_thread.run_sync(starting.wait)
            nursery.cancel_scope.cancel()
    assert world.ran == ["endless"]


async def test_steps_that_are_given_up_are_not_run() -> None:
    world, entered, go_on = World(), threading.Event(), threading.Event()

    def act(runner: Runner, script: str) -> None:
        if script == "first":
            entered.set()
            assert go_on.wait(10)

    world.act = act
    async with world.pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.step, "a", a_step("first"))
        await trio.to_thread.run_sync(entered.wait)
        async with trio.open_nursery() as given_up:
            for _ in range(100):
                given_up.start_soon(pool.step, "a", a_step("given up"))
            await trio.testing.wait_all_tasks_blocked()
            given_up.cancel_scope.cancel()
        go_on.set()
        await pool.step("a", a_step("last"))
    assert world.ran == ["first", "last"]
