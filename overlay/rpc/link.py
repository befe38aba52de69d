"""One link: calls in both directions on one stream to one peer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import trio

from overlay.errors import BodyTooLarge, ConnectionLost, Overloaded, ProtocolError, StreamBroken
from overlay.limits.time_slices import TimeSlices
from overlay.membership.gatekeeper import LinkFault
from overlay.rpc.bodies import decoded
from overlay.rpc.counters import Counters
from overlay.rpc.decoded_items import DecodedItems
from overlay.rpc.framing import HEADER_BYTES, FrameDecoder, FrameError
from overlay.rpc.link_state import Action, Cause, LinkState, Phase
from overlay.rpc.pending import LinkLost, PendingCalls, failure
from overlay.rpc.protocol import (
    Bye,
    Cancel,
    Failed,
    Frame,
    Hello,
    Keep,
    Notice,
    Ping,
    Reason,
    Referral,
    Refused,
    Request,
    Response,
    Stay,
    Unknown,
    encode,
    parse,
)
from overlay.rpc.server import Handler, RequestServer
from overlay.rpc.transport import ByteStream
from overlay.rpc.write_queue import BATCH_BYTES, WriteQueue, WriteQueueClosed, WriteQueueFull
from overlay.settings import CallLimits
from overlay.tasks import Broadcast
from overlay.tracing import TRACING

_READ_BYTES: Final = 64 * 1024
_FRAMES_AT_ONCE: Final = 16  # after which others get their turn: 64 KiB hold 10,000 of the smallest
_BYTES_AT_ONCE: Final = 8 * 1024  # of frames, likewise
_LONGEST_TIMEOUT: Final = 3600.0
_CLOSING_TIMEOUT: Final = 1.0


NoticeHandler = Callable[[str, bytes], None]
"""Reads a notice: (peer id, body). It must be cheap, and mustn't raise."""


class NotSent(Exception):
    """The link takes no more calls, and this one surely wasn't sent: another link may carry it."""


class Link:
    """Calls to and from one peer on one stream, as its `LinkState` says. `run` does all the work and owns all tasks."""

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
        when_free: Callable[[], None] = lambda: None,
        admit: Callable[[Hello], Bye | None] | None = None,
        listens: bool = False,
        ping_interval: Callable[[], float] | None = None,
        time_slices: TimeSlices | None = None,
        decoded_items: DecodedItems | None = None,
        notices: Mapping[str, NoticeHandler] | None = None,
        last_notice: Callable[[str], Notice | None] = lambda _: None,
    ) -> None:
        """`opened_by`: the peer id of the side that opened the stream. `hello`: our own.

        `when_free` is called when neither side keeps the link any more. `admit` is asked once the peer said hello; it
        returns the bye with which the peer is turned away. `listens`: we say hello only after that, not at once, which
        saves a round trip. `ping_interval`: see `LinkState`. `time_slices`, `decoded_items`: what all links of this
        peer share. `notices`: who reads them, by topic. `last_notice(peer id)`: what is said
        before the bye when this peer stops.
        """
        self.peer_id = peer_id
        self.opened_by = opened_by
        self._state = LinkState(limits, opened_by_peer=opened_by == peer_id, ping_interval=ping_interval)
        self._stream = stream
        self._limits = limits
        self._counters = counters
        self._write_queue = WriteQueue(limits.max_write_buffer, 2 * limits.max_frame)
        self._pending = PendingCalls()
        self._time_slices = time_slices or TimeSlices()
        self._decoding = trio.Lock()  # of answers
        self._server = RequestServer(
            peer_id,
            handlers,
            self._write_queue,
            limits,
            counters,
            self._note_served,
            self._time_slices,
            decoded_items or DecodedItems(limits.max_decoded, limits.max_decoded_per_peer),
            self._may_hold,
        )
        self._decoder = FrameDecoder(limits.max_frame)
        self._incomplete_until = math.inf
        self._hello = hello
        self._notices = notices or {}
        self._last_notice = last_notice
        self._when_free = when_free
        self._admit = admit
        self._listens = listens
        self._farewell: Bye | None = None
        self._is_writing = False
        self._was_up = False
        self._kept = True
        self._used_at = trio.current_time()
        self._active = False
        self._opened_at = self._used_at
        self._others: tuple[Referral, ...] = ()
        self._fault: LinkFault | None = None
        self._nursery: trio.Nursery | None = None
        self._decided = Broadcast()
        self._ended = trio.Event()

    @property
    def remote(self) -> Hello | None:
        """What the peer said of itself; None until it did."""
        return self._state.remote

    @property
    def is_to_member(self) -> bool:
        """Whether the peer said that it is a member of the network."""
        return self.remote is not None and self.remote.member

    @property
    def active(self) -> bool:
        """Whether the peer made a call since the link came up, or answered one."""
        return self._active

    @property
    def up_since(self) -> float:
        """When the peer said hello, in Trio's time."""
        return self._state.up_since

    @property
    def was_up(self) -> bool:
        """Whether both sides said hello, and neither turned the other away."""
        return self._was_up

    @property
    def minor(self) -> int:
        """The minor version of the protocol that both sides speak."""
        return min(self._hello.minor, self.remote.minor) if self.remote is not None else 0

    @property
    def usable(self) -> bool:
        """Whether calls can be made on it now."""
        return self._state.usable

    @property
    def greeting(self) -> bool:
        """Whether we say hello without waiting for the peer's, which hasn't come yet."""
        return not self._listens and self.remote is None and self._state.ended is None

    @property
    def opened_at(self) -> float:
        """When it was made, in Trio's time."""
        return self._opened_at

    @property
    def asking(self) -> bool:
        """Whether the peer has yet to answer whether the link may end; see `wait_decided`."""
        return self._state.phase is Phase.ASKING

    @property
    def kept(self) -> bool:
        """Whether we keep it, as the peer was told."""
        return self._kept

    @property
    def kept_there(self) -> bool:
        """Whether the peer keeps it, as far as it told."""
        return self._state.kept_there

    @property
    def busy(self) -> bool:
        """Whether anything is under way, in either direction."""
        return bool(self._pending) or not self._server.idle

    @property
    def used_at(self) -> float:
        """When the last call on it was made, or served, or ended, in Trio's time."""
        return self._used_at

    @property
    def loss(self) -> str:
        """Why the link ended, for people; empty while it lives."""
        return self._state.ended.reason if self._state.ended else ""

    @property
    def cause(self) -> Cause | None:
        """Why the link ended; None while it lives."""
        return self._state.ended.cause if self._state.ended else None

    @property
    def said(self) -> Reason:
        """What the bye that ended it said, whosever it was; `OTHER` while the link lives, and where none did."""
        return self._state.ended.said if self._state.ended else Reason.OTHER

    @property
    def others(self) -> tuple[Referral, ...]:
        """The members that the peer told us to try instead."""
        return self._others

    @property
    def fault(self) -> LinkFault | None:
        """Why one side isn't admitted by the other, as the bye said that ended the link."""
        return self._fault

    async def run(self, when_up: Callable[[Link], None], when_ended: Callable[[Link], None] = lambda _: None) -> None:
        """Say hello, then serve until the stream ends, the peer breaks the rules, or the task is cancelled.

        `when_up` is called once the peer said hello. Never raises for what the peer does. In the end all pending calls
        fail with `Unreachable`, handlers are cancelled, `when_ended` is called, the peer is told why if there is
        something to tell, within a second, and the stream is closed or reset.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._do(self._state.opened(trio.current_time(), greet=not self._listens))
                if self._state.ended is None:  # else it was given up before it started
                    nursery.start_soon(self._write_frames)
                    nursery.start_soon(self._keep_time)
                    await self._read_frames(when_up)
        finally:
            self._end(Cause.CLOSED, "this peer is stopping", Bye(Reason.STOPPING))
            self._write_queue.close()
            self._server.close()
            self._pending.lose()
            self._ended.set()
            self._decided.send()
            self._decoder = FrameDecoder(0)  # memory is free now, not only when garbage is collected
            self._stream.hold(0)
            when_ended(self)
            await self._close()

    async def wait_ended(self) -> None:
        """Wait until the link is lost or closed."""
        await self._ended.wait()

    def end(self, reason: str) -> None:
        """Give the link up, at once, for a reason of this side's."""
        self._end(Cause.CLOSED, reason)

    def retire(self) -> None:
        """Make no more calls on it; end it when those under way, both ways, are done."""
        self._do(self._state.retire())
        self._decided.send()
        self._close_when_drained()

    def ask_to_end(self) -> None:
        """Ask the peer whether the link may end, as nobody keeps it. `wait_decided` waits for the answer."""
        self._do(self._state.ask(trio.current_time()))

    async def wait_decided(self) -> None:
        """Wait for the peer's answer to `ask_to_end`, or the link's end."""
        while self.asking:
            await self._decided.wait()

    def turn_away(self, bye: Bye) -> None:
        """End it, telling the peer why."""
        if self._state.ended is None:
            self._fault = bye.fault
        not_admitted = f"the peer may not be in this network ({bye.why})"
        reason = not_admitted if bye.reason is Reason.NOT_ADMITTED else "there is no place for the peer"
        self._end(Cause.REFUSED, reason, bye)

    def keep(self, kept: bool) -> None:
        """Tell the peer whether we keep the link, if that changed and the link is up."""
        if kept != self._kept and self.remote is not None:
            self._kept = kept
            self._send(Keep(kept))

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
        self._used_at = trio.current_time()
        in_write_queue = False
        try:
            timeout = min(max(deadline - trio.current_time(), 0.0), _LONGEST_TIMEOUT)
            frame = encode(Request(call_id, method, body, math.ceil(timeout * 1000), TRACING.carried()))
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
                self._send(Cancel(call_id))
            self._used_at = trio.current_time()
            self._close_when_drained()
        if not isinstance(answer, Response):
            raise failure(self.peer_id, method, answer)
        try:
            return await decoded(answer.body, self._time_slices, self.peer_id, self._decoding)
        except FrameError as error:
            self._counters.malformed += 1
            raise ProtocolError(self.peer_id, method, f"its answer {error}") from error

    def notify(self, topic: str, body: bytes) -> bool:
        """Say something that wants no answer; False where the link isn't up, or too much waits for being written."""
        waiting = self._write_queue.buffered + self._write_queue.waiting
        if not self.usable or waiting > self._limits.max_frame:
            return False
        self._send(Notice(topic, body))
        return True

    def ping(self) -> None:
        """Send something that the peer's machine acknowledges, and the peer answers."""
        if self.usable:
            self._send(Ping())

    async def _read_frames(self, when_up: Callable[[Link], None]) -> None:
        decoder = self._decoder
        try:
            while True:
                chunk = await self._read_chunk()
                if not chunk:
                    self._end(Cause.LOST, "the peer closed the link")
                    return
                now = trio.current_time()
                self._state.heard(now)
                self._counters.bytes_received += len(chunk)
                frames, decoded = 0, decoder.decoded
                for item in decoder.feed(chunk):
                    self._receive(parse(item), now, when_up)
                    frames += 1
                    if frames == _FRAMES_AT_ONCE or decoder.decoded - decoded >= _BYTES_AT_ONCE:
                        frames, decoded = 0, decoder.decoded
                        await trio.lowlevel.checkpoint()
                self._note_incomplete(now, is_new=frames > 0 or decoder.decoded > decoded)
        except StreamBroken as error:
            self._end(Cause.LOST, f"the stream broke: {error}")
        except FrameError as error:
            self._end(Cause.BROKE_PROTOCOL, f"the peer broke the protocol: {error}")
        except WriteQueueFull:
            self._end_unread()

    async def _read_chunk(self) -> bytes:
        """Some bytes; none at the end, or when a frame that has begun doesn't come to its end."""
        if not self._decoder.buffered:
            return await self._stream.read_some(_READ_BYTES)
        chunk = b""
        with trio.move_on_at(self._incomplete_until) as scope:
            chunk = await self._stream.read_some(_READ_BYTES)
        if scope.cancelled_caught:
            self._end(Cause.STALLED, f"a frame wasn't complete within {self._limits.frame_timeout:g} s")
        return chunk

    def _note_incomplete(self, now: float, *, is_new: bool) -> None:
        """Count what came of the next frame. `is_new`: whether it began only now."""
        if not self._decoder.buffered:
            self._incomplete_until = math.inf
        elif is_new or self._incomplete_until == math.inf:
            self._incomplete_until = now + self._limits.frame_timeout
        if not self._may_hold(0):
            self._end(Cause.STALLED, "memory is short, and the peer holds much of it")

    def _may_hold(self, more: int) -> bool:
        """Whether memory allows so many bytes more than what is held for the peer now."""
        queue = self._write_queue
        held = self._decoder.buffered + self._server.held + queue.buffered + queue.waiting
        return self._stream.hold(held + more)

    def _receive(self, frame: Frame | Unknown, now: float, when_up: Callable[[Link], None]) -> None:
        if isinstance(frame, Bye):
            self._others = frame.others_to_try
            self._fault = frame.fault
        action = self._state.receive(frame, now)
        match frame:
            case Response() | Refused() | Failed() if action is Action.SETTLE:
                self._active = self._active or isinstance(frame, Response)
                self._pending.settle(frame)
            case Request() if action is Action.SERVE:
                assert self._nursery is not None
                self._used_at = now
                self._active = True
                self._server.accept(frame, self._nursery)
            case Cancel() if action is Action.CANCEL:
                self._server.cancel(frame.id)
            case Notice() if action is Action.READ:
                if (read := self._notices.get(frame.topic)) is not None:
                    read(self.peer_id, frame.body)
            case Keep() if not self._kept and not self.kept_there:
                self._when_free()
            case Hello() if action is Action.CHOOSE:
                self._choose(frame, now, when_up)
            case _:
                self._do(action)
                self._close_when_drained()

    def _choose(self, hello: Hello, now: float, when_up: Callable[[Link], None]) -> None:
        bye = self._admit(hello) if self._admit is not None else None
        if bye is not None:
            self.turn_away(bye)
        else:
            self._do(self._state.admit(now))
            self._was_up = True
            when_up(self)

    def _do(self, action: Action) -> None:
        """Send a frame, or stop: what needs no frame of the peer's."""
        match action:
            case Action.STOP:
                self._stop()
            case Action.SEND_HELLO:
                self._send(self._hello)
            case Action.SEND_PING:
                self._send(Ping())
            case Action.SEND_PONG:
                self._send(self._state.pong)
            case Action.SEND_BYE:
                self._send(self._state.bye)
            case Action.REPLY if self._kept or self.busy:
                self._send(Stay())
            case Action.REPLY:
                self._do(self._state.agree())
            case Action.STAY_UP:
                self._used_at = trio.current_time()  # the peer needs it: it isn't asked again before long
            case _:
                pass
        if not self.asking:
            self._decided.send()

    def _send(self, frame: Frame) -> None:
        """Say what can't wait for room."""
        if self._state.ended is not None:
            return
        try:
            self._write_queue.put(encode(frame))
        except WriteQueueFull:
            self._end_unread()

    async def _write_frames(self) -> None:
        try:
            while True:
                batch = await self._write_queue.take()
                self._is_writing = True
                # A large frame in pieces, so that the deadline is for 64 KiB, whatever the size of the frame.
                for start in range(0, len(batch), BATCH_BYTES):
                    piece = batch if len(batch) <= BATCH_BYTES else batch[start : start + BATCH_BYTES]
                    with trio.move_on_after(self._limits.write_timeout) as scope:
                        await self._stream.write(piece)
                    if scope.cancelled_caught:
                        self._end(Cause.STALLED, f"the peer read nothing for {self._limits.write_timeout:g} s")
                        return
                    self._counters.bytes_sent += len(piece)
                    self._write_queue.written(len(piece))
                    self._may_hold(0)
                self._is_writing = False
                self._close_when_drained()
        except StreamBroken as error:
            self._end(Cause.LOST, f"the stream broke: {error}")

    async def _keep_time(self) -> None:
        """Have the state looked at whenever it wants to be."""
        while True:
            await trio.sleep_until(self._state.wake_at)
            self._do(self._state.wake(trio.current_time()))

    def _note_served(self) -> None:
        self._used_at = trio.current_time()
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if (
            self._state.phase is Phase.DRAINING
            and not self._pending
            and self._server.idle
            and not self._write_queue.buffered
        ):
            self._do(self._state.drained())

    def _end(self, cause: Cause, reason: str, farewell: Bye | None = None) -> None:
        if self._state.ended is None:
            self._farewell = farewell
        self._do(self._state.end(cause, reason, farewell.reason if farewell is not None else Reason.OTHER))

    async def _close(self) -> None:
        """End the stream: in order where both sides know that it ends."""
        in_order = self.cause is Cause.DONE or self.cause is Cause.LEFT
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_TIMEOUT):
            if in_order:
                await self._stream.close()
            elif self._farewell is not None and not self._is_writing:
                in_order = await self._part(self._farewell)
        if not in_order:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_TIMEOUT):
                await self._stream.reset()

    async def _part(self, farewell: Bye) -> bool:
        """Say why, and wait for the peer to close its side, lest a reset overtakes what we said."""
        try:
            last = self._last_notice(self.peer_id) if farewell.reason is Reason.STOPPING and self._was_up else None
            await self._stream.write((encode(last) if last is not None else b"") + encode(farewell))
            await self._stream.close()
            while await self._stream.read_some(_READ_BYTES):
                pass
        except StreamBroken:
            return False
        return True

    def _end_unread(self) -> None:
        self._end(Cause.BROKE_PROTOCOL, "the peer doesn't read")

    def _stop(self) -> None:
        """The link ended just now: stop its tasks."""
        if self.cause is Cause.BROKE_PROTOCOL:
            self._counters.malformed += 1
            self._farewell = Bye(Reason.BROKE_PROTOCOL)
        self._counters.stalled += self.cause in {Cause.STALLED, Cause.SILENT}
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
