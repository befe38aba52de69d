"""Runs one action again and again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from registry.errors import RegistryError
from registry.protocol.network import Clock

Action = Callable[[], Awaitable[str]]
"""Does what a schedule is for, once, and says in words what it did. Raises RegistryError."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ScheduleStatus(msgspec.Struct, frozen=True):
    """Tells how a schedule's runs went.

    `period` and `duration` (of the last run) in seconds, `last_run` in seconds since 1970, 0 for never; `did` says what
    the last run did, or why it failed.
    """

    name: str
    period: float
    runs: int
    last_run: int
    duration: float
    did: str


class Schedule:
    """Runs `action`, which returns what it did in words, first after `delay` seconds, then every `period`, each time
    earlier by up to `jitter` of that, so that nodes don't act at once."""

    def __init__(
        self,
        name: str,
        action: Action,
        *,
        delay: float,
        period: float,
        jitter: float,
        clock: Clock,
        randomness: random.Random,
    ) -> None:
        self.name = name
        self._action = action
        self._delay = delay
        self._period = period
        self._jitter = jitter
        self._clock = clock
        self._random = randomness
        self._running = trio.Lock()
        self._status = ScheduleStatus(name, period, 0, 0, 0.0, "")

    def status(self) -> ScheduleStatus:
        """How the last run went."""
        return self._status

    async def run_now(self) -> ScheduleStatus:
        """Runs the action once, by hand; never raises for what peers or the disk do. One run at a time."""
        async with self._running:
            began, started = int(self._clock()), trio.current_time()
            try:
                did = await self._action()
            except RegistryError as error:
                did = f"failed: {error}"
                _log.error("a scheduled run failed", schedule=self.name, error=str(error))
            except Exception as error:  # of one run; raised on, it would end the node
                did = f"failed: {type(error).__name__}"
                _log.exception("a scheduled run failed", schedule=self.name)
            duration = round(trio.current_time() - started, 3)
            self._status = ScheduleStatus(self.name, self._period, self._status.runs + 1, began, duration, did)
            _log.info("a schedule ran", schedule=self.name, did=did, seconds=duration)
            return self._status

    async def run(self) -> None:
        """Keeps the schedule until cancelled."""
        await trio.sleep(self._delay)
        while True:
            await self.run_now()
            await trio.sleep(self._period * (1 - self._jitter * self._random.random()))
