"""Where particles come in, whoever brings them: judged, bounded, and given to the actor of their own."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
import trio

from aqua_compat.particles.engine.actor import OVERHEAD, Actor, ActorEnvironment
from aqua_compat.particles.errors import BadParticle
from aqua_compat.particles.fairness.quota import Quota
from aqua_compat.particles.particle import Particle, ParticleKey
from overlay.tasks import TaskStatus

Clock = Callable[[], float]

SWEEP: Final = 1.0  # seconds between looks at what expired

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Dispatcher:
    """Use `run`, which forgets what expired. Actors are known by their particle's `key`."""

    def __init__(self, around: ActorEnvironment, clock: Clock) -> None:
        self._around = around
        self._clock = clock
        self._actors: dict[ParticleKey, Actor] = {}
        self._expiring: list[tuple[float, ParticleKey]] = []
        self._by_source: dict[str, OrderedDict[ParticleKey, None]] = {}
        self._has_ended = False
        self._counts = Quota(around.settings.max_actors, around.settings.max_actors_per_peer)
        around.make_room = self._has_room_for_data
        around.take_call = self._take_call
        around.metrics.gauge("actors", lambda: len(self._actors))
        around.metrics.gauge("calls", lambda: around.calls_under_way.total)
        around.metrics.gauge("bytes", lambda: around.memory.total)

    def receive(self, source: str, particle: Particle) -> None:
        """Takes a particle that the peer `source` brought. Raises BadParticle when it doesn't."""
        around = self._around
        around.metrics.count("received")
        try:
            self._receive(source, particle)
        except BadParticle as error:
            around.metrics.drop(error.reason)
            log.debug("a particle was refused", source=source, particle=particle.id, reason=str(error))
            raise

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forgets expired particles until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SWEEP)
            now = trio.current_time()
            while self._expiring and self._expiring[0][0] <= now:
                _, key = heapq.heappop(self._expiring)
                actor = self._actors.get(key)
                if actor is not None and actor.deadline <= now:
                    self._forget(key, actor)

    def end(self) -> None:
        """Takes nothing any more."""
        self._has_ended = True

    def _receive(self, source: str, particle: Particle) -> None:
        if self._has_ended:
            raise BadParticle("ending", "this peer takes no particles any more")
        now = self._clock()
        if now > particle.expires:
            raise BadParticle("expired", f"it expired {now - particle.expires:.1f} s ago")
        limit = self._around.settings.max_lifetime
        if particle.expires - now > limit:
            raise BadParticle("too long-lived", f"it would live longer than {limit:g} s from now")
        actor = self._actors.get(particle.key)
        if actor is None or not actor.particle.is_same(particle):
            if not particle.is_genuine():
                raise BadParticle("bad signature", f"{particle.init_peer_id} didn't sign it")
            self._make_room(source, len(particle.script) + len(particle.data) + OVERHEAD, is_new=True)
            actor = self._new_actor(source, particle, trio.current_time() + particle.expires - now)
        else:
            if not actor.has_room_for_copy(source):
                raise BadParticle("too many copies", "too many copies of it wait already")
            self._make_room(source, len(particle.data), is_new=False, keep=particle.key)
            if actor.has_ended:
                raise BadParticle("full", "it had to make room itself")
        actor.take(source, particle.data)

    def _new_actor(self, source: str, particle: Particle, deadline: float) -> Actor:
        actor = self._actors[particle.key] = Actor(particle, source, deadline, self._around)
        self._counts.add(source, 1)
        self._by_source.setdefault(source, OrderedDict())[particle.key] = None
        heapq.heappush(self._expiring, (deadline, particle.key))
        if len(self._expiring) > 4 * self._around.settings.max_actors:  # of actors that were forgotten early
            self._expiring = [(known.deadline, key) for key, known in self._actors.items()]
            heapq.heapify(self._expiring)
        return actor

    def _make_room(self, source: str, size: int, *, is_new: bool, keep: ParticleKey | None = None) -> None:
        """Forgets particles that are done, the oldest first, of the source itself; or of the one that holds most, and
        there also such as aren't done. Raises BadParticle when there is no room all the same."""
        memory, one = self._around.memory, int(is_new)
        while not (memory.fits_source(source, size) and self._counts.fits_source(source, one)):
            if not self._forget_idle(source, keep):
                raise BadParticle("too much of this peer", f"particles of {source} take all that one peer gets")
        for quota, amount in ((memory, size), (self._counts, one)):
            while not quota.has_room(source, amount):
                heaviest = quota.heaviest() or source
                if quota.of(heaviest) <= quota.of(source) + amount or not (
                    self._forget_idle(heaviest, keep) or self._forget_oldest(heaviest)
                ):
                    raise BadParticle("full", "this peer has no room for more particles")

    def _has_room_for_data(self, source: str, size: int) -> bool:
        try:
            self._make_room(source, size, is_new=False)
        except BadParticle:
            return False
        return True

    def _take_call(self, source: str) -> bool:
        """Counts one more call of the source as under way, if need be by ending what the busiest one began first."""
        calls = self._around.calls_under_way
        while not calls.take(source, 1):
            busiest = calls.heaviest()
            if busiest is None or not calls.fits_source(source, 1) or calls.of(busiest) <= calls.of(source) + 1:
                return False
            for key in self._by_source[busiest]:
                if self._actors[key].calls:
                    self._forget(key, self._actors[key])
                    self._around.metrics.count("ended early")
                    break
            else:
                return False
        return True

    def _forget_idle(self, source: str, keep: ParticleKey | None) -> bool:
        for key in self._by_source.get(source, ()):
            actor = self._actors[key]
            if actor.is_idle and key != keep:
                self._forget(key, actor)
                self._around.metrics.count("forgotten early")
                return True
        return False

    def _forget_oldest(self, source: str) -> bool:
        for key in self._by_source.get(source, ()):
            self._forget(key, self._actors[key])
            self._around.metrics.count("ended early")
            return True
        return False

    def _forget(self, key: ParticleKey, actor: Actor) -> None:
        actor.end()
        del self._actors[key]
        self._counts.add(actor.source, -1)
        of_source = self._by_source[actor.source]
        del of_source[key]
        if not of_source:
            del self._by_source[actor.source]
