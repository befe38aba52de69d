"""A host's side: takes what providers say of their services, keeps their times to live on disk, and tells its presence.

What is said of a service whose record is this peer's own needs no signature; all else comes as a report that the
record's issuer signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import trio
from cachetools import TTLCache

from overlay.errors import Refusal
from overlay.limits.token_bucket import TokenBuckets
from overlay.tasks import TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue, RegistryError, StorageError
from registry.health.exceptions import MOST_LISTED
from registry.health.hosted import HostedHealth, Instant
from registry.health.messages import (
    EXCEPTIONS,
    REPORT_HEALTH,
    ExceptionsBody,
    ExceptionsPage,
    ReportAnswer,
    ReportBody,
)
from registry.health.report import HealthReport, decode_report, report_is_genuine
from registry.health.state import Health, HealthState, HostedService
from registry.model.endpoints import named_in
from registry.model.values import Record, Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import build, parse
from registry.protocol.network import Clock, Network
from registry.protocol.presence import PresenceNetwork
from registry.settings import RegistrySettings
from registry.storage import Change, Store

_REMEMBERED: Final = 65_536  # services whose last report's time is remembered: after that a repeated one is too old

_SHOWN: Final = 8  # instances that are told of to who names another one

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HostHealth:
    """How the services are that this peer hosts. `run` owns the task."""

    def __init__(
        self,
        network: Network,
        store: Store,
        settings: RegistrySettings,
        clock: Clock,
        presence: PresenceNetwork | None = None,
    ) -> None:
        """`presence`: what carries the word to others; None where there is none, and all counts as passing there.
        `clock`: the time by which reports are judged."""
        self._host = network.peer_id
        self._store = store
        self._settings = settings
        self._clock = clock
        self._presence = presence
        self._hosted = HostedHealth(self._host, settings.health, settings.hosting.issuers)
        self._exempt = frozenset((self._host, *settings.hosting.issuers))
        self._rates = TokenBuckets(settings.health.rate, settings.health.burst)
        self._last: TTLCache[HostedService, int] = TTLCache(
            _REMEMBERED, 2 * settings.clock_skew + 60, timer=trio.current_time
        )
        self._restored = trio.Event()
        self._changed = Wakeup()
        self._callbacks: list[Callable[[], None]] = []
        self._ended: list[tuple[str, str, str]] = []
        network.serve(REPORT_HEALTH, self._serve_report, relayed=True)
        network.serve(EXCEPTIONS, self._serve_exceptions, relayed=True)
        store.on_commit(self._note_commit)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Has `callback` called, synchronously, when what this peer tells of its services changes."""
        self._callbacks.append(callback)

    def health_of(self, slot: Slot, instance: str = "") -> Health:
        """How a service is that this peer hosts. Raises InvalidValue for what is no instance's id."""
        return self._hosted.health_of(HostedService.of(slot, instance))

    async def report(
        self,
        slot: Slot,
        instance: str = "",
        state: HealthState | None = None,
        note: str = "",
        ttl: float | None = None,
        *,
        is_registered: bool = True,
    ) -> None:
        """This process says how its service in a slot of this peer is; fields as in `HealthReport`.

        `is_registered`: whether the record has to be there already. Raises RegistryError.
        """
        service = HostedService.of(slot, instance)
        await self._restored.wait()
        if is_registered:
            await self._check_hosted(slot, service, is_end=_is_end(state, ttl))
        await self._apply(service, state, note, ttl)

    async def take(self, report: HealthReport) -> None:
        """Has a report count that a record's issuer signed. Raises RegistryError."""
        await self._restored.wait()
        if report.peer_id != self._host:
            raise HostingRefused(f"the report is for {report.peer_id}, this is {self._host}")
        await self._check_hosted(report.slot, report.service, is_end=_is_end(report.state, report.ttl))
        off = report.time / 1000 - self._clock()
        if abs(off) > self._settings.clock_skew:
            raise HostingRefused(f"the report's time is {off:.0f} s off this peer's", code=Code.CLOCK)
        if not report_is_genuine(report):
            raise InvalidValue(f"the report isn't signed by {report.issued_by}")
        last = self._last.get(report.service, -1)
        if report.time == last:
            return  # asked again, for instance after an answer was lost
        if report.time < last:
            raise HostingRefused("a later report of the service came already", code=Code.NEWER_STATE_EXISTS)
        now = trio.current_time()
        if report.issued_by not in self._exempt and not self._rates.take(report.issued_by, now):
            wait = self._rates.wait(report.issued_by, now)
            raise HostingRefused(
                f"too many reports by {report.issued_by}; come back in {wait:.1f} s",
                code=Code.RATE_EXCEEDED,
                retry_after=wait,
            )
        state = None if report.state is None else HealthState(report.state)
        await self._apply(report.service, state, report.note, report.ttl)
        self._last[report.service] = report.time

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Restores times to live from the disk, then lets time pass and tells changes, until cancelled."""
        await self._restore()
        self._restored.set()
        task_status.started()
        self._hosted.wake(self._at())
        self._tell_presence()
        while True:
            if self._ended:
                await self._drop_ended()
            with trio.move_on_at(self._hosted.wake_at):
                await self._changed.wait()
            self._hosted.wake(self._at())
            self._tell_presence()
            for callback in self._callbacks:
                callback()

    def _tell_presence(self) -> None:
        told = self._hosted.to_tell(self._at())
        if told is not None and self._presence is not None:
            self._presence.note_exceptions(told)

    async def _restore(self) -> None:
        try:
            await self._store.write(lambda transaction: transaction.health_ttls.drop_unhosted(self._host))
            ttls = await self._store.read(
                lambda transaction: transaction.health_ttls.of_hosted(self._host, MOST_LISTED)
            )
        except StorageError as error:
            _log.error("the times to live of services can't be read", error=str(error))
            return
        self._hosted.restore({HostedService(*row): ttl for row, ttl in ttls.items()}, self._at())

    async def _apply(self, service: HostedService, state: HealthState | None, note: str, ttl: float | None) -> None:
        if ttl == 0 and state is None and service not in self._hosted:
            return  # nothing to end: so it is with most registrations, of which nobody needs to hear
        at = self._at()
        had_ttl = self._hosted.ttl_of(service)
        if ttl is not None:
            self._hosted.set_ttl(service, ttl, at)
        if state is not None:
            self._hosted.set(service, state, note, at)
        self._changed.set()
        if ttl is None or self._hosted.ttl_of(service) == had_ttl:
            return
        if ttl:
            self._ended = [row for row in self._ended if row != service]  # it begins anew
            await self._store.write(lambda transaction: transaction.health_ttls.put(service, ttl))
        else:
            await self._store.write(lambda transaction: transaction.health_ttls.drop([service]))

    async def _check_hosted(self, slot: Slot, service: HostedService, *, is_end: bool) -> None:
        """`is_end`: whether what is said of a service ends what was said of it before, if anything was: that may be
        said of an instance that the record doesn't name any more."""
        state = (await self._store.resource(slot.key_id)).slots.get(slot)
        if not isinstance(state, Record):
            raise HostingRefused(f"nothing is registered here by {slot.issued_by} on the resource {slot.key_id}")
        if not service.instance or (is_end and service in self._hosted):
            return
        named = named_in(state.metadata.value)
        if service.instance not in named:
            raise HostingRefused(_unknown_instance(service.instance, named), code=Code.INSTANCE_UNKNOWN)

    def _note_commit(self, changes: Mapping[str, Change]) -> None:
        for change in changes.values():
            for slot, state in change.slots.items():
                if slot.peer_id == self._host and not isinstance(state, Record):
                    self._ended += self._hosted.forget_slot(slot.key_id, slot.issued_by, self._at())
        if self._ended:
            self._changed.set()

    async def _drop_ended(self) -> None:
        ended, self._ended = self._ended, []
        try:
            await self._store.write(lambda transaction: transaction.health_ttls.drop(ended))
        except StorageError as error:  # dropped at the next start
            _log.warning("the times to live of ended services stay on disk", error=str(error))

    def _at(self) -> Instant:
        return Instant(trio.current_time(), self._clock())

    async def _serve_report(self, caller: str, body: object) -> object:  # noqa: ARG002 - the issuer's signature counts
        try:
            await self.take(decode_report(parse(body, ReportBody).report))
        except RegistryError as error:
            info = ErrorInfo.of(error)
            raise Refusal(info.code, info.text, error.retry_after) from error
        return build(ReportAnswer())

    async def _serve_exceptions(self, caller: str, body: object) -> object:  # noqa: ARG002 - anyone may know
        try:
            after = parse(body, ExceptionsBody).service
        except InvalidValue as error:
            raise Refusal(error.code, str(error)) from error
        await self._restored.wait()
        entries, _ = self._hosted.exceptions.page(after)
        return build(ExceptionsPage(self._hosted.exceptions.digest(), tuple(entries)))


def _is_end(state: int | None, ttl: float | None) -> bool:
    return state in (None, HealthState.PASSING) and not ttl


def _unknown_instance(instance: str, named: Sequence[str]) -> str:
    if not named:
        return f"the record names no instances, and so none {instance!r}: say it of the record, without an instance"
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"the record names no instance {instance!r}; there are: {', '.join(named[:_SHOWN])}{more}"
