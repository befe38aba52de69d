"""One particle on this node: one step of the interpreter after the other, until it expires.

A step takes what is known so far, the next copy that came (or none) and all results of calls that came in since. What
comes out is kept, its calls are made at once, and the particle goes to the next peers with it (reference: protocol).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, Protocol

import structlog
import trio

from aqua_compat.particles.engine.steps import CallRequest, CallResult, Outcome, Step, StepLimits, build_results
from aqua_compat.particles.errors import InterpreterFailed
from aqua_compat.particles.fairness.quota import Quota
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import Particle
from aqua_compat.particles.settings import AquaSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

OVERHEAD = 4096  # bytes of an actor without script and data
_DECODED = 16  # times as much memory as its bytes, about, that a call's arguments take
_SOURCES_OF_COPIES = 4  # as many peers together as one
_TOO_MANY_CALLS = CallResult(1, '"too many calls are under way on this peer"')
_NO_ROOM = CallResult(1, '"the result found no room on this peer"')
_INTERNAL = CallResult(1, '"internal error"')


class Context:
    """What a call may know of the particle that makes it."""

    __slots__ = ("countersigned_keys", "deadline", "hold", "init_peer_id", "made_bytes", "particle_id", "source")

    def __init__(self, particle: Particle, source: str, deadline: float, hold: Callable[[int], None]) -> None:
        """`source` brought the particle; `hold` charges it for bytes kept here."""
        self.source = source
        self.hold = hold
        self.init_peer_id = particle.init_peer_id
        self.particle_id = particle.id
        self.deadline = deadline  # of Trio's clock
        self.made_bytes: dict[bytes, object] = {}
        """What get_record_bytes made in this particle, by the bytes."""
        self.countersigned_keys: set[str] = set()
        """Keys of records that this host signed in this particle."""


class Steps(Protocol):
    """Where steps are run."""

    async def step(self, source: str, step: Step) -> Outcome:
        """Raises InterpreterFailed."""
        ...


class Calls(Protocol):
    """What scripts can call here."""

    async def call(self, context: Context, request: CallRequest) -> CallResult:
        """Never raises for what a script does."""
        ...


SendOn = Callable[[str, Particle, str, float], None]
"""(who brought it, particle, to which peer, until when) -> nothing; sends it in time."""


class ActorEnvironment:
    """What all actors of a node share."""

    def __init__(
        self,
        host_peer_id: str,
        settings: AquaSettings,
        steps: Steps,
        calls: Calls,
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
        self.memory = Quota(settings.max_bytes, settings.max_bytes_per_peer)
        self.make_room: Callable[[str, int], bool] = self.memory.has_room
        """(source, bytes) -> whether there is room for them, now or once what is done was forgotten."""
        self.calls_under_way = Quota(settings.max_calls_of_all, settings.max_calls_per_peer)
        self.take_call: Callable[[str], bool] = partial(self.calls_under_way.take, amount=1)
        """(source) -> whether one more call of it may begin, and is counted now."""


class _Copy(NamedTuple):
    """`source` brought it."""

    source: str
    data: bytes


class Actor:
    """Made by `Reception`, which forgets it when it has expired. `source` is the peer that brought it first."""

    def __init__(self, particle: Particle, source: str, deadline: float, around: ActorEnvironment) -> None:
        self.particle = particle.with_data(b"")
        self.source = source
        self.deadline = deadline
        self._around = around
        self._context = Context(particle, source, deadline, self._hold)
        self._data = b""
        self._incoming: deque[_Copy] = deque()
        self._results: dict[int, CallResult] = {}
        self.calls = 0
        """Calls that are under way."""
        self._is_stepping = False
        self.has_ended = False
        self._scopes: set[trio.CancelScope] = set()
        self._held = OVERHEAD + len(particle.script)
        around.memory.add(source, self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way: forgetting it costs only what it knew."""
        return not (self._is_stepping or self._incoming or self._results or self.calls)

    def has_room_for_copy(self, source: str) -> bool:
        """Whether one more copy may wait for its step that the peer `source` brings."""
        most = self._around.settings.max_waiting
        of_source = sum(copy.source == source for copy in self._incoming)
        return of_source < most and len(self._incoming) < _SOURCES_OF_COPIES * most

    def take(self, source: str, data: bytes) -> None:
        """One more copy of the particle came, with this data. Who brought it answers for the copy until its step."""
        self._incoming.append(_Copy(source, data))
        self._around.memory.add(source, len(data))
        self._wake()

    def end(self) -> None:
        """What is under way stops, and its memory is free."""
        self._hold(-self._held)
        for copy in self._incoming:
            self._around.memory.add(copy.source, -len(copy.data))
        self._incoming.clear()
        self._around.calls_under_way.add(self.source, -self.calls)
        self.has_ended = True
        for scope in self._scopes:
            scope.cancel()

    def _hold(self, change: int) -> None:
        if not self.has_ended:
            self._held += change
            self._around.memory.add(self.source, change)

    def _wake(self) -> None:
        if not self._is_stepping and not self.has_ended and trio.current_time() < self.deadline:
            self._is_stepping = True
            self._around.nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Steps for as long as there is something to step with."""
        try:
            with self._until_the_end():
                while self._incoming or self._results:
                    await self._step()
        except Exception:  # of one particle; raised on, it would end the node
            log.exception("a particle failed", particle=self.particle.id)
            self._around.metrics.drop("internal error")
        finally:
            self._is_stepping = False

    async def _step(self) -> None:
        around, particle, limits = self._around, self.particle, self._around.settings
        copy = self._incoming.popleft() if self._incoming else _Copy(self.source, b"")
        results, self._results = self._results, {}
        step = Step(
            script=particle.script,
            previous=self._data,
            incoming=copy.data,
            results=build_results(results),
            init_peer_id=particle.init_peer_id,
            current_peer_id=around.host_peer_id,
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
        try:
            outcome = await around.steps.step(copy.source, step)
        except InterpreterFailed as error:
            around.metrics.drop("step failed")
            log.debug("a particle's step failed", particle=particle.id, error=str(error))
            return
        finally:
            around.memory.add(copy.source, -len(copy.data))
            self._hold(-sum(len(result.result) for result in results.values()))
        if outcome.ret_code != 0:
            around.metrics.count("script errors")
            log.debug("a script failed", particle=particle.id, code=outcome.ret_code, error=outcome.error[:300])
        self._keep(outcome)

    def _keep(self, outcome: Outcome) -> None:
        if self.has_ended:
            return
        around = self._around
        growth = len(outcome.data) - len(self._data)
        if len(outcome.data) > around.settings.max_particle or not around.make_room(self.source, growth):
            around.metrics.drop("data too large")
            return
        self._hold(growth)
        self._data = outcome.data
        share = _DECODED * outcome.calls_size // max(len(outcome.calls), 1)
        for number, request in outcome.calls.items():
            self._start_call(number, request, share)
        if len(outcome.next_peers) > around.settings.max_next_peers:
            around.metrics.drop("too many next peers")
        for peer_id in dict.fromkeys(outcome.next_peers[: around.settings.max_next_peers]):
            if peer_id == around.host_peer_id:
                if self.has_room_for_copy(self.source):
                    self.take(self.source, outcome.data)
            else:
                around.send_on(self.source, self.particle.with_data(outcome.data), peer_id, self.deadline)

    def _start_call(self, number: int, request: CallRequest, size: int) -> None:
        around = self._around
        if (
            self.calls >= around.settings.max_calls
            or not around.make_room(self.source, size)
            or not around.take_call(self.source)
        ):
            around.metrics.count("refused calls")
            self._finish_call(number, _TOO_MANY_CALLS)
            return
        self.calls += 1
        around.metrics.count("calls made")
        self._hold(size)
        around.nursery.start_soon(self._call, number, request, size)

    async def _call(self, number: int, request: CallRequest, size: int) -> None:
        result = _INTERNAL
        try:
            with self._until_the_end() as scope:
                result = await self._around.calls.call(self._context, request)
        except Exception:  # of one call; raised on, it would end the node
            log.exception("a builtin failed", service=request.service_id, function=request.function_name)
        finally:
            if not self.has_ended:
                self.calls -= 1
                self._around.calls_under_way.add(self.source, -1)
            self._hold(-size)
        if not scope.cancelled_caught:
            self._finish_call(number, result)

    def _finish_call(self, number: int, result: CallResult) -> None:
        self._results[number] = result  # before room is made, so that this one isn't taken for done
        if not self._around.make_room(self.source, len(result.result)):
            result = self._results[number] = _NO_ROOM
        self._hold(len(result.result))
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
