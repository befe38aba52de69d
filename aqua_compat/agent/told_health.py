"""Has others know what the checks say: tells the host of each record how its instances are.

Rules:
1. A record whose instances are checked has a time to live at its host. So it is critical from the moment when it is
   registered until it was told here how its instances are, and again when this agent doesn't tell any more.
2. Each instance is as its worst check, and the record as its best instance; of the only one nothing is told beside.
3. What changes is told at once; what couldn't be told is tried again.
4. An instance that isn't of the record any more passes again, as all do of which nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog
import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from overlay.tasks import Wakeup
from registry.client.results import Done
from registry.health.state import HealthState

TTL: Final = 120.0
"""Seconds for which a host believes that a record is as it was told: after that its agent stands still."""
TOLD_EVERY: Final = TTL / 3
FIRST_RETRY: Final = 0.5  # seconds
LONGEST_RETRY: Final = 5.0

_PASSING: Final = CheckResult(CheckState.PASSING)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Report(Protocol):
    """Says how an instance of a record is, or the record itself where `instance` is empty."""

    async def __call__(self, key_id: str, state: HealthState, note: str, *, instance: str) -> Done:
        """A success once the host has it."""
        ...


class _ToldRecord:
    """A record that is registered: its instances by id, with the service of each, and what its host was told."""

    def __init__(self, services: Mapping[str, str], told: dict[str, CheckResult], *, is_checked: bool) -> None:
        self.services = services
        self.told = told
        """By instance, of those that don't pass; empty is the record."""
        self.is_checked = is_checked
        self.again_at = 0.0 if is_checked else math.inf
        """When its time to live has to be renewed."""

    def wanted(self, of_instance: Callable[[str, str], CheckResult | None]) -> dict[str, CheckResult]:
        """What its host has to know, the record last."""
        states = {
            instance: self.told.get(instance, self.told.get("", _PASSING)) if result is None else _told_as(result)
            for instance, service in self.services.items()
            for result in (of_instance(service, instance),)
        }
        wanted = dict.fromkeys(self.told.keys() - {""} - states.keys(), _PASSING)
        if len(states) > 1:
            wanted |= states
        elif states:
            wanted |= {one: _PASSING for one in states if one in self.told}
        if self.is_checked:
            wanted[""] = min(states.values(), key=lambda result: result.state, default=_PASSING)
        return wanted


class HealthTeller:
    """Tells hosts how the instances are.

    `of_instance`: by the ids of service and instance, what its checks say; None where that stays as it was told, as of
    one whose record is about to end.
    """

    def __init__(self, report: Report, of_instance: Callable[[str, str], CheckResult | None]) -> None:
        self._report = report
        self._of_instance = of_instance
        self._records: dict[str, _ToldRecord] = {}
        self._changed = Wakeup()

    def begin(self, key_id: str, services: Mapping[str, str], *, is_checked: bool) -> None:
        """A record is at its host, with these instances: their services by their ids. `is_checked`: whether any of
        them is, so that the record was registered with a time to live."""
        before = self._records.get(key_id)
        told = {} if before is None else before.told
        told.pop("", None)  # registering anew may have ended it
        self._records[key_id] = _ToldRecord(services, told, is_checked=is_checked)
        self._changed.set()

    def end(self, key_id: str) -> None:
        """A record isn't there any more, nor what was said of it."""
        self._records.pop(key_id, None)

    def note_change(self) -> None:
        """What a check says has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Tells hosts what checks say, until cancelled."""
        retry = FIRST_RETRY
        while True:
            self._changed.clear()
            is_told = True
            for key_id, record in list(self._records.items()):
                is_told &= await self._tell(key_id, record)
            retry = FIRST_RETRY if is_told else min(retry * 2, LONGEST_RETRY)
            again_at = min((record.again_at for record in self._records.values()), default=math.inf)
            with trio.move_on_at(again_at if is_told else trio.current_time() + retry):
                await self._changed.wait()

    async def _tell(self, key_id: str, record: _ToldRecord) -> bool:
        """Tells what the host of a record doesn't know yet. False where it couldn't be told."""
        for instance, result in record.wanted(self._of_instance).items():
            is_due = not instance and trio.current_time() >= record.again_at
            if record.told.get(instance, _PASSING) == result and not is_due:
                continue
            if not await self._said(key_id, result, instance):
                return False
            if result is _PASSING:
                record.told.pop(instance, None)
            else:
                record.told[instance] = result
            if not instance:
                record.again_at = trio.current_time() + TOLD_EVERY
        return True

    async def _said(self, key_id: str, result: CheckResult, instance: str) -> bool:
        done = await self._report(key_id, HealthState(result.state), result.note, instance=instance)
        if not done.success:
            _log.debug("the health of a service isn't told yet", key_id=key_id, errors=list(done.errors))
        return done.success


def _told_as(result: CheckResult) -> CheckResult:
    """Of what passes no note is told: checks put figures into it, new ones each time."""
    return _PASSING if result.state is CheckState.PASSING else result
