"""Serves one peer's requests: a bounded number at a time, a bounded number waits, and the rest is turned away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import msgspec
import structlog
import trio
from msgspec import Struct

from overlay.errors import Refusal
from overlay.limits.time_slices import TimeSlices, work_for
from overlay.rpc.bodies import decoded, encoded
from overlay.rpc.counters import Counters
from overlay.rpc.decoded_items import DecodedItems, TooManyItems
from overlay.rpc.framing import HEADER_BYTES, FrameError
from overlay.rpc.protocol import Failed, Fault, Frame, Refused, Request, Response, encode, milliseconds, shortened
from overlay.rpc.write_queue import WriteQueue
from overlay.settings import CallLimits
from overlay.tracing import TRACING

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SOONEST: Final = 0.1  # seconds after which who is turned away may come back
_LATEST: Final = 5.0

Handler = Callable[[str, object], Awaitable[object]]
"""Answers calls of one method: gets the caller's peer id and the body, returns the body of the answer, or an `Encoded`.

Refuses by raising `Refusal`. Is cancelled at the call's deadline, when the caller gives up, and when the link is lost.
"""


class _Waiting(Struct, frozen=True):
    """A request, since when it waits and until when its caller does, in Trio's time."""

    request: Request
    since: float
    deadline: float


class RequestServer:
    """Serves the requests that come on one link. `accept` and `cancel` never wait, so the link's reader never does."""

    def __init__(
        self,
        caller: str,
        handlers: Mapping[str, Handler],
        write_queue: WriteQueue,
        limits: CallLimits,
        counters: Counters,
        when_idle: Callable[[], None],
        time_slices: TimeSlices,
        decoded_items: DecodedItems,
        may_hold: Callable[[int], bool],
    ) -> None:
        """`when_idle` is called each time that the last request was answered. `time_slices`, `decoded_items`: of all
        callers.

        `may_hold`: whether memory allows so many bytes more for this caller.
        """
        self._caller = caller
        self._handlers = handlers
        self._write_queue = write_queue
        self._limits = limits
        self._counters = counters
        self._when_idle = when_idle
        self._time_slices = time_slices
        self._decoded_items = decoded_items
        self._may_hold = may_hold
        self._decoding = trio.Lock()
        self._running: dict[int, trio.CancelScope] = {}
        self._running_bytes = 0
        self._cancelled: set[int] = set()
        self._queue: dict[int, _Waiting] = {}  # a dict, so that a cancelled one leaves at once
        self._queued_bytes = 0
        self._waited = 0.0  # seconds, by the request that left the queue last for being served

    @property
    def held(self) -> int:
        """Bytes of the requests that are being served, or wait for it."""
        return self._running_bytes + self._queued_bytes

    @property
    def idle(self) -> bool:
        """Whether no request is being served nor waits for it."""
        return not self._running and not self._queue

    def accept(self, request: Request, nursery: trio.Nursery) -> None:
        """Serve a request in `nursery`, now or later, or turn it away. Raises `FrameError`, `WriteQueueFull`."""
        if request.id in self._running or request.id in self._queue:
            raise FrameError(f"request {request.id} is under way already")
        size = len(request.body)
        if request.method not in self._handlers:
            self._write_queue.put(encode(Failed(request.id, Fault.NO_SUCH_METHOD)))
            return
        now = trio.current_time()
        waiting = _Waiting(request, now, now + request.timeout_seconds)
        if not self._may_hold(size):
            self._turn_away(request)
        elif not self._queue and self._may_start(size):
            self._start(waiting)
            nursery.start_soon(self._serve, waiting, nursery)
        elif len(self._queue) < self._limits.max_queued and self._queued_bytes + size <= self._limits.max_queued_bytes:
            self._queue[request.id] = waiting
            self._queued_bytes += size
        else:
            self._turn_away(request)

    def close(self) -> None:
        """Drop the requests that wait: nobody is there for the answers."""
        self._queue.clear()
        self._queued_bytes = 0

    def cancel(self, call_id: int) -> None:
        """Stop serving a request, if it is under way; it gets no answer."""
        waiting = self._queue.pop(call_id, None)
        if waiting is not None:
            self._queued_bytes -= len(waiting.request.body)
        elif call_id in self._running:
            self._cancelled.add(call_id)
            self._running[call_id].cancel()

    def _turn_away(self, request: Request) -> None:
        self._write_queue.put(encode(self._too_much(request)))

    def _overloaded(self, request: Request) -> Failed:
        """Turned away until those that wait now were served, by the time that the last one waited."""
        oldest = next(iter(self._queue.values()), None)
        waited = max(self._waited, trio.current_time() - oldest.since if oldest is not None else 0.0)
        return Failed(request.id, Fault.OVERLOADED, milliseconds(min(max(waited, _SOONEST), _LATEST)))

    def _may_start(self, size: int) -> bool:
        if len(self._running) >= self._limits.max_in_flight:
            return False
        return not self._running or self._running_bytes + size <= self._limits.max_served_bytes

    def _start(self, waiting: _Waiting) -> None:
        self._running[waiting.request.id] = trio.CancelScope(deadline=waiting.deadline)
        self._running_bytes += len(waiting.request.body)

    def _next(self) -> _Waiting | None:
        if not self._queue:
            return None
        call_id, waiting = next(iter(self._queue.items()))
        size = len(waiting.request.body)
        if not self._may_start(size):
            return None  # another's end makes room: this can only be so while others run
        del self._queue[call_id]
        self._queued_bytes -= size
        self._waited = trio.current_time() - waiting.since
        self._start(waiting)
        return waiting

    async def _serve(self, first: _Waiting, nursery: trio.Nursery) -> None:
        """Serve one request after another while there are any: each end makes room for the next, or for several."""
        waiting: _Waiting | None = first
        while waiting is not None:
            request = waiting.request
            try:
                answer = await self._answer(waiting)
                if answer is not None:
                    await self._write_queue.send(self._within_memory(request, answer))
            finally:
                del self._running[request.id]
                self._running_bytes -= len(request.body)
                self._cancelled.discard(request.id)
            waiting = self._next()
            while waiting is not None and (other := self._next()) is not None:
                nursery.start_soon(self._serve, other, nursery)
            if waiting is not None:
                await trio.lowlevel.checkpoint()  # many handlers have none
        if self.idle:
            self._when_idle()

    async def _answer(self, waiting: _Waiting) -> bytes | None:
        request = waiting.request
        if trio.current_time() >= waiting.deadline:
            return encode(Failed(request.id, Fault.TIMEOUT))
        frame: bytes | None = None
        with self._running[request.id] as scope:
            frame = self._encoded(request, await self._result(request))
        if scope.cancelled_caught and request.id not in self._cancelled:
            frame = encode(Failed(request.id, Fault.TIMEOUT))
        return frame

    async def _result(self, request: Request) -> Frame:
        work_for(self._caller, self._time_slices)
        await self._time_slices.begin(self._caller)
        with self._decoded_items.opened(self._caller, partial(self._give_way, request.id)) as counted:
            try:
                body = await decoded(request.body, self._time_slices, self._caller, self._decoding, counted)
            except FrameError:
                self._counters.malformed += 1
                return Failed(request.id, Fault.BAD_BODY)
            except TooManyItems:
                return self._too_much(request)
            return await self._handled(request, body)

    async def _handled(self, request: Request, body: object) -> Frame:
        try:
            with TRACING.served(request.trace, f"serve {request.method}", caller=self._caller):
                result = await self._handlers[request.method](self._caller, body)
            answer = Response(request.id, await encoded(result, like=request.body))
        except Refusal as refusal:
            code, message = shortened(refusal.code), shortened(refusal.message)
            self._counters.note_refusal(code)
            return Refused(request.id, code, message, milliseconds(refusal.retry_after))
        except Exception:
            self._counters.internal_errors += 1
            log.exception("serving a call failed", method=request.method, caller=self._caller)
            return Refused(request.id, "internal", "internal error")
        self._counters.calls_served += 1
        return answer

    def _give_way(self, call_id: int) -> None:
        """Stop serving a request, lest all callers together have too much decoded.

        Its caller is told what it would be at its deadline: that it was perhaps served.
        """
        self._counters.overloaded += 1
        self._running[call_id].cancel()

    def _too_much(self, request: Request) -> Failed:
        self._counters.overloaded += 1
        return self._overloaded(request)

    def _within_memory(self, request: Request, answer: bytes) -> bytes:
        """An answer that may be held until the caller reads it; else that the request was served, but has none."""
        if self._may_hold(len(answer)):
            return answer
        dropped = encode(msgspec.structs.replace(self._overloaded(request), fault=Fault.ANSWER_DROPPED))
        if len(answer) <= len(dropped):
            return answer  # such as that it wasn't served
        self._counters.overloaded += 1
        return dropped

    def _encoded(self, request: Request, answer: Frame) -> bytes:
        frame = encode(answer)
        if len(frame) - HEADER_BYTES <= self._limits.max_frame:
            return frame
        self._counters.internal_errors += 1
        log.error("an answer is too large to be sent", method=request.method, caller=self._caller, bytes=len(frame))
        return encode(Failed(request.id, Fault.ANSWER_TOO_LARGE))
