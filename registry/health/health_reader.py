"""What a reader makes of hosts' words: which records are up, which pass, and whose list of exceptions it asks for.

1. A host that says nothing of its presence, such as one of an earlier version, says of no service that it doesn't pass.
   It counts as up: nothing is hidden for want of presence.
2. A record is down when its host isn't listed. Its state is what the host said last.
3. An instance is as bad as what is said of it, or of its whole record, whichever is worse.
4. A record whose instances are known is as good as the best of them: one that passes is enough to call.
5. While a host tells no more than how many of its services don't pass, all of them are unknown, until its list was
   read and has the digest. So they are when what it says can't be understood.

Pure: what is heard and the time come in, and whose list is to be asked for comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from cachetools import LRUCache
from msgspec import Struct

from registry.errors import InvalidValue
from registry.health.exceptions import MOST_LISTED, Exceptions, entries_in, exceptions_in
from registry.health.state import PASSING, Health, HealthState, HostedService, worst
from registry.model.values import Slot
from registry.protocol.presence import HostStanding

LISTS_KEPT: Final = 65_536
"""Entries of hosts' lists that are kept, all hosts together; about 30 MB when all have long notes."""
ASK_AGAIN: Final = (1.0, 60.0)
"""Shortest and longest pause between two attempts to get a host's list; doubles each time."""
_HOSTS: Final = 4096  # whose exceptions are kept parsed

NOT_READ: Final = Health(HealthState.UNKNOWN, note="its host told that services don't pass, and not yet which")
NOT_UNDERSTOOD: Final = Health(HealthState.UNKNOWN, note="what its host told of its services can't be understood")


class RecordHealth(Struct, frozen=True):
    """What is known of one record: whether its host is up, and how the service and its instances are."""

    is_up: bool = True
    up_or_down_for: float = math.inf
    """Seconds; infinite where it isn't known."""
    accusers: tuple[str, ...] = ()
    """The peers by whose word the host is down."""
    health: Health = PASSING
    instances: Mapping[str, Health] = {}
    """Of the instances that were asked for, by id."""
    has_left: bool = False
    """Whether the host is down since it said itself that it stops."""

    @property
    def is_usable(self) -> bool:
        """Whether the record is shown to whoever wants no more than what works."""
        return self.is_up and self.health.state.is_usable


UNTOLD: Final = RecordHealth()
"""Of a host that says nothing of its presence."""


def put_together(said_of: Callable[[str], Health], instances: Iterable[str]) -> tuple[Health, dict[str, Health]]:
    """How a record is, and each of its instances (rules 3 and 4). `said_of`: what is said of one, of the record where
    the id is empty."""
    whole = said_of("")
    healths = {instance: worst((whole, said_of(instance))) for instance in dict.fromkeys(instances)}
    best = min(healths.values(), key=lambda health: health.state, default=whole)
    return worst((whole, best)), healths


class ListWanted(NamedTuple):
    """A host's list is to be asked for. `ListReading` reads it; `HealthReader.listed` or `failed` is told then."""

    host: str
    digest: bytes
    entries: int


class ListReading:
    """Reads one host's list, page by page. Each page takes 10 ms, so others should have their turn in between."""

    def __init__(self, wanted: ListWanted) -> None:
        self._wanted = wanted
        self._hashed = sha256()
        self._services: dict[HostedService, Health] = {}
        self._left = min(wanted.entries, MOST_LISTED)

    @property
    def last(self) -> HostedService | None:
        """The last service that was read, as of the list's order."""
        return next(reversed(self._services), None)

    def add(self, page: Sequence[bytes]) -> None:
        """The next page. Raises InvalidValue for what isn't the list that was asked for."""
        self._left -= len(page)
        if self._left < 0 or not page:
            raise InvalidValue("a list of another length than its host told")
        for entry in page:
            self._hashed.update(entry)
        for service, health in entries_in(self._wanted.host, page):
            if (last := self.last) is not None and service <= last:
                raise InvalidValue("a list that isn't in order")
            self._services[service] = health

    def done(self) -> Mapping[HostedService, Health] | None:
        """All of it, or None while entries are missing. Raises InvalidValue where it isn't what its host told of."""
        if self._left:
            return None
        if self._hashed.digest() != self._wanted.digest:
            raise InvalidValue("a list of another digest than its host told")
        return self._services


class _Asked(Struct):
    digest: bytes
    pause: float
    began: float
    at: float = math.inf
    """When it may be asked for again; infinite while it is being asked for."""


class HealthReader:
    """Reads what hosts say. It keeps of their lists what fits."""

    def __init__(self) -> None:
        self._parsed: LRUCache[tuple[str, bytes], Exceptions | None] = LRUCache(_HOSTS)
        self._lists: LRUCache[tuple[str, bytes], Mapping[HostedService, Health]] = LRUCache(
            LISTS_KEPT, getsizeof=lambda entries: max(len(entries), 1)
        )
        self._asked: LRUCache[str, _Asked] = LRUCache(_HOSTS)

    def health_of(self, slot: Slot, standing: HostStanding, instances: Iterable[str] = ()) -> RecordHealth:
        """What is known of the record in a slot. `instances`: the ids of those that its value names."""
        services, otherwise = self._said_by(slot.peer_id, standing.exceptions)

        def said_of(instance: str) -> Health:
            return services.get(HostedService(slot.key_id, slot.issued_by, instance), otherwise)

        health, healths = put_together(said_of, instances)
        has_left = standing.has_left and not standing.is_up  # of a host that is about to stop it is said before it did
        return RecordHealth(standing.is_up, standing.since, standing.accusers, health, healths, has_left)

    def services_of(self, host: str, told: bytes) -> Mapping[HostedService, Health] | None:
        """The services that a host says don't pass, by what its presence tells; None while its list isn't at hand, or
        where it can't be understood."""
        exceptions = self._exceptions(host, told)
        if exceptions is None or not exceptions.is_listed_elsewhere:
            return None if exceptions is None else exceptions.services
        return self._lists.get((host, exceptions.digest))

    def wanted(self, host: str, standing: HostStanding, now: float) -> ListWanted | None:
        """Whose list has to be asked for before it is known which of its services pass; None where there is nothing to
        ask for, or not yet again. `now` in seconds of any clock that only goes forward."""
        exceptions = self._exceptions(host, standing.exceptions)
        if exceptions is None or not exceptions.is_listed_elsewhere or (host, exceptions.digest) in self._lists:
            return None
        asked = self._asked.get(host)
        if asked is not None and now < (asked.at if asked.digest == exceptions.digest else asked.began + ASK_AGAIN[0]):
            return None
        pause = ASK_AGAIN[0] if asked is None else min(2 * asked.pause, ASK_AGAIN[1])
        self._asked[host] = _Asked(exceptions.digest, pause, began=now)
        return ListWanted(host, exceptions.digest, exceptions.count)

    def listed(self, wanted: ListWanted, services: Mapping[HostedService, Health], now: float) -> None:
        """A host's list came, as `ListReading` read and verified it."""
        self._lists[wanted.host, wanted.digest] = services
        asked = self._asked.get(wanted.host)
        if asked is not None:  # where this gives way to other lists it isn't asked for again at once
            asked.pause, asked.at = ASK_AGAIN[0] / 2, now + ASK_AGAIN[0]

    def failed(self, wanted: ListWanted, now: float) -> None:
        """A host's list didn't come, or was another one."""
        asked = self._asked.get(wanted.host)
        if asked is not None:
            asked.at = now + asked.pause

    def ask_at(self, host: str) -> float:
        """From when on `wanted` may name a host again of which that is known; infinite while it is asked."""
        asked = self._asked.get(host)
        return asked.at if asked is not None else math.inf

    def _said_by(self, host: str, told: bytes) -> tuple[Mapping[HostedService, Health], Health]:
        """What a host says of services, and what counts for all others."""
        services = self.services_of(host, told)
        if services is not None:
            return services, PASSING
        return {}, NOT_UNDERSTOOD if self._exceptions(host, told) is None else NOT_READ

    def _exceptions(self, host: str, told: bytes) -> Exceptions | None:
        key = host, told
        if key not in self._parsed:
            try:
                self._parsed[key] = exceptions_in(host, told)
            except InvalidValue:
                self._parsed[key] = None
        return self._parsed[key]
