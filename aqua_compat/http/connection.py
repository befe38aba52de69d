"""One HTTP/1.1 connection: h11 says what its bytes mean, this moves them, within deadlines.

Rules:
1. Every read and every write has a deadline: for a request to begin, for all of its head, for all of its body, for each
   piece of a reply. Whoever is slower is let go.
2. A connection on which no whole request has arrived gives way to new ones when all places are taken
   (`aqua_compat.http.server`), so that whoever opens many and says nothing keeps nobody out.
3. When a client leaves, what it asked is abandoned where it only reads; what it writes is brought to an end. One that
   only ended its sending side (`nc -N` does) looks just like one that left, so it gets what was asked for, within
   `FINISH` seconds; but while something has to happen first, `LINGER` seconds are all that a blocked query or a stream
   of events has, and none once the stream began.
4. A connection on which anything was wrong is closed after the answer: what follows on it can't be trusted to begin
   where we think it does.
5. Bytes that h11 took for one whole request without a body mean that again, so it isn't asked again: where the answer
   is at hand it costs no more than to find and send it. All else goes through h11.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

import h11
import structlog
import trio

from aqua_compat.http.client_waits import FINISH, LINGER, ClientWaits
from aqua_compat.http.message import HttpReply, HttpRequest, path_and_query
from aqua_compat.http.problems import Problem
from aqua_compat.http.ready import (
    LONGEST_KNOWN,
    AtHand,
    KnownRequests,
    ReadyReply,
    headers_of,
    known_requests,
    nothing_at_hand,
    reason,
)
from aqua_compat.settings import HttpSettings
from overlay.tasks import background

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

PIECE: Final = 64 * 1024  # bytes that are sent at once
READ: Final = 16 * 1024  # bytes that are read at once
MAX_HEADERS: Final = 100
_SAFE: Final = frozenset({"GET", "HEAD"})

Handle = Callable[[HttpRequest], Awaitable[HttpReply]]
"""Answers a request. May raise Problem."""

Waits = Callable[[HttpRequest], bool]
"""Whether the answer to a request may be one that waits for something to happen."""


def nothing_waits(request: HttpRequest) -> bool:  # noqa: ARG001 - as `Waits` has it
    """Where every answer is found at once, or in a time that is known."""
    return False


class Connection:
    """Serves the requests of one client, one after the other, until either side ends that."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        handle: Handle,
        limits: HttpSettings,
        at_hand: AtHand = nothing_at_hand,
        known: KnownRequests | None = None,
        waits: Waits = nothing_waits,
    ) -> None:
        """`known`: remembers requests, for other connections too."""
        self._waits = waits
        self._at_hand = at_hand
        self._known = known_requests() if known is None else known
        self._opening = b""
        self._stream = stream
        self._handle = handle
        self._limits = limits
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head)
        self._scope = trio.CancelScope()
        self._is_answering = False
        self._is_endless = False
        self._is_stopping = False

    @property
    def gives_way(self) -> bool:
        """Whether it can be closed without anybody losing an answer."""
        return not self._is_answering

    def close(self) -> None:
        """Ends it at once."""
        self._scope.cancel()

    def stop(self) -> None:
        """Ends it after the answer that is under way, if one is."""
        self._is_stopping = True
        if self.gives_way or self._is_endless:
            self._scope.cancel()

    async def serve(self) -> None:
        """Serves until the end, and closes the stream. Raises nothing for what the client does."""
        with self._scope:
            try:
                while await self._begin() and await self._exchange():
                    self._protocol.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.LocalProtocolError):
                pass  # gone, too slow, or gone while it was told what is wrong
            except Exception:
                _log.exception("a connection failed for a reason of ours")
        await trio.aclose_forcefully(self._stream)

    async def refuse(self, problem: Problem) -> None:
        """Tells a client whom nobody serves why, and closes the stream."""
        gone = (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError)
        with self._scope, trio.move_on_after(LINGER), suppress(*gone):
            await self._send_problem(problem)
        await trio.aclose_forcefully(self._stream)

    async def _begin(self) -> bool:
        """Waits for a request to begin, and answers those that are known until one isn't; whether there is one."""
        if self._protocol.trailing_data[0]:
            self._opening = b""
            return True
        while not self._is_stopping:
            self._scope.deadline = trio.current_time() + self._limits.idle_timeout
            received = bytes(await self._stream.receive_some(min(READ, self._limits.max_head)))
            request = self._known.get(received)
            reply = None if request is None else self._at_hand(request)
            if reply is None:
                self._scope.deadline = math.inf
                self._opening = received
                self._protocol.receive_data(received)
                return bool(received)
            await self._send_ready(reply)
        return False

    async def _send_ready(self, reply: ReadyReply) -> None:
        self._is_answering = True
        wire = reply.wire(int(time.time()))
        if len(wire) <= PIECE:
            self._scope.deadline = trio.current_time() + self._limits.write_timeout
            await self._stream.send_all(wire)
        else:
            self._scope.deadline = math.inf
            await self._send_all(wire)
        self._is_answering = False

    async def _exchange(self) -> bool:
        """One request, which has begun, and its answer; whether another one may follow."""
        try:
            head = await self._head()
            if head is None:
                return False
            request = await self._request(head)
            self._is_answering = True
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            await self._send_problem(Problem(status, _CODES.get(status, "invalid"), str(error)))
            return False
        except Problem as problem:
            await self._send_problem(problem)
            return False
        reply = await self._answered(request)
        if reply is None:
            return False
        await self._send(reply, has_body=request.method != "HEAD")
        self._is_answering = False
        return not self._is_stopping and self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE

    async def _head(self) -> h11.Request | None:
        """The next request without its body; None when the client ended the connection."""
        event = self._protocol.next_event()
        if event is h11.NEED_DATA:  # most heads come in one piece, and need no deadline then
            with trio.fail_after(self._limits.head_timeout):
                while event is h11.NEED_DATA:
                    # h11 bounds only what isn't whole yet, so it isn't given more than one byte too many
                    most = self._limits.max_head + 1 - len(self._protocol.trailing_data[0])
                    if not await self._receive(most):
                        return None
                    event = self._protocol.next_event()
        return event if isinstance(event, h11.Request) else None

    async def _request(self, head: h11.Request) -> HttpRequest:
        if len(head.headers) > MAX_HEADERS:
            raise Problem(431, "head-too-large", f"a request has at most {MAX_HEADERS} headers")
        headers: dict[str, str] = {}
        for name, value in head.headers:
            text = name.decode("ascii")
            shown = value.decode("latin-1")
            headers[text] = f"{headers[text]}, {shown}" if text in headers else shown
        if "content-length" in headers and "transfer-encoding" in headers:
            self._is_stopping = True  # RFC 9112, 6.1: whoever passed it on may believe that it ends elsewhere (rule 4)
        declared = headers.get("content-length", "0")
        if len(declared) > 12 or int(declared) > self._limits.max_body:
            raise self._too_large()
        body = b""
        if declared != "0" or "transfer-encoding" in headers:
            with trio.fail_after(self._limits.body_timeout):
                body = await self._body()
        else:
            self._protocol.next_event()  # the end, at once
        path, query = path_and_query(head.target.decode("ascii"))
        return HttpRequest(head.method.decode("ascii"), path, query, headers, body)

    async def _body(self) -> bytes:
        if self._protocol.they_are_waiting_for_100_continue:
            await self._stream.send_all(
                self._protocol.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""
            )
        body = bytearray()
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                await self._receive()  # the end of what is received too early is an error of h11's
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.max_body:
                    raise self._too_large()
            else:
                return bytes(body)

    def _too_large(self) -> Problem:
        return Problem(413, "too-large", f"a body has at most {self._limits.max_body} bytes")

    async def _receive(self, most: int = READ) -> bool:
        """More bytes for h11, so many at most; False at their end."""
        received = bytes(await self._stream.receive_some(min(READ, max(most, 1))))
        self._opening = b""
        self._protocol.receive_data(received)
        return bool(received)

    async def _answered(self, request: HttpRequest) -> HttpReply | None:
        """What to send; None when the client left while it was made."""
        ready = self._at_hand(request)
        if ready is not None:  # nothing to abandon when the client leaves
            self._remember(request)
            return ready.reply
        reply: HttpReply | None = None
        async with background() as nursery:
            waits = ClientWaits()
            if request.method in _SAFE:
                nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope, waits.note_end)
            with waits.one(LINGER if self._waits(request) else FINISH):
                try:
                    reply = await self._handle(request)
                except Problem as problem:
                    reply = HttpReply(problem.status, problem.all_headers(), problem.body())
        return reply

    def _remember(self, request: HttpRequest) -> None:
        """What the bytes mean that were received last, where they are the whole of this request and no more."""
        is_whole = self._protocol.their_state is h11.DONE and not self._protocol.trailing_data[0]
        if is_whole and not request.body and request.method == "GET" and 0 < len(self._opening) <= LONGEST_KNOWN:
            self._known[self._opening] = request

    async def _cancel_when_gone(self, scope: trio.CancelScope, when_ended: Callable[[], None]) -> None:
        """Cancels when the client is gone for certain. `when_ended` is called when it sends no more, which may mean
        that it is gone (rule 3). What it sends before its answer has come is kept, up to `READ` bytes: of who sends
        more it couldn't be known any more whether it is there, and so it is let go."""
        kept = 0
        while kept <= READ:
            try:
                received = bytes(await self._stream.receive_some(READ))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            self._protocol.receive_data(received)
            if not received:
                when_ended()
                return
            kept += len(received)
        scope.cancel()

    async def _send(self, reply: HttpReply, *, has_body: bool) -> None:
        headers = headers_of(reply, int(time.time()))
        if self._is_stopping:
            headers.append(("Connection", "close"))
        head = (
            self._protocol.send(h11.Response(status_code=reply.status, reason=reason(reply.status), headers=headers))
            or b""
        )
        if isinstance(reply.body, bytes):
            await self._send_all(head + self._bytes_of(reply.body if has_body else b""))
            return
        async with aclosing(reply.body) as pieces:
            await self._send_all(head)
            if has_body:
                self._is_endless = reply.is_endless
                await self._send_pieces(pieces, watches=reply.is_endless)
                self._is_endless = False
        await self._send_all(self._protocol.send(h11.EndOfMessage()) or b"")

    async def _send_pieces(self, pieces: AsyncIterator[bytes], *, watches: bool) -> None:
        """`watches`: so that a client that left is noticed before there is something to send. What is at hand is sent
        to one that may have, and no more is awaited for it (rule 3)."""
        waits, linger = ClientWaits(), LINGER
        async with background() as nursery:
            if watches:
                nursery.start_soon(self._cancel_when_gone, self._scope, waits.note_end)
            while True:
                with waits.one(linger) as waiting:
                    piece = await anext(pieces, None)
                if waiting.cancelled_caught or piece is None:
                    return
                linger = 0.0
                await self._send_all(self._protocol.send(h11.Data(data=piece)) or b"")

    def _bytes_of(self, body: bytes) -> bytes:
        data = self._protocol.send(h11.Data(data=body)) if body else b""
        return (data or b"") + (self._protocol.send(h11.EndOfMessage()) or b"")

    async def _send_all(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            with trio.fail_after(self._limits.write_timeout):
                await self._stream.send_all(data[start : start + PIECE])

    async def _send_problem(self, problem: Problem) -> None:
        """The last answer on this connection."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        self._is_stopping = True
        await self._send(HttpReply(problem.status, problem.all_headers(), problem.body()), has_body=True)
        await self._let_read()

    async def _let_read(self) -> None:
        """Gives a client that is still sending the time to read its answer: closing at once would take it away."""
        if not isinstance(self._stream, trio.SocketStream):
            return
        with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()
            for _ in range(self._limits.max_body // READ):
                if not await self._stream.receive_some(READ):
                    return


_CODES: Final = {431: "head-too-large", 501: "not-implemented"}
