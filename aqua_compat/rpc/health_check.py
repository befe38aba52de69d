"""Checks a provided service again and again, and says how it is.

1. The first check is made when the service is registered: until it is done, the service is critical.
2. A check passes that returns nothing or True. It says otherwise by a state, or a state and a note; False is critical,
   and so is what it raises, what it returns that is none of these, and one that takes too long.
3. The next check begins `every` seconds after the one before, or when that one ends.
4. The service has a time to live somewhat beyond that: it turns critical by itself when checks aren't made any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from overlay.tasks import in_thread
from registry.errors import InvalidValue
from registry.health.state import HealthState

if TYPE_CHECKING:
    from registry.client.registry import Registry

Check = Callable[[], object | Awaitable[object]]
"""Async, or sync and run in a thread; see the rules above."""

EVERY: Final = 5.0  # seconds between two checks, unless told
SHORTEST: Final = 0.1  # seconds between two checks at least
SLACK: Final = 2.0  # seconds that a program may stand still beyond its checks' time before its services are critical

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def said_by(result: object) -> tuple[HealthState, str]:
    """The state and note that a check's result means."""
    match result:
        case None | True:
            return HealthState.PASSING, ""
        case False:
            return HealthState.CRITICAL, "the check returned False"
        case HealthState() | str():
            return said_by((result, ""))
        case (HealthState() | str() as state, str() as note):
            try:
                named = HealthState.named(str(state))
            except InvalidValue as error:
                return HealthState.CRITICAL, f"the check returned what it can't: {error}"
            return named, note
        case _:
            return HealthState.CRITICAL, f"the check returned {type(result).__name__}, which is no state"


class HealthCheck:
    """The check of one service that runs on this peer."""

    def __init__(self, check: Check | None, every: float) -> None:
        """`check`: None passes as long as this program runs. Raises ValueError for an `every` that is too short."""
        if not every >= SHORTEST:
            raise ValueError(f"every {every:g} s is too often: {SHORTEST:g} s at least")
        self._check = check
        self._every = every
        self._thread = trio.CapacityLimiter(1)  # one that hangs keeps its thread, and takes no others

    @property
    def timeout(self) -> float:
        """Seconds that a check may take."""
        return self._every

    @property
    def ttl(self) -> float:
        """The time to live of the service, in seconds."""
        return self._every + self.timeout + SLACK

    async def run(self, registry: Registry, resource_id: str) -> None:
        """Checks, and says what came of it, until cancelled."""
        while True:
            began = trio.current_time()
            state, note = await self.once()
            done = await registry.report_health(resource_id, state, note)
            if not done.success:  # such as after the owner removed the resource
                _log.debug("the health of a service wasn't reported", key_id=resource_id, errors=done.errors)
            await trio.sleep_until(began + self._every)

    async def once(self) -> tuple[HealthState, str]:
        """Checks once."""
        if self._check is None:
            return HealthState.PASSING, ""
        try:
            with trio.fail_after(self.timeout):
                return said_by(await self._result(self._check))
        except trio.TooSlowError:
            return HealthState.CRITICAL, f"the check took longer than {self.timeout:g} s"
        except Exception as error:
            return HealthState.CRITICAL, f"{type(error).__name__}: {error}"

    async def _result(self, check: Check) -> Any:
        if iscoroutinefunction(check):
            return await check()
        result = await in_thread(check, limiter=self._thread)
        return await result if isawaitable(result) else result
