"""Relayed calls as the calling and the called peer handle them: sealed for each other, and passed on by relays."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import Meta, Struct

from overlay.errors import (
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    ProtocolError,
    ProtocolNotSupported,
    Refusal,
    Unreachable,
)
from overlay.identity import Identity
from overlay.limits.time_slices import TimeSlices, served, work_for
from overlay.limits.token_bucket import TokenBuckets
from overlay.relaying.relay import FAILURES, LONGEST, METHODS, RELAY_METHOD, Purpose, RelayLinks, RelayRequest
from overlay.relaying.secure_channel import (
    Number,
    PendingSession,
    SecureChannelError,
    SecureSession,
    SessionId,
    accept,
    opening_of,
)
from overlay.relaying.sessions import AcceptedSessions, OwnSessions
from overlay.rpc.bodies import decoded, encoded
from overlay.rpc.decoded_items import DecodedItems, TooManyItems
from overlay.rpc.framing import FrameError, decode_item, encode_item
from overlay.rpc.server import Handler
from overlay.settings import RelayLimits
from overlay.tracing import TRACING

SKEW: Final = 30.0  # seconds by which clocks may differ
OPENING_TIMEOUT: Final = 3.0  # seconds; a relay that doesn't answer mustn't use up the time of the next
_ENVELOPE: Final = 1024  # bytes by which a sealed request is longer than its body, at most


class _Sealed(Struct, frozen=True, array_like=True):
    """A sealed request and what is needed to open it."""

    session: SessionId
    number: Number
    request: bytes


class _RelayedRequest(Struct, frozen=True, array_like=True):
    """What a sealed request holds. `expires`: seconds since 1970 by the caller's clock."""

    method: Annotated[str, Meta(min_length=1, max_length=128)]
    body: bytes
    expires: float
    trace: Any = b""


class _RelayedAnswer(Struct, frozen=True, array_like=True):
    """What a sealed answer holds; `code` is empty when `body` is the result."""

    code: str
    message: str
    body: bytes


class _Opening:
    """An attempt to open a session, shared by all calls that need it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: CallFailed | None = None


class RelayedRpc:
    """Calls other peers through relays, and answers the calls of others that come through relays."""

    def __init__(
        self,
        identity: Identity,
        links: RelayLinks,
        limits: RelayLimits,
        *,
        decoded_items: DecodedItems,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`decoded_items`: what is decoded of all that peers call with, directly too."""
        self._identity = identity
        self._links = links
        self._clock = clock
        self._decoded_items = decoded_items
        self._handlers: dict[str, Handler] = {}
        self._own = OwnSessions(limits.max_sessions)
        self._accepted = AcceptedSessions(limits.max_sessions)
        self._accepted_via = TokenBuckets(
            limits.opened_via_relay, limits.opened_via_relay_burst, debt=limits.opened_via_relay_burst
        )
        self._time_slices = TimeSlices()  # for calls that nobody's slices serve
        self._decoding = trio.Lock()
        self._opening: dict[tuple[str, ...], _Opening] = {}
        self._most_bytes = limits.max_bytes - _ENVELOPE
        links.serve(METHODS[Purpose.OPENING], self._accept)
        links.serve(METHODS[Purpose.REQUEST], self._answer)

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls of `method` that come through relays; `handler` gets the id of the peer that sealed it."""
        self._handlers[method] = handler

    async def call(self, peer_id: str, relays: Sequence[str], method: str, body: object, *, timeout: float) -> object:
        """Call `method` of `peer_id` through `relays` (one, or two that know each other), within `timeout` seconds.

        Raises the same kinds of `CallFailed` as a direct call, and `FrameError` for a body that CBOR can't hold.
        """
        deadline = trio.current_time() + min(timeout, LONGEST)
        encoded_body = b""
        with trio.move_on_at(deadline) as encoding:
            encoded_body = await encoded(body)
        if encoding.cancelled_caught:
            raise CallTimeout(peer_id, method)
        if len(encoded_body) > self._most_bytes:
            raise BodyTooLarge(peer_id, method, f"at most {self._most_bytes} bytes are relayed")
        session = await self._session(peer_id, relays, method, deadline)
        left = max(deadline - trio.current_time(), 0.0)
        request = [method, encoded_body, self._clock() + left, *filter(None, [TRACING.carried()])]
        number, sealed = session.seal_request(encode_item(request))
        body = encode_item([session.id, number, sealed])
        try:
            raw = await self._through(relays, peer_id, method, Purpose.REQUEST, body, left)
        except ConnectionLost:
            self._own.forget(session)
            raise
        except CallRefused as error:
            # The peer's own refusals come sealed. This one may be a relay's, made up after the request was served.
            self._own.forget(session)
            raise ConnectionLost(peer_id, method, f"{error.message} (through {relays[0]})") from error
        return self._result(session, number, raw, method)

    def _result(self, session: SecureSession, number: int, raw: object, method: str) -> object:
        try:
            plain = decode_item(session.open_answer(number, raw if isinstance(raw, bytes) else b""))
            answer = msgspec.convert(plain, _RelayedAnswer, builtin_types=(bytes,))
        except (SecureChannelError, FrameError, msgspec.ValidationError) as error:
            raise ProtocolError(session.peer_id, method, f"its answer through a relay: {error}") from error
        if answer.code == "no-such-method":
            raise NoSuchMethod(session.peer_id, method)
        if answer.code:
            raise CallRefused(session.peer_id, method, answer.code, answer.message)
        try:
            return decode_item(answer.body)
        except FrameError as error:
            raise ProtocolError(session.peer_id, method, f"its answer {error}") from error

    async def _session(self, peer_id: str, relays: Sequence[str], method: str, deadline: float) -> SecureSession:
        """The session for all calls to a peer, opened when there is none; calls that come meanwhile share the opening.

        Raises `CallFailed`, of which `Unreachable` and `Overloaded` say that the next path may be tried.
        """
        path = (peer_id, *relays)
        with trio.move_on_at(deadline):
            while (session := self._own.get(peer_id, trio.current_time())) is None:
                opening = self._opening.get(path)
                if opening is not None:
                    await opening.done.wait()
                    if opening.failure is not None:
                        raise opening.failure
                    continue
                opening = self._opening[path] = _Opening()
                try:
                    session = await self._open(peer_id, relays, method, deadline)
                    self._own.put(session, trio.current_time())
                except CallFailed as error:
                    opening.failure = error
                    raise
                finally:
                    del self._opening[path]
                    opening.done.set()
            return session
        raise CallTimeout(peer_id, method)

    async def _open(self, peer_id: str, relays: Sequence[str], method: str, deadline: float) -> SecureSession:
        """Open a session with a peer. Raises `CallFailed` of a kind that says that no call arrived."""
        offer = PendingSession(self._identity, peer_id, self._clock())
        left = max(deadline - trio.current_time(), 0.0)
        try:
            raw = await self._through(
                relays, peer_id, method, Purpose.OPENING, offer.sealed, min(OPENING_TIMEOUT, left / 2)
            )
            return offer.accepted(raw)
        except (ConnectionLost, CallTimeout, CallRefused) as error:
            raise Unreachable(peer_id, method, error.reason) from error
        except SecureChannelError as error:
            raise Unreachable(peer_id, method, f"its answer through {relays[0]}: {error}") from error

    async def _through(
        self, relays: Sequence[str], peer_id: str, method: str, purpose: Purpose, sealed: bytes, timeout: float
    ) -> object:
        relay_request = RelayRequest(peer_id, tuple(relays[1:]), purpose, sealed, timeout)
        try:
            return await self._links.call(relays[0], RELAY_METHOD, relay_request.as_body(), timeout=timeout)
        except CallRefused as error:
            kind = FAILURES.get(error.code)
            if kind is None:
                raise CallRefused(peer_id, method, error.code, error.message) from error
            raise kind(peer_id, method, f"{error.message} (through {relays[0]})") from error
        except (NoSuchMethod, ProtocolNotSupported) as error:
            raise Unreachable(peer_id, method, f"{relays[0]} is no relay") from error
        except CallFailed as error:
            raise type(error)(peer_id, method, f"its relay {relays[0]}: {error.reason}") from error

    async def _accept(self, relay: str, body: object) -> object:
        """Accept a session that another peer opens through a relay."""
        await trio.lowlevel.checkpoint()
        if not self._accepted_via.take(relay, trio.current_time()):
            raise Refusal("overloaded", "too many sessions are opened through this relay")
        try:
            opening = opening_of(body, self._identity.peer_id)
            if not abs(opening.time - self._clock()) <= SKEW:
                raise Refusal("stale", "the opening is old, or the clocks differ too much")
            session, answer = accept(self._identity, body, opening, secrets.token_bytes(16))
        except SecureChannelError as error:
            raise Refusal("malformed", str(error)) from error
        self._accepted.put(session, trio.current_time())
        return answer

    async def _answer(self, relay: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        """Open a request that came through a relay, serve it, and seal the answer."""
        try:
            sealed = msgspec.convert(
                decode_item(body if isinstance(body, bytes) else b""), _Sealed, builtin_types=(bytes,)
            )
        except (msgspec.ValidationError, FrameError) as error:
            raise Refusal("malformed", str(error)) from error
        session = self._accepted.get(sealed.session, trio.current_time())
        if session is None:
            raise Refusal("no-session", "this peer was restarted, or forgot the session")
        try:
            plain = decode_item(session.open_request(sealed.number, sealed.request))
            request = msgspec.convert(plain, _RelayedRequest, builtin_types=(bytes,))
        except (SecureChannelError, msgspec.ValidationError, FrameError) as error:
            raise Refusal("malformed", str(error)) from error
        self._accepted.note_used(sealed.session, trio.current_time())
        if not request.expires >= self._clock() - SKEW:
            raise Refusal("stale", "the request has expired, or the clocks differ too much")
        work_for(session.peer_id)
        code, message, result = await self._outcome(session.peer_id, request)
        return session.seal_answer(sealed.number, encode_item([code, message, result]))

    async def _outcome(self, caller: str, request: _RelayedRequest) -> tuple[str, str, bytes]:
        handler = self._handlers.get(request.method)
        if handler is None:
            return "no-such-method", request.method, b""
        outcome = "gave-way", "memory was short while the call was served", b""
        scope = trio.CancelScope()
        try:
            with (
                self._decoded_items.opened(caller, scope.cancel) as counted,
                scope,
                TRACING.served(request.trace, f"serve {request.method}", caller=caller, relayed=1),
            ):
                work = served() or (self._time_slices, caller)
                body = await decoded(request.body, *work, self._decoding, counted)
                outcome = "", "", await encoded(await handler(caller, body), like=request.body)
        except TooManyItems:
            return "overloaded", "too much is being served", b""
        except Refusal as refusal:
            return refusal.code, refusal.message[:1024], b""
        except FrameError as error:
            return "malformed", str(error), b""
        return outcome
