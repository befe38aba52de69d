"""What a host knows of the services that it hosts, and when it tells it.

1. A service of which nobody said anything passes.
2. A state without a time to live lasts until another one is said, or the host ends.
3. A service with a time to live is as its provider said last, for as long; then it is critical. It is critical, too,
   from when the time to live is given until its provider says something, and again from a restart of the host on.
4. A change is told at once, a burst of them together: then `TOLD_RATE` times a second. A note that changes while the
   state doesn't is told with the next change, or after `NOTE_PAUSE`.
5. Who isn't exempt is bound by quotas, for itself and all together; in all there are `MOST_LISTED` services.

Pure: what happens and the time come in; `to_tell` and `wake_at` say what there is to do.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from overlay.limits.token_bucket import TokenBuckets
from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue
from registry.health.exceptions import MOST_BYTES, MOST_LISTED, ExceptionList
from registry.health.state import PASSING, Health, HealthState, HostedService
from registry.settings import HealthLimits

TOLD_RATE: Final = 1.0
"""How often a second the presence changes for health at most, after a burst: each version is signed and sent to 8."""
TOLD_BURST: Final = 4.0
NOTE_PAUSE: Final = 10.0
"""Seconds that a new note of the same state waits: checks put figures into their notes, new ones each time."""

_SPARE: Final = 64
_SHORTEST: Final = 0.01  # seconds: shorter waits, such as sums that are a bit off, would go on for ever

NOT_HEARD: Final = "its provider has yet to say that it passes"
RESTARTED: Final = "its provider hasn't said that it passes since its host was started"


class Instant(NamedTuple):
    """When something happens: in seconds of a clock that only goes forward, and in seconds since 1970."""

    now: float
    time: float


class _KnownService(Struct):
    health: Health
    ttl: float = math.inf
    until: float = math.inf
    """When it becomes critical, unless its provider says something before."""
    looked_at_next: float = math.inf

    @property
    def is_awaited(self) -> bool:
        """Whether its time to live runs."""
        return self.looked_at_next < math.inf


class HostedHealth:
    """The states of the services that one host hosts."""

    def __init__(self, host: str, limits: HealthLimits, exempt: Collection[str] = ()) -> None:
        """`exempt`: issuers whom no quota binds, besides the host."""
        self._host = host
        self._limits = limits
        self._exempt = frozenset((host, *exempt))
        self._known: dict[HostedService, _KnownService] = {}
        self._instances: dict[tuple[str, str], set[str]] = {}  # of each record, the record itself as an empty one
        self._by_issuer: Counter[str] = Counter()
        self._strangers = 0
        self._due: list[tuple[float, HostedService]] = []  # a heap; of each service whose time to live runs
        self._list = ExceptionList(host)
        self._pace = TokenBuckets(TOLD_RATE, TOLD_BURST)
        self._tell_at = math.inf
        self._told = b""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, service: HostedService) -> bool:
        """Whether anything was said of a service, or it has a time to live."""
        return service in self._known

    @property
    def exceptions(self) -> ExceptionList:
        """The services that don't pass."""
        return self._list

    def health_of(self, service: HostedService) -> Health:
        """How a service is."""
        known = self._known.get(service)
        return known.health if known is not None else PASSING

    def ttl_of(self, service: HostedService) -> float:
        """The time to live of a service, in seconds; infinite where it has none."""
        known = self._known.get(service)
        return known.ttl if known is not None else math.inf

    def restore(self, ttls: Mapping[HostedService, float], at: Instant) -> None:
        """The times to live that the disk has, when the host starts. None is refused: they were within the quotas."""
        for service, ttl in ttls.items():
            if len(self._known) < MOST_LISTED:
                self._enter(service)
                self._give_ttl(service, ttl, RESTARTED, at)

    def set_ttl(self, service: HostedService, ttl: float, at: Instant) -> None:
        """Has a service pass only while its provider said so within `ttl` seconds; 0 ends that, and what was said.

        A service that has a time to live already keeps its state. Raises InvalidValue, HostingRefused.
        """
        if ttl == 0:
            self.forget(service, at)
            return
        self.check_ttl(ttl)
        known = self._known.get(service)
        if known is not None and known.ttl < math.inf:
            known.ttl = ttl
            if known.until < math.inf:
                known.until = min(known.until, at.now + ttl)
                self._watch(service, known)
            return
        self._enter(service)
        self._give_ttl(service, ttl, NOT_HEARD, at)

    def check_ttl(self, ttl: float) -> None:
        """Raises InvalidValue for a time to live that no service can have."""
        if not self._limits.min_ttl <= ttl <= self._limits.max_ttl:
            raise InvalidValue(
                f"a time to live of {ttl:g} s: it has to be {self._limits.min_ttl:g} s to {self._limits.max_ttl:g} s"
            )

    def pass_check(self, service: HostedService, at: Instant) -> None:
        """The provider of a service says that it passes."""
        self.set(service, HealthState.PASSING, "", at)

    def set(self, service: HostedService, state: HealthState, note: str, at: Instant) -> None:
        """The provider of a service says how it is. Raises InvalidValue, HostingRefused."""
        if state is HealthState.UNKNOWN:
            raise InvalidValue("nobody can say of a service that it is unknown how it is")
        known = self._known.get(service)
        if known is None:
            if state is HealthState.PASSING:
                return  # so a thousand services that pass cost nothing
            known = self._enter(service)
        self._become(service, known, state, note, at)
        if known.ttl < math.inf:
            known.until = at.now + known.ttl
            self._watch(service, known)
        elif state is HealthState.PASSING:
            self._leave(service)

    def forget(self, service: HostedService, at: Instant) -> None:
        """Nothing is said of a service any more, nor has it a time to live."""
        if service in self._known:
            self._leave(service)
            if self._list.remove(service):
                self._to_be_told(at)

    def forget_slot(self, key_id: str, issued_by: str, at: Instant) -> list[HostedService]:
        """The record in a slot ended: with it all that was said of it and of its instances. Returns what that was."""
        ended = [HostedService(key_id, issued_by, each) for each in self._instances.get((key_id, issued_by), ())]
        for service in ended:
            self.forget(service, at)
        return ended

    def to_tell(self, at: Instant) -> bytes | None:
        """What the presence has to say from now on; None where it says that already, or will be told at `wake_at`."""
        if at.now < self._tell_at:
            return None
        if not self._pace.take("", at.now):
            self._tell_at = at.now + max(self._pace.wait("", at.now), _SHORTEST)
            return None
        self._tell_at = math.inf
        told = self._list.told(MOST_BYTES)
        if told == self._told:
            self._pace.give_back("", at.now)
            return None
        self._told = told
        return told

    @property
    def wake_at(self) -> float:
        """When to call `wake` and `to_tell` next."""
        return min(self._due[0][0] if self._due else math.inf, self._tell_at)

    def wake(self, at: Instant) -> None:
        """Does what the time that has passed asks for."""
        while self._due and self._due[0][0] <= at.now:
            _, service = heapq.heappop(self._due)
            known = self._known.get(service)
            if known is None or known.looked_at_next > at.now:
                continue  # forgotten, and perhaps there again
            known.looked_at_next = math.inf
            if known.until > at.now:
                self._watch(service, known)
                continue
            known.until = math.inf
            note = f"its provider hasn't said for {known.ttl:g} s that it passes"
            self._become(service, known, HealthState.CRITICAL, note, at)

    def _give_ttl(self, service: HostedService, ttl: float, why: str, at: Instant) -> None:
        known = self._known[service]
        known.ttl = ttl
        self._become(service, known, HealthState.CRITICAL, why, at)

    def _watch(self, service: HostedService, known: _KnownService) -> None:
        """Sees to it that `wake` looks at a service in time: one that it looks at too early is looked at again."""
        if known.until < known.looked_at_next:
            known.looked_at_next = known.until
            heapq.heappush(self._due, (known.until, service))
            if len(self._due) > 2 * len(self._known) + _SPARE:  # of services that were forgotten
                self._due = [(each.looked_at_next, of) for of, each in self._known.items() if each.is_awaited]
                heapq.heapify(self._due)

    def _become(self, service: HostedService, known: _KnownService, state: HealthState, note: str, at: Instant) -> None:
        is_new_state = state is not known.health.state
        health = Health(state, int(at.time) if is_new_state else known.health.since, note)
        known.health = health
        if self._list.put(service, health):
            self._to_be_told(at, 0.0 if is_new_state else NOTE_PAUSE)

    def _to_be_told(self, at: Instant, after: float = 0.0) -> None:
        self._tell_at = min(self._tell_at, at.now + after)

    def _enter(self, service: HostedService) -> _KnownService:
        """Raises HostingRefused."""
        known = self._known.get(service)
        if known is not None:
            return known
        issuer = service.issued_by
        is_exempt = issuer in self._exempt
        if not is_exempt and self._by_issuer[issuer] >= self._limits.max_services_per_issuer:
            raise HostingRefused(
                f"this peer keeps the health of {self._by_issuer[issuer]} services issued by {issuer} already",
                code=Code.QUOTA_EXCEEDED,
            )
        if len(self._known) >= MOST_LISTED or (not is_exempt and self._strangers >= self._limits.max_services):
            raise HostingRefused("this peer's quota for the health of services is used up", code=Code.QUOTA_EXCEEDED)
        self._instances.setdefault(service[:2], set()).add(service.instance)
        self._by_issuer[issuer] += 1
        self._strangers += not is_exempt
        known = self._known[service] = _KnownService(PASSING)
        return known

    def _leave(self, service: HostedService) -> None:
        del self._known[service]
        issuer = service.issued_by
        self._strangers -= issuer not in self._exempt
        self._by_issuer[issuer] -= 1
        if not self._by_issuer[issuer]:
            del self._by_issuer[issuer]
        instances = self._instances[service[:2]]
        instances.discard(service.instance)
        if not instances:
            del self._instances[service[:2]]
