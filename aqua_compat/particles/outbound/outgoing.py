"""The particles that are being sent, within bounds for each peer that brought them."""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from aqua_compat.particles.particle import Particle
from aqua_compat.particles.settings import AquaSettings
from overlay.limits.fair_quota import FairQuota

OVERHEAD: Final = 8192  # bytes of memory that sending a particle takes besides script and data


class Sending:
    """A particle that is sent to a peer within `scope`; `source` brought it and answers for it."""

    def __init__(self, source: str, particle: Particle, peer_id: str, deadline: float, quota: FairQuota) -> None:
        self.source = source
        self.particle = particle
        self.peer_id = peer_id
        self.scope = trio.CancelScope(deadline=deadline)
        self.gave_way = False
        """Whether it was given up for those of others."""
        self.memory = quota.open(source, self._give_way)
        """The bytes that it takes until it was sent or dropped."""

    def _give_way(self) -> None:
        self.gave_way = True
        self.scope.cancel()


class Outgoing:
    """All of them. When they take too much memory, the source that has most of it loses its oldest."""

    def __init__(self, settings: AquaSettings) -> None:
        self._most_to_one = settings.max_sending_per_peer
        self._bytes = FairQuota(settings.max_sending_bytes, settings.max_sending_bytes_per_peer)
        self._counts: Counter[tuple[str, str]] = Counter()  # by source and by whom they go to

    @property
    def total(self) -> int:
        """How many particles are being sent."""
        return self._counts.total()

    def begin(self, source: str, particle: Particle, peer_id: str, deadline: float) -> Sending | None:
        """A particle that is being sent until `end`; None where there is no room for it."""
        size = OVERHEAD + len(particle.data) + len(particle.script)
        sending = Sending(source, particle, peer_id, deadline, self._bytes)
        if self._counts[source, peer_id] >= self._most_to_one or not sending.memory.take(size):
            return None
        self._counts[source, peer_id] += 1
        return sending

    def end(self, sending: Sending) -> None:
        """Gives back what it took; it was sent or dropped."""
        sending.memory.close()
        to_one = sending.source, sending.peer_id
        self._counts[to_one] -= 1
        if not self._counts[to_one]:
            del self._counts[to_one]
