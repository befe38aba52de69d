"""Where particles come in, whoever brings them: judged, bounded, and given to the actor of their own."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog
import trio

from aqua_compat.particles.actor import OVERHEAD, Actor, Surroundings
from aqua_compat.particles.errors import BadParticle
from aqua_compat.particles.ledger import Ledger
from aqua_compat.particles.particle import Particle

if TYPE_CHECKING:
    from trio_typing import TaskStatus

Clock = Callable[[], float]

SWEEP: Final = 1.0  # seconds between looks at what expired

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Reception:
    """Use `run`, which forgets what expired. Actors are known by their particle's signature."""

    def __init__(self, around: Surroundings, clock: Clock) -> None:
        self._around = around
        self._clock = clock
        self._actors: dict[bytes, Actor] = {}
        self._expiring: list[tuple[float, bytes]] = []
        self._by_source: dict[str, OrderedDict[bytes, None]] = {}
        self._counts = Ledger(around.settings.max_actors, around.settings.max_actors_per_peer)
        around.make_room = self._has_room_for_data
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
                _, signature = heapq.heappop(self._expiring)
                actor = self._actors.get(signature)
                if actor is not None and actor.deadline <= now:
                    self._forget(signature, actor)

    def _receive(self, source: str, particle: Particle) -> None:
        now = self._clock()
        if now > particle.expires:
            raise BadParticle("expired", f"it expired {now - particle.expires:.1f} s ago")
        limit = self._around.settings.max_lifetime
        if particle.expires - now > limit:
            raise BadParticle("too long-lived", f"it would live longer than {limit:g} s from now")
        actor = self._actors.get(particle.signature)
        if actor is None or not actor.particle.is_same(particle):
            if not particle.is_genuine():
                raise BadParticle("bad signature", f"{particle.init_peer_id} didn't sign it")
            self._make_room(source, len(particle.script) + len(particle.data) + OVERHEAD, is_new=True)
            actor = self._new_actor(source, particle, trio.current_time() + particle.expires - now)
        else:
            if actor.waiting >= self._around.settings.max_waiting:
                raise BadParticle("too many copies", "too many copies of it wait already")
            self._make_room(actor.source, len(particle.data), is_new=False, keep=particle.signature)
        actor.take(particle.data)

    def _new_actor(self, source: str, particle: Particle, deadline: float) -> Actor:
        actor = self._actors[particle.signature] = Actor(particle, source, deadline, self._around)
        self._counts.add(source, 1)
        self._by_source.setdefault(source, OrderedDict())[particle.signature] = None
        heapq.heappush(self._expiring, (deadline, particle.signature))
        if len(self._expiring) > 4 * self._around.settings.max_actors:  # of actors that were forgotten early
            self._expiring = [(known.deadline, signature) for signature, known in self._actors.items()]
            heapq.heapify(self._expiring)
        return actor

    def _make_room(self, source: str, size: int, *, is_new: bool, keep: bytes = b"") -> None:
        """Forgets particles that are done, the oldest first, of the source itself; or of the one that holds most, and
        there also such as aren't done. Raises BadParticle when there is no room all the same."""
        memory, one = self._around.memory, int(is_new)
        while not (memory.fits_source(source, size) and self._counts.fits_source(source, one)):
            if not self._forget_idle(source, keep):
                raise BadParticle("too much of this peer", f"particles of {source} take all that one peer gets")
        for ledger, amount in ((memory, size), (self._counts, one)):
            while not ledger.has_room(source, amount):
                heaviest = ledger.heaviest() or source
                if ledger.of(heaviest) <= ledger.of(source) + amount or not (
                    self._forget_idle(heaviest, keep) or self._forget_oldest(heaviest)
                ):
                    raise BadParticle("full", "this peer has no room for more particles")

    def _has_room_for_data(self, source: str, size: int) -> bool:
        try:
            self._make_room(source, size, is_new=False)
        except BadParticle:
            return False
        return True

    def _forget_idle(self, source: str, keep: bytes) -> bool:
        for signature in self._by_source.get(source, ()):
            actor = self._actors[signature]
            if actor.is_idle and signature != keep:
                self._forget(signature, actor)
                self._around.metrics.count("forgotten early")
                return True
        return False

    def _forget_oldest(self, source: str) -> bool:
        for signature in self._by_source.get(source, ()):
            self._forget(signature, self._actors[signature])
            self._around.metrics.count("ended early")
            return True
        return False

    def _forget(self, signature: bytes, actor: Actor) -> None:
        actor.end()
        del self._actors[signature]
        self._counts.add(actor.source, -1)
        of_source = self._by_source[actor.source]
        del of_source[signature]
        if not of_source:
            del self._by_source[actor.source]
