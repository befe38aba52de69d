"""Takes particles in, whoever brings them: checks each and gives it to the actor that runs it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import structlog
import trio

from aqua_compat.particles.engine.actor import Actor, ActorEnvironment
from aqua_compat.particles.errors import BadParticle
from aqua_compat.particles.particle import Particle, ParticleKey
from overlay.tasks import TaskStatus

Clock = Callable[[], float]

SWEEP: Final = 1.0  # seconds between looks at what expired

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Dispatcher:
    """Use `run`, which forgets what expired. Actors are known by their particle's `key`."""

    def __init__(self, environment: ActorEnvironment, clock: Clock) -> None:
        """`clock`: seconds since 1970."""
        self._environment = environment
        self._clock = clock
        self._actors: dict[ParticleKey, Actor] = {}
        self._expiring: list[tuple[float, ParticleKey]] = []
        self._has_ended = False
        environment.metrics.gauge("actors", lambda: len(self._actors))
        environment.metrics.gauge("calls", lambda: environment.calls_under_way.total)
        environment.metrics.gauge("bytes", lambda: environment.memory.total)

    def receive(self, source: str, particle: Particle) -> None:
        """Takes a particle that the peer `source` brought. Raises BadParticle when it doesn't."""
        metrics = self._environment.metrics
        metrics.count("received")
        try:
            self._receive(source, particle)
        except BadParticle as error:
            metrics.drop(error.reason)
            log.debug("a particle was refused", source=source, particle=particle.id, error=str(error))
            raise

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forgets expired particles until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SWEEP)
            self._forget_expired(trio.current_time())

    def end(self) -> None:
        """Takes nothing any more."""
        self._has_ended = True

    def _forget_expired(self, now: float) -> None:
        """Not in `run` itself: while that slept, it would keep the last of them, with a script that may be large."""
        while self._expiring and self._expiring[0][0] <= now:
            _, key = heapq.heappop(self._expiring)
            actor = self._actors.get(key)
            if actor is not None and actor.deadline <= now:
                self._forget(actor)

    def _receive(self, source: str, particle: Particle) -> None:
        if self._has_ended:
            raise BadParticle("ending", "this peer takes no particles any more")
        now = self._clock()
        if now > particle.expires:
            raise BadParticle("expired", f"it expired {now - particle.expires:.1f} s ago")
        limit = self._environment.settings.max_lifetime
        if particle.expires - now > limit:
            raise BadParticle("too long-lived", f"it would live longer than {limit:g} s from now")
        actor = self._actors.get(particle.key)
        if actor is not None and actor.particle.is_same(particle):
            actor.take(source, particle.data)
            return
        if not particle.is_genuine():
            raise BadParticle("bad signature", f"{particle.init_peer_id} didn't sign it")
        if actor is not None:
            self._forget(actor)
        self._begin(source, particle, trio.current_time() + particle.expires - now)

    def _begin(self, source: str, particle: Particle, deadline: float) -> None:
        actor = Actor(particle, source, deadline, self._environment, self._forget)
        try:
            actor.begin(particle.data)
        except BadParticle:
            actor.end()
            raise
        self._actors[particle.key] = actor
        heapq.heappush(self._expiring, (deadline, particle.key))
        if len(self._expiring) > 4 * self._environment.settings.max_actors:  # of actors that were forgotten early
            self._expiring = [(known.deadline, key) for key, known in self._actors.items()]
            heapq.heapify(self._expiring)

    def _forget(self, actor: Actor) -> None:
        actor.end()
        if self._actors.get(actor.particle.key) is actor:
            del self._actors[actor.particle.key]
