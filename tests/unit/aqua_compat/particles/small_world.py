"""Particles over a network in memory, with steps that a test scripts, or the real interpreter's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from aqua_compat.particles.engine.actor import Context, Steps
from aqua_compat.particles.engine.steps import CallRequest, CallResult, Outcome, Step
from aqua_compat.particles.inbound.receiver import Receiver
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import Particle, encode, parse_length
from aqua_compat.particles.server import open_particles
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import NoSuchMethod, Unreachable
from overlay.identity import Identity
from tests.unit.aqua_compat.particles.scripts import HOST, NOW, decoded
from tests.unit.overlay.memory_network import MemoryStream, memory_streams

Answer = Callable[[CallRequest], Awaitable[CallResult]]


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


def outcome(data: bytes = b"", to: list[str] | None = None, calls: dict[int, CallRequest] | None = None) -> Outcome:
    return Outcome(ret_code=0, error="", data=data, next_peers=to or [], calls=calls or {})


def request(function: str, *arguments: Any, service: str = "op") -> CallRequest:
    return CallRequest(service, function, list(arguments), [])


class ScriptedSteps:
    """Answers each step by `act`; remembers all, and how many ran at the same time for one particle."""

    def __init__(self, act: Callable[[Step], Outcome]) -> None:
        self.act = act
        self.steps: list[Step] = []
        self.duration = 0.01
        self.running: dict[str, int] = {}
        self.most_at_once = 0

    async def step(self, source: str, step: Step) -> Outcome:
        self.steps.append(step)
        self.running[step.particle_id] = self.running.get(step.particle_id, 0) + 1
        self.most_at_once = max(self.most_at_once, self.running[step.particle_id])
        try:
            await trio.sleep(self.duration)
        finally:
            self.running[step.particle_id] -= 1
        return self.act(step)


class ScriptedCalls:
    """Answers calls by `answer`; by default at once with "done"."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.calls: list[CallRequest] = []
        self.contexts: list[Context] = []

    async def call(self, context: Context, request: CallRequest) -> CallResult:
        self.calls.append(request)
        self.contexts.append(context)
        if self.answer is not None:
            return await self.answer(request)
        await trio.lowlevel.checkpoint()
        return CallResult(0, '"done"')


class MemoryReach:
    """What others there are: `linked` take particles on their link, `connected` by streams."""

    def __init__(self) -> None:
        self.linked: set[str] = set()
        self.connected: set[str] = set()
        self.known: set[str] = set()
        self.findable: set[str] = set()
        self.without_method: set[str] = set()
        self.sent: list[tuple[str, str, Particle]] = []
        self.asked: list[str] = []
        self.deliver: Callable[[str, Particle], None] | None = None
        self.stalls = False
        self.refusals = 0
        self.streams: list[MemoryStream] = []

    def is_connected(self, peer_id: str) -> bool:
        return peer_id in self.connected or peer_id in self.linked

    def is_linked(self, peer_id: str) -> bool:
        return peer_id in self.linked

    def has_address(self, peer_id: str) -> bool:
        return peer_id in self.known

    async def find(self, peer_id: str, timeout: float) -> bool:
        await trio.lowlevel.checkpoint()
        self.asked.append(peer_id)
        return peer_id in self.findable

    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        if peer_id in self.without_method:
            raise NoSuchMethod(peer_id, method)
        assert isinstance(body, bytes)
        self._note("link", peer_id, body)
        return None

    async def open_stream(self, peer_id: str, protocol_id: str) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        if not (self.is_connected(peer_id) or peer_id in self.known or peer_id in self.findable):
            raise Unreachable(peer_id, protocol_id)
        if self.refusals:
            self.refusals -= 1
            raise Unreachable(peer_id, protocol_id, "too many streams")
        ours, _ = memory_streams()
        self.streams.append(ours)
        if self.stalls:
            ours.stall()
        write = ours.write

        async def noted(payload: bytes) -> None:
            await write(payload)
            prefix = parse_length(payload)
            assert prefix is not None
            self._note("stream", peer_id, payload[prefix[1] :])

        ours.write = noted  # type: ignore[method-assign]
        return ours

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> MemoryStream:
        stream = await self.open_stream(peer_id, protocol_id)
        await stream.may_write.wait()
        prefix = parse_length(message)
        assert prefix is not None
        self._note("at once", peer_id, message[prefix[1] :])
        return stream

    def _note(self, way: str, peer_id: str, message: bytes) -> None:
        particle = decoded(message)
        self.sent.append((way, peer_id, particle))
        if self.deliver is not None:
            self.deliver(peer_id, particle)


class ParticleServer:
    """The particle server of one host."""

    def __init__(self, receiving: Receiver, reach: MemoryReach, metrics: Metrics) -> None:
        self.receiving = receiving
        self.reach = reach
        self.metrics = metrics

    async def bring(self, particle: Particle, source: str = "a client") -> None:
        """As on a link. Raises Refusal."""
        await self.receiving.handle_call(source, encode(particle))

    def counts(self) -> dict[str, float]:
        return self.metrics.snapshot()


@asynccontextmanager
async def a_server(
    steps: Steps, calls: Any = None, *, host: Identity = HOST, reach: MemoryReach | None = None, **changes: Any
) -> AsyncIterator[ParticleServer]:
    settings = AquaSettings(**changes)
    metrics = Metrics()
    network = reach or MemoryReach()
    async with open_particles(
        host.peer_id, settings, steps, calls or ScriptedCalls(), network, metrics, clock
    ) as receiving:
        yield ParticleServer(receiving, network, metrics)
