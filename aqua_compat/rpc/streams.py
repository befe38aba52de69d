"""Streams of results: one long call that runs a function, and calls in the opposite direction with its results.

The call belongs to the stream: it ends when the function does, and ending it ends the function, wherever it is. Results
travel in batches, one at a time, each answered when its reader is ready for the next: a slow reader slows the function
down, and neither side holds more than two batches.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import Meta, Struct

from overlay.errors import AnswerDropped, Overloaded, Refusal
from overlay.peer import OverlayPeer
from overlay.relaying.path_selection import Path
from overlay.rpc.bodies import encoded
from overlay.rpc.framing import FrameError

RESULTS_METHOD: Final = "service/results"

BATCH_BYTES: Final = 64 * 1024  # from which on a batch takes no more results
BATCH_RESULTS: Final = 256
MOST_OF_RESULT: Final = 400 * 1024  # bytes; with a batch before it, relays pass it on
LONGEST: Final = 3600.0  # seconds that a stream may last

_BUSY: Final = 0.5  # seconds until a batch is sent again that found no room
_MOST_STREAMS: Final = 1024
_MOST_OF_ONE_PEER: Final = 32  # each may hold one of the calls that the link to the peer serves at a time

Token = Annotated[bytes, Meta(min_length=16, max_length=16)]
Deliver = Callable[[list[Any]], Awaitable[None]]


class _ResultBatch(Struct, frozen=True, array_like=True):
    token: Token
    results: list[Any]


class TooManyStreams(Exception):
    """This peer has as many streams as it may, in all or of one peer."""


class Arrivals:
    """The streams that this peer reads."""

    def __init__(self, peer: OverlayPeer) -> None:
        self._streams: dict[bytes, Arriving] = {}
        self._of_peer: Counter[str] = Counter()
        peer.serve(RESULTS_METHOD, self.take, relayed=True)

    def open(self, peer_id: str) -> Arriving:
        """A stream of results of a peer, to be closed. Raises TooManyStreams."""
        if len(self._streams) >= _MOST_STREAMS or self._of_peer[peer_id] >= _MOST_OF_ONE_PEER:
            raise TooManyStreams(f"at most {_MOST_OF_ONE_PEER} streams of one peer, {_MOST_STREAMS} in all")
        stream = Arriving(secrets.token_bytes(16), peer_id)
        self._streams[stream.token] = stream
        self._of_peer[peer_id] += 1
        return stream

    def close(self, stream: Arriving) -> None:
        """Takes no more results of a stream."""
        del self._streams[stream.token]
        self._of_peer[stream.peer_id] -= 1
        if not self._of_peer[stream.peer_id]:
            del self._of_peer[stream.peer_id]
        stream.close()

    async def take(self, sender: str, body: object) -> object:
        """A batch of results; answered when there is room for it. Raises Refusal."""
        try:
            arrived = msgspec.convert(body, _ResultBatch, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        stream = self._streams.get(arrived.token)
        if stream is None or stream.peer_id != sender:
            raise Refusal("no-stream", "nobody reads this stream")
        await stream.put(arrived.results)
        return None


class Arriving:
    """A stream that arrives, which one task reads."""

    def __init__(self, token: bytes, peer_id: str) -> None:
        self.token = token
        self.peer_id = peer_id
        self._batch: deque[Any] = deque()
        self._ended: Exception | bool = False
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, results: list[Any]) -> None:
        """Waits until the batch before it was read. Raises Refusal when nobody reads any more."""
        while self._batch and not self._ended:
            await self._changed.park()
        if self._ended:
            raise Refusal("no-stream", "nobody reads this stream")
        self._batch.extend(results)
        self._changed.unpark_all()

    def end(self, failure: Exception | None) -> None:
        """Ends the stream after what has come: the function ended, or failed by `failure`."""
        self._ended = failure or True
        self._changed.unpark_all()

    def close(self) -> None:
        """Drops what has come: nobody reads any more."""
        self._batch.clear()
        self.end(None)

    async def get(self) -> Any:
        """The next result. Raises StopAsyncIteration at the end, or what made it end."""
        while not self._batch:
            if isinstance(self._ended, Exception):
                raise self._ended
            if self._ended:
                raise StopAsyncIteration
            await self._changed.park()
        result = self._batch.popleft()
        if not self._batch:
            self._changed.unpark_all()
        return result


class Departing:
    """Results of one function that are sent to their reader: gathered into a batch while the one before is sent."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._batch: list[Any] = []
        self._bytes = 0
        self._complete = False
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, result: object) -> None:
        """Waits while the batch is full. Raises FrameError for what can't be sent."""
        size = len(await encoded(result))
        if size > MOST_OF_RESULT:
            raise FrameError(f"{size} bytes; a result of a stream has at most {MOST_OF_RESULT}")
        while self._bytes >= BATCH_BYTES or len(self._batch) >= BATCH_RESULTS:
            await self._changed.park()
        self._batch.append(result)
        self._bytes += size
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    def complete(self) -> None:
        """No more results come; `run` ends when all were delivered."""
        self._complete = True
        self._changed.unpark_all()

    async def run(self) -> None:
        """Delivers until complete. Raises what delivering raises."""
        while self._batch or not self._complete:
            if not self._batch:
                await self._changed.park()
                continue
            batch, self._batch, self._bytes = self._batch, [], 0
            self._changed.unpark_all()
            await self._deliver(batch)


def delivering(peer: OverlayPeer, reader: str, path: Path, token: bytes, patience: float) -> Deliver:
    """Sends results to another peer by the path by which it called, each batch within `patience` seconds."""

    async def deliver(results: list[Any]) -> None:
        body = [token, results]
        deadline = trio.current_time() + patience
        while True:
            left = max(deadline - trio.current_time(), 0.0)
            try:
                if path:
                    await peer.call_via([path], reader, RESULTS_METHOD, body, timeout=left)
                else:
                    await peer.call(reader, RESULTS_METHOD, body, timeout=left)
            except AnswerDropped:
                return  # it has the batch; the answer says nothing more
            except Overloaded:  # other streams of that reader hold all its places
                if left < _BUSY:
                    raise
                await trio.sleep(_BUSY)
            else:
                return

    return deliver
