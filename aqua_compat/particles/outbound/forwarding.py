"""Sends particles on: over the link that our own nodes have, else by a stream of the particle protocol.

A stream costs 4 ms of CPU at both ends together, a message on a link a tenth. Clients can't be dialled: they are
reached on the connection that they opened; those that sent us particles needn't be asked whether they speak the
protocol. A peer that can't be reached isn't tried again for some seconds.

Whoever brought a particle answers for its sending: in what waits (`Outgoing`), in lookups, and in places to send to one
peer, so that others' particles pass by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, Protocol

import structlog
import trio
from cachetools import LRUCache, TTLCache

from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.metrics import Metrics
from aqua_compat.particles.outbound.outgoing import Outgoing, Sending
from aqua_compat.particles.particle import PROTOCOL, Particle, encode, framed
from aqua_compat.particles.settings import AquaSettings
from overlay.errors import CallFailed, NoSuchMethod, PeerIdError, StreamBroken
from overlay.identity import public_key_of
from overlay.rpc.negotiation import negotiation_of
from overlay.rpc.transport import ByteStream
from overlay.tasks import TaskOwner, TaskStatus

LINK_METHOD: Final = "aqua/particle"
_LARGEST_ON_LINK: Final = 512 * 1024  # bytes; a frame takes 1 MiB
_AT_ONCE: Final = 16  # to one peer
_AT_ONCE_OF_ONE: Final = 12  # of those, of particles that one peer brought
_BACKOFF: Final = 3.0  # seconds
_MOST_REMEMBERED: Final = 4096  # peers
_A_MOMENT_AGO: Final = "it couldn't be reached a moment ago"
_SECOND_TRY: Final = 0.3  # seconds
_ANSWERS: Final = negotiation_of(PROTOCOL)
_ANSWER: Final = 5.0  # seconds for the answers to the negotiation, where the message was sent with it
_LINGER: Final = 0.5  # seconds that the other side gets to close a stream after its message
_MOST_LINGERING: Final = 64  # streams to one peer

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Reach(Protocol):
    """What sending needs of a network: the particle server and the tests' network in memory provide it."""

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open."""
        ...

    def is_linked(self, peer_id: str) -> bool:
        """Whether it is one of our own peers, with a link."""
        ...

    def has_address(self, peer_id: str) -> bool:
        """Whether the peer could be dialled without asking others."""
        ...

    async def find(self, peer_id: str, timeout: float) -> bool:
        """Asks others where the peer is; whether anybody knew."""
        ...

    async def call(self, peer_id: str, method: str, body: object, timeout: float) -> object:
        """Calls a method of a peer. Raises CallFailed."""
        ...

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        """Opens a stream to a peer. Raises CallFailed."""
        ...

    async def open_stream_with(self, peer_id: str, protocol_id: str, message: bytes) -> ByteStream:
        """A stream on which negotiation and message are under way. Raises CallFailed."""
        ...


class Forwarding:
    """Sends particles on. Use `run`: its tasks send them."""

    def __init__(self, reach: Reach, settings: AquaSettings, metrics: Metrics, lookups: FairSemaphore) -> None:
        """`lookups`: the places for asking other peers where a peer is."""
        self._reach = reach
        self._settings = settings
        self._metrics = metrics
        self._tasks = TaskOwner()
        self._lookups = lookups
        self._outgoing = Outgoing(settings)
        self._places: dict[str, FairSemaphore] = {}
        self._backing_off: TTLCache[str, None] = TTLCache(_MOST_REMEMBERED, _BACKOFF, timer=trio.current_time)
        self._without_method: LRUCache[str, None] = LRUCache(_MOST_REMEMBERED)
        self._protocol_peers: LRUCache[str, None] = LRUCache(_MOST_REMEMBERED)
        self._lingering: Counter[str] = Counter()
        metrics.gauge("sending", lambda: self._outgoing.total)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sends until cancelled."""
        await self._tasks.run(task_status=task_status)

    def note_protocol_peer(self, peer_id: str) -> None:
        """Remembers that a peer speaks the particle protocol, for it sent a particle."""
        self._protocol_peers[peer_id] = None

    def send_on(self, source: str, particle: Particle, peer_id: str, deadline: float) -> None:
        """Sends a particle that `source` brought to a peer, at the latest by `deadline` (Trio's clock); drops it where
        that can't be done."""
        if not self._tasks.is_open:
            return
        try:
            public_key_of(peer_id)
        except PeerIdError:
            self._drop(particle, peer_id, "no peer id", "it names no peer")
            return
        if self._is_backing_off(peer_id):
            self._drop(particle, peer_id, "unreachable peer", _A_MOMENT_AGO)
            return
        until = min(deadline, trio.current_time() + self._settings.send_timeout)
        sending = self._outgoing.begin(source, particle, peer_id, until)
        if sending is None:
            self._drop(particle, peer_id, "too many to send", "too many particles wait for being sent")
            return
        self._tasks.start_soon(self._send_within, sending)

    async def _send_within(self, sending: Sending) -> None:
        particle, peer_id, reason = sending.particle, sending.peer_id, "timeout exceeded"
        try:
            with sending.scope:
                reason = await self._send(sending)
        except Exception:  # of one particle; raised on, it would end the node
            log.exception("sending a particle failed", particle=particle.id, peer_id=peer_id)
            reason = "internal error"
        finally:
            self._outgoing.end(sending)
        if not reason:
            self._metrics.count("sent")
        elif sending.gave_way:
            self._drop(particle, peer_id, "too many to send", "it gave way to those of others")
        else:
            self._drop(particle, peer_id, "unreachable peer", reason)

    async def _send(self, sending: Sending) -> str:
        """Why it couldn't be sent; empty when it was."""
        peer_id = sending.peer_id
        try:
            if not self._is_reachable(peer_id):
                async with self._lookups.place(sending.source):
                    if not await self._find(peer_id):
                        return "nobody knows where it is"
            async with self._place_at(peer_id, sending.source):
                # Not for a timeout: that may have been spent on waiting for the place.
                return _A_MOMENT_AGO if self._is_backing_off(peer_id) else await self._send_now(sending)
        except (CallFailed, StreamBroken) as error:
            self._back_off(peer_id)
            return str(error)

    def _is_reachable(self, peer_id: str) -> bool:
        return self._reach.is_connected(peer_id) or self._reach.has_address(peer_id)

    async def _find(self, peer_id: str) -> bool:
        """Whether the peer can be reached, if need be after asking others, who may have been asked meanwhile."""
        if self._is_reachable(peer_id):
            return True
        # Half of the time: whoever waits for the place has the other half.
        if self._is_backing_off(peer_id) or not await self._reach.find(peer_id, self._settings.send_timeout / 2):
            self._back_off(peer_id)
            return False
        return True

    def _is_backing_off(self, peer_id: str) -> bool:
        return peer_id in self._backing_off and not self._reach.is_connected(peer_id)

    def _back_off(self, peer_id: str) -> None:
        if not self._reach.is_connected(peer_id) and not self._is_backing_off(peer_id):
            self._backing_off[peer_id] = None

    @asynccontextmanager
    async def _place_at(self, peer_id: str, source: str) -> AsyncIterator[None]:
        places = self._places.setdefault(peer_id, FairSemaphore(_AT_ONCE, _AT_ONCE_OF_ONE))
        try:
            async with places.place(source):
                yield
        finally:
            if places.are_idle:
                del self._places[peer_id]

    async def _send_now(self, sending: Sending) -> str:
        reach, peer_id, message = self._reach, sending.peer_id, encode(sending.particle)
        if len(message) > self._settings.max_particle:
            return f"it has {len(message)} bytes, and peers take at most {self._settings.max_particle}"
        if len(message) <= _LARGEST_ON_LINK and reach.is_linked(peer_id) and peer_id not in self._without_method:
            try:
                await reach.call(peer_id, LINK_METHOD, message, self._settings.send_timeout)
            except NoSuchMethod:
                self._without_method[peer_id] = None
            else:
                return ""
        at_once = peer_id in self._protocol_peers and self._lingering[peer_id] < _MOST_LINGERING
        if at_once:
            stream = await self._twice(peer_id, partial(reach.open_stream_with, message=framed(message)))
        else:
            stream = await self._twice(peer_id, reach.open_stream)
        sent = False
        try:
            if not at_once:
                await stream.write(framed(message))
            await stream.close()
            sent = True
        finally:
            self._let_go(peer_id, stream, sent=sent, answers=len(_ANSWERS) if at_once else 0)
        return ""

    async def _twice(self, peer_id: str, open_stream: Callable[[str, str], Awaitable[ByteStream]]) -> ByteStream:
        try:
            return await open_stream(peer_id, PROTOCOL)
        except CallFailed:
            if not self._reach.is_connected(peer_id):
                raise
        await trio.sleep(_SECOND_TRY)  # a client that has too many streams may have fewer then
        return await open_stream(peer_id, PROTOCOL)

    def _let_go(self, peer_id: str, stream: ByteStream, *, sent: bool, answers: int) -> None:
        if self._tasks.is_open:
            lingers = sent and self._lingering[peer_id] < _MOST_LINGERING
            self._lingering[peer_id] += 1
            self._tasks.start_soon(self._end_stream, peer_id, stream, lingers, answers)

    async def _end_stream(self, peer_id: str, stream: ByteStream, lingers: bool, answers: int) -> None:
        """The other side's end too: the original's client never closes what it didn't open, and after 1,000 such
        streams refuses the next. A reset right after the message could cost it where others read it late; so could one
        before the `answers` (bytes) to the negotiation."""
        try:
            with suppress(StreamBroken):
                with trio.move_on_after(_ANSWER if lingers and answers else 0.0):
                    while answers > 0 and (received := await stream.read_some(1024)):
                        answers -= len(received)
                with trio.move_on_after(_LINGER if lingers else 0.0):
                    while await stream.read_some(1024):
                        pass
            with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                await stream.reset()
        finally:
            self._lingering[peer_id] -= 1
            if not self._lingering[peer_id]:
                del self._lingering[peer_id]

    def _drop(self, particle: Particle, peer_id: str, reason: str, text: str) -> None:
        # Scripts name peers as they please: a warning for each would let them fill the log.
        self._metrics.drop(reason)
        log.debug("a particle can't go on", particle=particle.id, peer_id=peer_id[:64], error=text)
