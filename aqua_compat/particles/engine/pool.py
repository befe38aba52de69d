"""Steps of the interpreter in threads: bounded, interrupted when they take too long, fair between sources.

A source is the peer that brought a particle: its steps run in their order, and of several sources that wait the one
that used least time lately is next. So whoever sends many or slow scripts makes nobody else wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
import trio

from aqua_compat.particles.engine.steps import Outcome, Step
from aqua_compat.particles.errors import InterpreterFailed, StepInterrupted
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.settings import AquaSettings
from overlay.tasks import Broadcast, TaskStatus

TICK: Final = 0.05  # seconds between advances of the epoch while steps run
_ENDING: Final = 0.01  # seconds between advances when all are to end
_USUAL: Final = 0.003  # seconds of a step, charged before it runs
_MOST_REMEMBERED: Final = 4096

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Runner(Protocol):
    """One instance of the interpreter."""

    def run(self, step: Step, max_ticks: int) -> Outcome:
        """Runs one step. Raises InterpreterFailed; the runner can't be used any more then."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that it holds."""
        ...


class _Job:
    __slots__ = ("done", "result", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.done = trio.Event()
        self.result: Outcome | InterpreterFailed | None = None


class Pool:
    """Use `run`. Everything but the steps themselves belongs to the Trio thread."""

    def __init__(
        self,
        start: Callable[[], Runner],
        advance: Callable[[], None],
        settings: AquaSettings,
        metrics: Metrics,
    ) -> None:
        """`start` makes an instance, in a thread; `advance` advances the epoch by which instances are interrupted."""
        self._start = start
        self._advance = advance
        self._settings = settings
        self._metrics = metrics
        self._waiting: dict[str, dict[_Job, None]] = {}  # in their order
        self._used: dict[str, float] = {}  # seconds, of sources that wait or are ahead of those that do
        self._floor = 0.0
        self._work = Broadcast()
        self._running = 0
        self._began = Broadcast()
        metrics.gauge("waiting_steps", lambda: sum(map(len, self._waiting.values())))
        self._max_ticks = math.ceil(settings.step_timeout / TICK) + 1

    async def step(self, source: str, step: Step) -> Outcome:
        """Runs a step as soon as the shares of sources let it. Raises InterpreterFailed."""
        job = _Job(step)
        waiting = self._waiting.get(source)
        if waiting is None:
            waiting = self._waiting[source] = {}
            self._used[source] = max(self._used.get(source, 0.0), self._floor)
        waiting[job] = None
        self._work.send()
        try:
            await job.done.wait()
        finally:
            if job in self._waiting.get(source, ()):
                del self._waiting[source][job]
                self._forget_if_idle(source)
        if isinstance(job.result, InterpreterFailed):
            raise job.result
        assert job.result is not None
        return job.result

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs steps until cancelled; those under way are interrupted then."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._settings.interpreters):
                nursery.start_soon(self._run_steps)
            nursery.start_soon(self._tick)
            task_status.started()

    async def _tick(self) -> None:
        try:
            while True:
                while not self._running:
                    await self._began.wait()
                await trio.sleep(TICK)
                self._advance()
        finally:  # so that threads end, which can't be cancelled; one that is just starting sets its deadline yet
            with trio.CancelScope(shield=True):
                while self._running:
                    for _ in range(self._max_ticks + 1):
                        self._advance()
                    await trio.sleep(_ENDING)

    async def _run_steps(self) -> None:
        runner: Runner | None = None
        while True:
            source, job = await self._next()
            self._running += 1
            self._began.send()
            try:
                runner, job.result, spent = await trio.to_thread.run_sync(self._run_one, runner, job.step)
            finally:
                self._running -= 1
            if source in self._used:
                self._used[source] += spent - _USUAL
            self._metrics.note_step(spent)
            if isinstance(job.result, StepInterrupted):
                self._metrics.count("interrupted")
                log.warning("a script's step was interrupted", source=source, particle=job.step.particle_id)
            elif isinstance(job.result, InterpreterFailed):
                self._metrics.count("failed steps")
                log.debug("a script's step failed", source=source, error=str(job.result))
            job.done.set()

    def _run_one(self, runner: Runner | None, step: Step) -> tuple[Runner | None, Outcome | InterpreterFailed, float]:
        """In a thread: the runner for the next step, what came of this one, and the seconds of CPU that it took.

        An instance that failed, or has grown too large, is let go.
        """
        began = time.thread_time()
        left, result = self._outcome_of(runner, step)
        return left, result, time.thread_time() - began

    def _outcome_of(self, runner: Runner | None, step: Step) -> tuple[Runner | None, Outcome | InterpreterFailed]:
        try:
            runner = runner or self._start()
            outcome = runner.run(step, self._max_ticks)
        except InterpreterFailed as error:
            return None, error
        except Exception as error:  # raised on, it would end the node
            log.exception("the interpreter failed", particle=step.particle_id)
            return None, InterpreterFailed(repr(error)[:200])
        return (runner if runner.memory_bytes <= self._settings.kept_memory else None), outcome

    async def _next(self) -> tuple[str, _Job]:
        while not self._waiting:
            await self._work.wait()
        source = min(self._waiting, key=lambda waiting: self._used[waiting])
        job = next(iter(self._waiting[source]))
        del self._waiting[source][job]
        self._floor = max(self._floor, self._used[source])
        self._used[source] += _USUAL
        self._forget_if_idle(source)
        return source, job

    def _forget_if_idle(self, source: str) -> None:
        if self._waiting[source]:
            return
        del self._waiting[source]
        if len(self._used) > _MOST_REMEMBERED:
            self._used = {
                known: used for known, used in self._used.items() if known in self._waiting or used > self._floor
            }
