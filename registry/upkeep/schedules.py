"""Keeps the three schedules of a node, under the original's names (its `registry-scheduled-scripts`)."""

from __future__ import annotations

import random
from typing import Final

import trio

from overlay.tasks import TaskStatus
from registry.errors import InvalidValue, StorageError
from registry.protocol.network import Clock
from registry.replication import ReplicationScheduler
from registry.service import RegistryService
from registry.settings import UpkeepSettings
from registry.storage import Store
from registry.upkeep.schedule import Action, Schedule, ScheduleStatus

CLEAR_EXPIRED: Final = "clearExpired_86400"
REPLICATE: Final = "replicate_3600"
RENEW: Final = "renew_43200"
FIRST_AFTER: Final = 60.0  # seconds at most: when this ran last, before a restart, isn't known


class Schedules:
    """Runs the schedules; each can be run by hand as well."""

    def __init__(
        self,
        service: RegistryService,
        store: Store,
        replication: ReplicationScheduler,
        renew: Action,
        settings: UpkeepSettings,
        clock: Clock,
        randomness: random.Random,
    ) -> None:
        """`renew` signs anew what this node hosts and owns."""
        self._service = service
        self._store = store
        self._replication = replication
        self._clock = clock
        early = randomness.uniform(0.5, 1.0)
        self._schedules = {
            name: Schedule(
                name,
                action,
                delay=delay * early,
                period=period,
                jitter=settings.jitter,
                clock=clock,
                randomness=randomness,
            )
            for name, action, delay, period in (
                (CLEAR_EXPIRED, self._clear_expired, min(settings.clear_expired, FIRST_AFTER), settings.clear_expired),
                (REPLICATE, self._replicate, settings.replicate, settings.replicate),
                (RENEW, renew, min(settings.renew, FIRST_AFTER), settings.renew),
            )
        }

    def status(self) -> tuple[ScheduleStatus, ...]:
        """How the last run of each went."""
        return tuple(schedule.status() for schedule in self._schedules.values())

    async def run_now(self, name: str) -> ScheduleStatus:
        """Runs one by hand. Raises InvalidValue for an unknown name."""
        if name not in self._schedules:
            raise InvalidValue(f"no schedule {name}; there are {', '.join(self._schedules)}")
        return await self._schedules[name].run_now()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the schedules until cancelled."""
        async with trio.open_nursery() as nursery:
            for schedule in self._schedules.values():
                nursery.start_soon(schedule.run)
            task_status.started()

    async def _clear_expired(self) -> str:
        result = await self._service.clear_expired(int(self._clock()))
        if not result.success:
            raise StorageError(result.error)
        freed = await self._store.vacuum()
        return (
            f"keys {result.count_keys}, records {result.count_records}, tombstones {result.count_tombstones}, "
            f"{freed} bytes given back"
        )

    async def _replicate(self) -> str:
        return f"{await self._replication.replicate()} comparisons"
