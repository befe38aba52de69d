"""Answers FIND_NODE of libp2p's Kad-DHT, for peers of other implementations that look for members.

Rules:
1. Answers name members alone, of whom we verified that they are; whoever asks enters nothing.
2. Nothing is stored: what others put is refused, and what they want to get is answered by who is nearer.
3. A peer has a few streams at a time. When all places are taken, the stream that hasn't asked for longest gives way.
4. Each message has a deadline, each peer a rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from overlay.errors import StreamBroken
from overlay.libp2p.kad_messages import LONGEST_REQUEST, KnownPeer, MessageReader, encoded, tell
from overlay.limits.token_bucket import TokenBuckets
from overlay.rpc.transport import ByteStream

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MOST_STREAMS: Final = 128
MOST_STREAMS_OF_ONE: Final = 4
IDLE: Final = 5.0
"""Seconds in which a message has to come."""
_WRITING: Final = 5.0
_ANSWERED: Final = 20  # peers in an answer
_RATE: Final = 20.0
_BURST: Final = 40.0

_ANSWERS: Final = frozenset(
    {Message.MessageType.FIND_NODE, Message.MessageType.GET_VALUE, Message.MessageType.GET_PROVIDERS}
)

Nearest = Callable[[int, int], Sequence[KnownPeer]]
"""The known members nearest to a position, at most so many, nearest first."""


class KadServer:
    """Serves streams of the Kad protocol. `handle` is a `StreamHandler`."""

    def __init__(self, nearest: Nearest) -> None:
        self._nearest = nearest
        self._idle: dict[trio.CancelScope, str] = {}  # streams whose next message is waited for, the longest first
        self._streams: dict[str, int] = {}
        self._rates = TokenBuckets(_RATE, _BURST)

    async def handle(self, peer_id: str, stream: ByteStream) -> None:
        """Serve one stream, until it ends or has to give way."""
        if not self._has_place(peer_id):
            await stream.reset()
            return
        self._streams[peer_id] = self._streams.get(peer_id, 0) + 1
        is_done = False
        try:
            is_done = await self._serve(peer_id, stream)
        except (StreamBroken, DecodeError, ValueError) as error:
            log.debug("a Kad stream ended", peer_id=peer_id, error=str(error)[:200])
        finally:
            self._leave(peer_id)
            with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                await (stream.close() if is_done else stream.reset())

    def _has_place(self, peer_id: str) -> bool:
        if self._streams.get(peer_id, 0) >= MOST_STREAMS_OF_ONE:
            return self._give_way(lambda other: other == peer_id)
        return sum(self._streams.values()) < MOST_STREAMS or self._give_way(lambda _: True)

    def _give_way(self, may: Callable[[str], bool]) -> bool:
        """End the stream that hasn't asked for longest."""
        scope = next((scope for scope, peer_id in self._idle.items() if may(peer_id)), None)
        if scope is None:
            return False
        self._leave(self._idle.pop(scope))
        scope.cancel()
        return True

    def _leave(self, peer_id: str) -> None:
        self._streams[peer_id] = self._streams.get(peer_id, 0) - 1
        if self._streams[peer_id] <= 0:
            del self._streams[peer_id]

    async def _serve(self, peer_id: str, stream: ByteStream) -> bool:
        """Answer message after message. Returns whether the peer ended the stream in order."""
        reader = MessageReader(stream, LONGEST_REQUEST)
        while True:
            request: Message | None = None
            with trio.move_on_after(IDLE) as scope:
                self._idle[scope] = peer_id
                try:
                    request = await reader.next()
                finally:
                    has_place = self._idle.pop(scope, None) is not None
            if not has_place:
                self._streams[peer_id] = self._streams.get(peer_id, 0) + 1  # given back by `handle`
                return False
            if scope.cancelled_caught or request is None:
                return request is None and not scope.cancelled_caught
            if not self._rates.take(peer_id, trio.current_time()):
                return False
            await trio.lowlevel.checkpoint()  # hundreds may have come at once
            answer = self._answer(peer_id, request)
            if answer is None:
                return False
            with trio.move_on_after(_WRITING) as writing:
                await stream.write(encoded(answer))
            if writing.cancelled_caught:
                return False

    def _answer(self, peer_id: str, request: Message) -> Message | None:
        """The answer; None for what isn't served."""
        if request.type == Message.MessageType.PING:
            return request
        if request.type not in _ANSWERS:
            return None
        answer = Message(type=request.type, key=request.key)
        position = int.from_bytes(hashlib.sha256(request.key).digest(), "big")
        nearest = [
            peer for peer in self._nearest(position, _ANSWERED + 1) if peer.peer_id != peer_id and peer.addresses
        ]
        tell(answer, nearest[:_ANSWERED])
        return answer
