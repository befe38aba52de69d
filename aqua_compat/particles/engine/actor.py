"""One particle on this node: one step of the interpreter after the other, until it expires.

A step takes what is known so far, the next copy that came (or none) and all results of calls that came in since. What
comes out is kept, its calls are made at once, and the particle goes to the next peers with it.

Whoever brought something answers for the memory and the calls that it takes: the first that brought the particle for
the particle itself, and each for its copies (`overlay.limits.fair_quota`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog
import trio

from aqua_compat.particles.engine.steps import CallRequest, CallResult, Outcome, Step, StepLimits, build_results
from aqua_compat.particles.errors import BadParticle, InterpreterFailed
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import Particle
from aqua_compat.particles.settings import AquaSettings
from overlay.limits.fair_quota import FairQuota, Holding

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

OVERHEAD = 4096  # bytes of an actor without script and data
_DECODED = 16  # about so many times its bytes is the memory that a call's arguments take when decoded
_SOURCES_OF_COPIES = 4  # times as many copies may wait of all peers together as of one
_TOO_MANY_CALLS = CallResult(1, '"too many calls are under way on this peer"')
_NO_ROOM = CallResult(1, '"the result found no room on this peer"')
_INTERNAL = CallResult(1, '"internal error"')


class Context:
    """What a call may know of the particle that makes it."""

    __slots__ = ("countersigned_keys", "deadline", "init_peer_id", "made_bytes", "memory", "particle_id", "source")

    def __init__(self, particle: Particle, source: str, deadline: float, memory: Holding) -> None:
        """`source` brought the particle; `memory` holds the bytes that are kept here for it."""
        self.source = source
        self.memory = memory
        self.init_peer_id = particle.init_peer_id
        self.particle_id = particle.id
        self.deadline = deadline  # of Trio's clock
        self.made_bytes: dict[bytes, object] = {}
        """What get_record_bytes made in this particle, by the bytes."""
        self.countersigned_keys: set[str] = set()
        """Keys of records that this host signed in this particle."""


class Steps(Protocol):
    """Runs steps of the interpreter."""

    async def step(self, source: str, step: Step) -> Outcome:
        """What comes of a step that `source` answers for. Raises InterpreterFailed."""
        ...


class ScriptCalls(Protocol):
    """Answers calls of scripts."""

    async def call(self, context: Context, request: CallRequest) -> CallResult:
        """The result of a call. Never raises for what a script does."""
        ...


SendOn = Callable[[str, Particle, str, float], None]
"""(source, particle, peer, deadline of Trio's clock) -> nothing: begins to send a particle on."""


class ActorEnvironment:
    """What all actors of a node share, with the quotas of the peers that bring particles."""

    def __init__(
        self,
        host_peer_id: str,
        settings: AquaSettings,
        steps: Steps,
        calls: ScriptCalls,
        send_on: SendOn,
        nursery: trio.Nursery,
        metrics: Metrics,
    ) -> None:
        self.host_peer_id = host_peer_id
        self.settings = settings
        self.steps = steps
        self.calls = calls
        self.send_on = send_on
        self.nursery = nursery
        self.metrics = metrics
        self.particles = FairQuota(settings.max_actors, settings.max_actors_per_peer)
        self.memory = FairQuota(settings.max_bytes, settings.max_bytes_per_peer)
        self.calls_under_way = FairQuota(settings.max_calls_of_all, settings.max_calls_per_peer)


class _Copy:
    """A copy of the particle that waits for its step or is in it; `source` brought it and answers for it."""

    __slots__ = ("data", "memory", "source", "step")

    def __init__(self, source: str, data: bytes, memory: Holding) -> None:
        self.source = source
        self.data = data
        self.memory = memory
        self.step = trio.CancelScope()


class Actor:
    """Made by `Dispatcher`, which forgets it when it has expired. `source` is the peer that brought it first."""

    def __init__(
        self,
        particle: Particle,
        source: str,
        deadline: float,
        environment: ActorEnvironment,
        forget: Callable[[Actor], None],
    ) -> None:
        """`forget` is called when it has to make room for those of others; it ends the actor."""
        self.particle = particle.with_data(b"")
        self.source = source
        self.deadline = deadline
        self.has_ended = False
        self._environment = environment
        self._forget = forget
        self._data = b""
        self._incoming: deque[_Copy] = deque()
        self._results: dict[int, CallResult] = {}
        self._is_stepping = False
        self._scopes: set[trio.CancelScope] = set()
        self._place, self._memory, self._calls = (
            quota.open(source, self._give_way, is_idle=self._is_idle)
            for quota in (environment.particles, environment.memory, environment.calls_under_way)
        )
        self._context = Context(particle, source, deadline, self._memory)

    def begin(self, data: bytes) -> None:
        """Takes its place and its first copy, with this data. Raises BadParticle where there is no room for it."""
        self._add_copy(self.source, data, first=True)

    def take(self, source: str, data: bytes) -> None:
        """Takes one more copy of the particle, which the peer `source` brought. Raises BadParticle when it doesn't."""
        if not self._has_room_for_copy(source):
            raise BadParticle("too many copies", "too many copies of it wait already")
        self._add_copy(source, data)

    def end(self) -> None:
        """Stops what is under way and lets go of everything that is kept for the particle."""
        self.has_ended = True
        for holding in (self._place, self._memory, self._calls):
            holding.close()
        for copy in self._incoming:
            copy.memory.close()
        self._incoming.clear()
        self._results.clear()
        self._data = b""
        for scope in self._scopes:
            scope.cancel()

    def _is_idle(self) -> bool:
        """Whether nothing waits or is under way: forgetting it costs only what it knew."""
        return not (self._is_stepping or self._incoming or self._results or self._calls.amount)

    def _give_way(self) -> None:
        self._environment.metrics.count("forgotten early" if self._is_idle() else "ended early")
        self._forget(self)

    def _has_room_for_copy(self, source: str) -> bool:
        most = self._environment.settings.max_waiting
        of_source = sum(copy.source == source for copy in self._incoming)
        return of_source < most and len(self._incoming) < _SOURCES_OF_COPIES * most

    def _add_copy(self, source: str, data: bytes, *, first: bool = False) -> None:
        environment = self._environment
        copy = self._copy_of(source, data)
        self._incoming.append(copy)  # before room is made, so that this particle isn't taken for idle
        if first:
            self._hold(environment.particles, self._place, 1)
            self._hold(environment.memory, self._memory, OVERHEAD + len(self.particle.script))
        try:
            self._hold(environment.memory, copy.memory, len(data))
        except BadParticle:
            self._drop_copy(copy)
            raise
        self._wake()

    def _copy_of(self, source: str, data: bytes) -> _Copy:
        def give_way() -> None:
            self._environment.metrics.count("copies dropped early")
            self._drop_copy(copy)

        copy = _Copy(source, data, self._environment.memory.open(source, give_way))
        return copy

    def _drop_copy(self, copy: _Copy) -> None:
        """Gives up a copy, and the step that it is in."""
        copy.memory.close()
        copy.step.cancel()
        if copy in self._incoming:
            self._incoming.remove(copy)

    def _hold(self, quota: FairQuota, holding: Holding, amount: int) -> None:
        """Raises BadParticle where there is no room."""
        if holding.take(amount):
            return
        if self.has_ended:
            raise BadParticle("full", "it had to make room itself")
        if not quota.fits_source(holding.source, amount):
            raise BadParticle("too much of this peer", f"particles of {holding.source} take all that one peer gets")
        raise BadParticle("full", "this peer has no room for more particles")

    def _wake(self) -> None:
        if not self._is_stepping and not self.has_ended and trio.current_time() < self.deadline:
            self._is_stepping = True
            self._environment.nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Steps for as long as there is something to step with."""
        try:
            with self._until_the_end():
                while self._incoming or self._results:
                    await self._step()
        except Exception:  # of one particle; raised on, it would end the node
            log.exception("a particle failed", particle=self.particle.id)
            self._environment.metrics.drop("internal error")
        finally:
            self._is_stepping = False

    async def _step(self) -> None:
        environment, particle, limits = self._environment, self.particle, self._environment.settings
        copy = self._incoming.popleft() if self._incoming else self._copy_of(self.source, b"")
        results, self._results = self._results, {}
        step = Step(
            script=particle.script,
            previous=self._data,
            incoming=copy.data,
            results=build_results(results),
            init_peer_id=particle.init_peer_id,
            current_peer_id=environment.host_peer_id,
            timestamp=particle.timestamp,
            ttl=particle.ttl,
            particle_id=particle.id,
            limits=StepLimits(
                script=limits.max_script,
                particle=limits.max_particle,
                call_result=limits.max_result,
                calls=limits.max_requests,
            ),
        )
        outcome: Outcome | None = None
        try:
            with copy.step:
                outcome = await environment.steps.step(copy.source, step)
        except InterpreterFailed as error:
            environment.metrics.drop("step failed")
            log.debug("a particle's step failed", particle=particle.id, error=str(error))
        finally:
            copy.memory.close()
            if not copy.step.cancelled_caught:
                self._memory.give_back(sum(map(_held_for, results.values())))
        if copy.step.cancelled_caught:  # the copy gave way: the results go into the next step
            self._results = {**results, **self._results}
        if outcome is None:
            return
        if outcome.ret_code != 0:
            environment.metrics.count("script errors")
            log.debug("a script failed", particle=particle.id, code=outcome.ret_code, error=outcome.error[:300])
        self._keep(outcome)

    def _keep(self, outcome: Outcome) -> None:
        if self.has_ended:
            return
        environment = self._environment
        if len(outcome.data) > environment.settings.max_particle or not self._grow(len(outcome.data) - len(self._data)):
            environment.metrics.drop("data too large")
            return
        self._data = outcome.data
        share = _DECODED * outcome.calls_size // max(len(outcome.calls), 1)
        for number, request in outcome.calls.items():
            self._start_call(number, request, share)
        if len(outcome.next_peers) > environment.settings.max_next_peers:
            environment.metrics.drop("too many next peers")
        for peer_id in dict.fromkeys(outcome.next_peers[: environment.settings.max_next_peers]):
            if peer_id == environment.host_peer_id:
                with suppress(BadParticle):
                    self.take(self.source, outcome.data)
            else:
                environment.send_on(self.source, self.particle.with_data(outcome.data), peer_id, self.deadline)

    def _grow(self, change: int) -> bool:
        """Holds so many bytes more or less; False where there is no room for them."""
        if change > 0:
            return self._memory.take(change)
        self._memory.give_back(-change)
        return True

    def _start_call(self, number: int, request: CallRequest, size: int) -> None:
        environment = self._environment
        if self._calls.amount < environment.settings.max_calls and self._memory.take(size):
            if self._calls.take(1):
                environment.metrics.count("calls made")
                environment.nursery.start_soon(self._call, number, request, size)
                return
            self._memory.give_back(size)
        environment.metrics.count("refused calls")
        self._finish_call(number, _TOO_MANY_CALLS)

    async def _call(self, number: int, request: CallRequest, size: int) -> None:
        result = _INTERNAL
        try:
            with self._until_the_end() as scope:
                result = await self._environment.calls.call(self._context, request)
        except Exception:  # of one call; raised on, it would end the node
            log.exception("a builtin failed", service=request.service_id, function=request.function_name)
        finally:
            self._calls.give_back(1)
            self._memory.give_back(size)
        if not scope.cancelled_caught:
            self._finish_call(number, result)

    def _finish_call(self, number: int, result: CallResult) -> None:
        if self.has_ended:
            return
        self._results[number] = result  # before room is made, so that this one isn't taken for idle
        if not self._memory.take(_held_for(result)):
            self._results[number] = _NO_ROOM
        self._wake()

    @contextmanager
    def _until_the_end(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(deadline=self.deadline) as scope:
            self._scopes.add(scope)
            if self.has_ended:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)


def _held_for(result: CallResult) -> int:
    """Bytes that a result takes; those that say that there was no room are one for all."""
    return 0 if result is _TOO_MANY_CALLS or result is _NO_ROOM else len(result.result)
