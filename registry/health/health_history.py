"""What this peer saw of hosts lately: when each went down and came up, and how the services on it changed.

1. What changes is kept, from when this process began: a host that was up all the time, and all of whose services pass,
   takes no place. Of a service its state counts, not its note.
2. A host that is down, or a service that doesn't pass, when it is first heard of counts as changed then. One of which
   nobody heard for a while isn't said to have come up: it may have been up for long.
3. Of a host whose list of services isn't at hand, before or after a change, nothing is told of the difference.
4. `MOST_OF_HOST` changes of a host are kept, `MOST_CHANGES` of `MOST_HOSTS` hosts together: the oldest give way, and
   the host whose last change is the oldest.

Pure: what is heard and the time come in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec import Struct, field

from registry.health.state import PASSING, Health, HostedService
from registry.model.history import DOWN, UP, HistoryEvent, of_host, of_slot
from registry.model.values import Slot
from registry.protocol.presence import HostStanding

MOST_OF_HOST: Final = 128
MOST_HOSTS: Final = 1024
MOST_CHANGES: Final = 16_384
"""Each takes 700 bytes at most, with a long note."""

ServicesOf = Callable[[str, bytes], Mapping[HostedService, Health] | None]
"""The services that a host says don't pass, by what its presence tells; None where that isn't known."""


class _HostChange(Struct, frozen=True):
    at: float
    is_up: bool
    why: str


class _ServiceChange(Struct, frozen=True):
    at: float
    service: HostedService
    health: Health


class _Seen(Struct):
    """One host: what was last heard of it, and what changed."""

    is_up: bool = True
    told: bytes = b""
    changes: deque[_HostChange | _ServiceChange] = field(default_factory=lambda: deque(maxlen=MOST_OF_HOST))


class HealthHistory:
    """All of them. Times are seconds of a clock that only goes forward, until they are told."""

    def __init__(self, services_of: ServicesOf) -> None:
        self._services_of = services_of
        self._hosts: dict[str, _Seen] = {}  # the one whose last change is the oldest first
        self._count = 0

    def __len__(self) -> int:
        """How many changes are kept."""
        return self._count

    def note(self, standing: HostStanding, now: float) -> None:
        """What is known of a host now, which may be what was known before."""
        host = standing.peer_id
        seen = self._hosts.get(host) or _Seen()
        changes: list[_HostChange | _ServiceChange] = [*_changed_standing(seen, standing, now)]
        changes += self._changed_services(host, seen, standing.exceptions, now)
        if not changes:
            return
        before = len(seen.changes)
        seen.changes.extend(changes)
        self._hosts.pop(host, None)
        self._hosts[host] = seen
        self._count += len(seen.changes) - before
        while self._count > MOST_CHANGES or len(self._hosts) > MOST_HOSTS:
            self._count -= len(self._hosts.pop(next(iter(self._hosts))).changes)

    def events_of(
        self, key_id: str, hosts: Collection[str], now: float, time: float, present: Collection[HistoryEvent]
    ) -> list[HistoryEvent]:
        """What changed of a resource's hosts and services, oldest first, at `now` and at `time` (seconds since 1970).

        `present`: what is told as being so now. A change after which nothing else came isn't told beside it.
        """
        down = {event.peer_id for event in present if event.what == DOWN}
        told = {(event.issued_by, event.peer_id, event.what, event.detail) for event in present}
        events: list[HistoryEvent] = []
        for host, seen in self._hosts.items():
            has_later: set[HostedService | None] = set()  # None for the host itself
            for change in reversed(seen.changes):
                subject = change.service if isinstance(change, _ServiceChange) else None
                is_last = subject not in has_later
                has_later.add(subject)
                at = int(max(time - (now - change.at), 0.0))
                if isinstance(change, _HostChange):
                    if host in hosts and not (is_last and not change.is_up and host in down):
                        events.append(of_host(key_id, host, UP if change.is_up else DOWN, at, change.why))
                elif change.service.key_id == key_id:
                    slot = Slot(key_id, change.service.issued_by, host)
                    event = event_of_service(slot, change.service.instance, change.health, at)
                    same = {(*slot[1:], event.what, text) for text in (event.detail, change.health.note)}
                    if not (is_last and same & told):
                        events.append(event)
        events.reverse()  # now in their order, where several happened in the same second
        return sorted(events, key=lambda event: event.time)

    def _changed_services(self, host: str, seen: _Seen, told: bytes, now: float) -> list[_ServiceChange]:
        if told == seen.told:
            return []
        after = self._services_of(host, told)
        if after is None:
            return []  # until its list was read
        before = self._services_of(host, seen.told)
        seen.told = told
        if before is None:
            return []
        changed = [
            service
            for service in {*before, *after}
            if after.get(service, PASSING).state is not before.get(service, PASSING).state
        ]
        return [_ServiceChange(now, service, after.get(service, PASSING)) for service in sorted(changed)]


def why_down(accusers: Collection[str], *, has_left: bool) -> str:
    """By whose word a host is down."""
    if has_left:
        return "the host stopped by its own word"
    say = "says" if len(accusers) == 1 else "say"
    return "the host isn't there, as " + (f"{' and '.join(accusers)} {say}" if accusers else "this node found")


def event_of_service(slot: Slot, instance: str, health: Health, now: int) -> HistoryEvent:
    """That a service is so, since its host says so, at `now` (seconds) at the latest."""
    detail = f"instance {instance}" + (f": {health.note}" if health.note else "") if instance else health.note
    return of_slot(slot, str(health.state), min(health.since or now, now), detail)


def _changed_standing(seen: _Seen, standing: HostStanding, now: float) -> list[_HostChange]:
    if standing.is_up == seen.is_up:
        return []
    seen.is_up = standing.is_up
    if standing.is_up:
        is_seen = math.isfinite(standing.since)
        return [_HostChange(now - standing.since, True, "the host is there again")] if is_seen else []
    at = now - (standing.since if math.isfinite(standing.since) else 0.0)
    return [_HostChange(at, False, why_down(standing.accusers, has_left=standing.has_left))]
