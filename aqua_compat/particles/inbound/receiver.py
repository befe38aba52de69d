"""Reads particles from streams of the particle protocol, and from links of our own nodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
import trio

from aqua_compat.particles.errors import BadParticle
from aqua_compat.particles.inbound.dispatcher import Dispatcher
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.particle import LONGEST_PREFIX, Particle, decode, parse_length
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import Refusal, StreamBroken
from overlay.limits.fair_quota import FairQuota
from overlay.limits.time_slices import TimeSlices
from overlay.rpc.transport import ByteStream

READ_AT_ONCE: Final = 65_536  # bytes

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _IncomingMessage:
    """A message that is read within `scope`; `memory` holds what has arrived of it."""

    __slots__ = ("memory", "received", "scope")

    def __init__(self, source: str, quota: FairQuota) -> None:
        self.received = bytearray()
        self.scope = trio.CancelScope()
        self.memory = quota.open(source, self._give_way)

    def _give_way(self) -> None:
        self.received = bytearray()
        self.scope.cancel()


class Receiver:
    """Reads messages, within bounds, and gives particles to the dispatcher."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: AquaSettings,
        metrics: Metrics,
        note_protocol_peer: Callable[[str], None],
    ) -> None:
        """`note_protocol_peer` is called with each peer that sent a particle on a stream."""
        self._note_protocol_peer = note_protocol_peer
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._time_slices = TimeSlices()
        self._streams: dict[str, tuple[trio.CapacityLimiter, int]] = {}
        self._partial = FairQuota(settings.max_receiving_bytes, settings.max_receiving_bytes_per_peer)
        metrics.gauge("receiving bytes", lambda: self._partial.total)

    async def handle_stream(self, source: str, stream: ByteStream) -> None:
        """One message; bad ones, and those that take too long, cost their stream."""
        limiter, number = self._streams.get(source) or (
            trio.CapacityLimiter(self._settings.max_receiving_per_peer),
            0,
        )
        self._streams[source] = limiter, number + 1
        particle: Particle | None = None
        try:
            with trio.move_on_after(self._settings.receive_timeout):
                async with limiter:
                    particle = await self._read(source, stream)
        except BadParticle as error:
            self._metrics.drop(error.reason)
            log.debug("a peer sent no particle", source=source, error=str(error))
        except StreamBroken as error:
            self._metrics.drop("broken stream")
            log.debug("a particle's stream broke", source=source, error=str(error))
        finally:
            limiter, number = self._streams[source]
            if number > 1:
                self._streams[source] = limiter, number - 1
            else:
                del self._streams[source]
        if particle is None:
            await stream.reset()
            return
        self._note_protocol_peer(source)
        with suppress(BadParticle):  # counted; the protocol has no answer
            self._dispatcher.receive(source, particle)
        await stream.close()

    async def handle_call(self, source: str, body: object) -> object:
        """One message on a link. Raises Refusal."""
        if not isinstance(body, bytes):
            raise Refusal("malformed", "a particle is a byte string")
        try:
            self._dispatcher.receive(source, await self._decoded(source, body))
        except BadParticle as error:
            raise Refusal(error.reason, str(error)) from error
        return None

    async def _read(self, source: str, stream: ByteStream) -> Particle:
        incoming = _IncomingMessage(source, self._partial)
        try:
            with incoming.scope:
                message = await self._read_message(incoming, stream)
                return await self._decoded(source, message)
            raise BadParticle("full", "others needed the room of the one from whom most was being received")
        finally:
            incoming.memory.close()

    async def _read_message(self, incoming: _IncomingMessage, stream: ByteStream) -> bytes:
        while (prefix := parse_length(bytes(incoming.received[:LONGEST_PREFIX]))) is None:
            await self._read_more(incoming, stream)
        length, start = prefix
        if length > self._settings.max_particle:
            raise BadParticle("too large", f"a message of {length} bytes, more than {self._settings.max_particle}")
        while len(incoming.received) < start + length:
            await self._read_more(incoming, stream)
        return bytes(incoming.received[start : start + length])

    async def _decoded(self, source: str, message: bytes) -> Particle:
        particle, pieces = decode(message, self._settings.max_script)
        data: list[bytes] = []
        await self._time_slices.run(source, map(data.append, pieces))
        return particle.with_data(b"".join(data))

    async def _read_more(self, incoming: _IncomingMessage, stream: ByteStream) -> None:
        chunk = await stream.read_some(READ_AT_ONCE)
        if not chunk:
            raise BadParticle("malformed", "the stream ended within the message")
        if not incoming.memory.take(len(chunk)):
            raise BadParticle("full", "too much is being received")
        incoming.received += chunk
