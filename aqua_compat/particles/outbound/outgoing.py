"""Which particles are on their way out, for whom, within bounds."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

import trio
from msgspec import Struct

from aqua_compat.particles.fairness.quota import Quota
from aqua_compat.particles.particle import Particle
from aqua_compat.particles.settings import AquaSettings

OVERHEAD: Final = 8192  # bytes that a particle on its way takes besides script and data


class Sending(Struct, eq=False):
    """A particle on its way to a peer; `source` brought it. It is sent within `scope`."""

    source: str
    particle: Particle
    peer_id: str
    size: int
    scope: trio.CancelScope
    gave_way: bool = False
    """Whether it was given up for those of others."""


class Outgoing:
    """The source of a particle answers for it. When too much waits, the one that has most of it loses its oldest."""

    def __init__(self, settings: AquaSettings) -> None:
        self._most_of_way = settings.max_sending_per_peer
        self._bytes = Quota(settings.max_sending_bytes, settings.max_sending_bytes_per_peer)
        self._by_source: dict[str, OrderedDict[Sending, None]] = {}
        self._by_way: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        """How many there are."""
        return self._by_way.total()

    def begin(self, source: str, particle: Particle, peer_id: str, deadline: float) -> Sending | None:
        """One more, until `end`; None where there is no room for it."""
        size = OVERHEAD + len(particle.data) + len(particle.script)
        if self._by_way[source, peer_id] >= self._most_of_way or not self._take(source, size):
            return None
        sending = Sending(source, particle, peer_id, size, trio.CancelScope(deadline=deadline))
        self._by_source.setdefault(source, OrderedDict())[sending] = None
        self._by_way[source, peer_id] += 1
        return sending

    def end(self, sending: Sending) -> None:
        """It was sent or dropped."""
        if not sending.gave_way:
            self._forget(sending)

    def _take(self, source: str, size: int) -> bool:
        while not self._bytes.take(source, size):
            heaviest = self._bytes.heaviest()
            if (
                heaviest is None
                or not self._bytes.fits_source(source, size)
                or self._bytes.of(heaviest) <= self._bytes.of(source) + size
            ):
                return False
            oldest = next(iter(self._by_source[heaviest]))
            self._forget(oldest)
            oldest.gave_way = True
            oldest.scope.cancel()
        return True

    def _forget(self, sending: Sending) -> None:
        of_source, way = self._by_source[sending.source], (sending.source, sending.peer_id)
        del of_source[sending]
        if not of_source:
            del self._by_source[sending.source]
        self._by_way[way] -= 1
        if not self._by_way[way]:
            del self._by_way[way]
        self._bytes.add(sending.source, -sending.size)
