"""One link: calls in both directions on one stream to one peer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import trio

from overlay.errors import BodyTooLarge, ConnectionLost, Overloaded, ProtocolError, StreamBroken
from overlay.rpc.counters import Counters
from overlay.rpc.framing import HEADER_BYTES, FrameDecoder, FrameError, decode_item
from overlay.rpc.pending import LinkLost, PendingCalls, failure
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Frame,
    Hello,
    Ping,
    Pong,
    Refused,
    Request,
    Response,
    encode,
    parse,
)
from overlay.rpc.server import Handler, RequestServer
from overlay.rpc.transport import ByteStream
from overlay.rpc.write_queue import BATCH_BYTES, WriteQueue, WriteQueueClosed, WriteQueueFull
from overlay.settings import CallLimits

_READ_BYTES = 64 * 1024
_LONGEST_TIMEOUT = 3600.0
_CLOSING_TIMEOUT = 1.0
_SECOND_TO_ASK = 1.25  # ping intervals after which the side that didn't open the link asks


class NotSent(Exception):
    """The link takes no more calls, and this one surely wasn't sent: another link may carry it."""


class Link:
    """Calls to and from one peer on one stream. `run` does all the work and owns all tasks."""

    def __init__(
        self,
        peer_id: str,
        stream: ByteStream,
        *,
        opened_by: str,
        hello: Hello,
        handlers: Mapping[str, Handler],
        limits: CallLimits,
        counters: Counters,
    ) -> None:
        """`opened_by`: the peer id of the side that opened the stream. `hello`: our own."""
        self.peer_id = peer_id
        self.opened_by = opened_by
        self.remote: Hello | None = None
        """What the peer said of itself; None until it did."""
        self.up_since = 0.0
        self.loss = ""
        """Why the link ended; empty while it lives."""
        self.broke_protocol = False
        """Whether it ended because the peer broke the rules."""
        self.fell_silent = False
        """Whether it ended because the peer, once met, gave no sign of life any more."""
        self._stream = stream
        self._own_hello = hello
        self._limits = limits
        self._counters = counters
        self._write_queue = WriteQueue(limits.max_write_buffer, 2 * limits.max_frame)
        self._pending = PendingCalls()
        self._server = RequestServer(peer_id, handlers, self._write_queue, limits, counters, self._close_when_drained)
        self._nursery: trio.Nursery | None = None
        self._ended = trio.Event()
        self._said_bye = False
        self._heard_bye = False
        self._heard_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether calls can be made on it now."""
        return self.remote is not None and not self.loss and not self._said_bye

    async def run(self, when_up: Callable[[Link], None]) -> None:
        """Say hello, then serve until the stream ends, the peer breaks the rules, or the task is cancelled.

        `when_up` is called once the peer said hello. Never raises for what the peer does. In the end all pending calls
        fail with `Unreachable`, handlers are cancelled, and the stream is closed or reset.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self.loss:  # given up before it started
                    return
                self._write_queue.put(encode(self._own_hello))
                nursery.start_soon(self._write_frames)
                nursery.start_soon(self._watch_silence)
                await self._read_frames(when_up)
        finally:
            drained = not self.loss and self._drained
            self.end("the link was closed")
            self._write_queue.close()
            self._pending.lose()
            self._ended.set()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_TIMEOUT):
                await (self._stream.close() if drained else self._stream.reset())

    async def wait_ended(self) -> None:
        """Wait until the link is lost or closed."""
        await self._ended.wait()

    def end(self, reason: str, *, broke_protocol: bool = False) -> None:
        """Give the link up, at once."""
        if not self.loss:
            self.loss = reason
            self.broke_protocol = broke_protocol
            self._counters.malformed += broke_protocol
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def retire(self) -> None:
        """Make no more calls on it; end it when those under way, both ways, are done."""
        if not self._said_bye and not self.loss:
            self._said_bye = True
            self._put(Bye())
            self._close_when_drained()

    async def call(self, method: str, body: bytes, deadline: float) -> object:
        """Call the peer with an encoded body; the caller cancels this at `deadline`, which the peer is told.

        Raises `CallFailed`, and `NotSent` when the link takes no calls any more. A call that is cancelled here is
        cancelled there too.
        """
        if not self.usable:
            raise NotSent
        if len(self._pending) >= self._limits.max_pending:
            raise Overloaded(self.peer_id, method, "too many calls to it are pending")
        call_id, call = self._pending.add()
        in_write_queue = False
        try:
            timeout = min(max(deadline - trio.current_time(), 0.0), _LONGEST_TIMEOUT)
            frame = encode(Request(call_id, method, body, math.ceil(timeout * 1000)))
            if len(frame) - HEADER_BYTES > self._limits.max_frame:
                raise BodyTooLarge(self.peer_id, method)
            await self._write_queue.send(frame)
            in_write_queue = True
            answer = await call.wait()
        except WriteQueueClosed:
            raise NotSent from None
        except LinkLost:
            raise ConnectionLost(self.peer_id, method, self.loss) from None
        finally:
            if self._pending.give_up(call_id) and in_write_queue:
                self._put(Cancel(call_id))
            self._close_when_drained()
        if not isinstance(answer, Response):
            raise failure(self.peer_id, method, answer)
        try:
            return decode_item(answer.body)
        except FrameError as error:
            self._counters.malformed += 1
            raise ProtocolError(self.peer_id, method, f"its answer {error}") from error

    async def _read_frames(self, when_up: Callable[[Link], None]) -> None:
        decoder = FrameDecoder(self._limits.max_frame)
        try:
            while True:
                chunk = await self._stream.read_some(_READ_BYTES)
                if not chunk:
                    self.end("the peer closed the link")
                    return
                self._heard_at = trio.current_time()
                self._counters.bytes_received += len(chunk)
                for item in decoder.feed(chunk):
                    frame = parse(item)
                    if self.remote is not None:
                        self._receive(frame)
                    else:
                        self._meet(frame)
                        when_up(self)
        except StreamBroken as error:
            self.end(f"the stream broke: {error}")
        except FrameError as error:
            self.end(f"the peer broke the protocol: {error}", broke_protocol=True)
        except WriteQueueFull:
            self.end("the peer doesn't read", broke_protocol=True)

    def _meet(self, frame: Frame) -> None:
        if not isinstance(frame, Hello):
            raise FrameError("the first frame isn't a hello")
        self.remote = frame
        self.up_since = trio.current_time()

    def _receive(self, frame: Frame) -> None:
        match frame:
            case Response() | Refused() | Failed():
                self._pending.settle(frame)
            case Request():
                if self._heard_bye:
                    raise FrameError("a request after a bye")
                assert self._nursery is not None
                self._server.accept(frame, self._nursery)
            case Cancel():
                self._server.cancel(frame.id)
            case Ping():
                self._write_queue.put(encode(Pong()))
            case Pong():
                pass
            case Bye():
                self._heard_bye = True
                self._close_when_drained()
            case Hello():
                raise FrameError("a second hello")

    async def _write_frames(self) -> None:
        try:
            while True:
                batch = await self._write_queue.take()
                # A large frame in pieces, so that the deadline is for 64 KiB, whatever the size of the frame.
                for start in range(0, len(batch), BATCH_BYTES):
                    piece = batch if len(batch) <= BATCH_BYTES else batch[start : start + BATCH_BYTES]
                    with trio.move_on_after(self._limits.write_timeout) as scope:
                        await self._stream.write(piece)
                    if scope.cancelled_caught:
                        self._counters.stalled += 1
                        self.end(f"the peer read nothing for {self._limits.write_timeout:g} s")
                        return
                    self._counters.bytes_sent += len(piece)
                    self._write_queue.written(len(piece))
                self._close_when_drained()
        except StreamBroken as error:
            self.end(f"the stream broke: {error}")

    async def _watch_silence(self) -> None:
        await trio.sleep(self._limits.hello_timeout)
        if self.remote is None:
            self._counters.stalled += 1
            self.end(f"the peer said no hello within {self._limits.hello_timeout:g} s")
        # One side's ping is the other's sign of life, so one side asks, unless it's the one that is silent.
        interval = self._limits.ping_interval * (_SECOND_TO_ASK if self.opened_by == self.peer_id else 1.0)
        longest = interval + self._limits.ping_timeout
        while not self.loss:
            asked_at = self._heard_at + interval
            await trio.sleep_until(asked_at)
            if self._heard_at + interval > asked_at:
                continue
            self._put(Ping())
            await trio.sleep_until(self._heard_at + longest)
            if trio.current_time() >= self._heard_at + longest:
                self._counters.stalled += 1
                self.fell_silent = True
                self.end(f"the peer was silent for {longest:g} s")

    def _put(self, frame: Frame) -> None:
        if self.loss:
            return
        try:
            self._write_queue.put(encode(frame))
        except WriteQueueFull:
            self.end("the peer doesn't read", broke_protocol=True)

    @property
    def _drained(self) -> bool:
        return (
            self._said_bye
            and self._heard_bye
            and not self._pending
            and self._server.idle
            and not self._write_queue.buffered
        )

    def _close_when_drained(self) -> None:
        if self._said_bye and self._drained and self._nursery is not None:
            self._nursery.cancel_scope.cancel()
