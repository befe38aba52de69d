"""Calls on a peer through another one, for peers that can't be dialled: `on peer via relay`.

The relay passes a sealed request on and a sealed answer back. Both are signed by those at the ends, so that the called
peer knows who calls, and the relay can withhold or delay, but neither forge, alter nor repeat. It can read.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from overlay.calls.links import Links
from overlay.calls.serving import Handler
from overlay.errors import (
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoSuchMethod,
    Overloaded,
    ProtocolError,
    ProtocolNotSupported,
    Refusal,
    Unreachable,
)
from overlay.frames import FrameError, decode_item, encode_item
from overlay.identity import Identity, verify
from overlay.settings import RelayLimits

RELAY_METHOD: Final = "overlay/relay"
RELAYED_METHOD: Final = "overlay/relayed"

_REQUEST_DOMAIN: Final = b"aqua-registry/relayed-request/1\0"
_ANSWER_DOMAIN: Final = b"aqua-registry/relayed-answer/1\0"
_SKEW: Final = 30.0  # seconds by which clocks may differ
_LONGEST: Final = 3600.0

_PeerId = Annotated[str, Meta(min_length=1, max_length=64)]
_FORWARDED: Final[dict[str, type[CallFailed]]] = {
    "lost": ConnectionLost,  # before its base
    "unreachable": Unreachable,
    "overloaded": Overloaded,
    "timeout": CallTimeout,
}

T = TypeVar("T")


class _Sealed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    payload: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class _Passage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a relay is asked for: `further` are the relays after it, at most one."""

    target: _PeerId
    further: Annotated[tuple[_PeerId, ...], Meta(max_length=1)]
    sealed: _Sealed
    timeout: Annotated[float, Meta(ge=0, le=_LONGEST)]


class _Request(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    caller: _PeerId
    target: _PeerId
    method: Annotated[str, Meta(min_length=1, max_length=128)]
    body: bytes
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    expires: float


class _Answer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`code` is empty when `body` is the result."""

    request: bytes
    code: str
    message: str
    body: bytes


class Relaying:
    """Serves as a relay where allowed, calls through relays, and answers what comes through them."""

    def __init__(
        self,
        identity: Identity,
        links: Links,
        limits: RelayLimits,
        *,
        relays: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`relays`: whether calls of others are passed on."""
        self._identity = identity
        self._links = links
        self._limits = limits
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._by_caller: Counter[str] = Counter()
        self._by_target: Counter[str] = Counter()
        self._seen: dict[bytes, float] = {}
        links.serve(RELAYED_METHOD, self._answer)
        if relays:
            links.serve(RELAY_METHOD, self._relay)

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls of `method` that come through relays too; `handler` gets the id of who sealed the request."""
        self._handlers[method] = handler

    async def call(self, peer_id: str, relays: Sequence[str], method: str, body: object, *, timeout: float) -> object:
        """Call `method` of `peer_id` through `relays` (one, or two that know each other), within `timeout` seconds.

        Raises the same kinds of `CallFailed` as a direct call.
        """
        now = self._clock()
        me = self._identity.peer_id
        request = _Request(
            me, peer_id, method, encode_item(body), secrets.token_bytes(16), now + min(timeout, _LONGEST)
        )
        sealed = self._seal(_REQUEST_DOMAIN, request)
        passage = _Passage(peer_id, tuple(relays[1:]), sealed, min(timeout, _LONGEST))
        try:
            raw = await self._links.call(relays[0], RELAY_METHOD, _builtins(passage), timeout=timeout)
        except CallRefused as error:
            kind = _FORWARDED.get(error.code)
            if kind is None:
                raise
            raise kind(peer_id, method, f"{error.message} (through {relays[0]})") from error
        except (NoSuchMethod, ProtocolNotSupported) as error:
            raise Unreachable(peer_id, method, f"{relays[0]} is no relay") from error
        except CallFailed as error:
            raise type(error)(peer_id, method, f"its relay {relays[0]}: {error.reason}") from error
        answer = _opened(raw, peer_id, _ANSWER_DOMAIN, _Answer)
        if answer is None or answer.request != sha256(sealed.payload).digest():
            raise ProtocolError(peer_id, method, f"the answer through {relays[0]} isn't signed by the peer")
        if answer.code == "no-such-method":
            raise NoSuchMethod(peer_id, method)
        if answer.code:
            raise CallRefused(peer_id, method, answer.code, answer.message)
        try:
            return decode_item(answer.body)
        except FrameError as error:
            raise ProtocolError(peer_id, method, f"its answer {error}") from error

    async def _relay(self, caller: str, body: object) -> object:
        try:
            passage = msgspec.convert(body, _Passage, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        limits, target = self._limits, passage.target
        if self._by_caller[caller] >= limits.max_by_caller or self._by_target[target] >= limits.max_to_target:
            raise Refusal("overloaded", "too many calls are being relayed")
        if len(encode_item(body)) > limits.max_bytes:
            raise Refusal("malformed", f"at most {limits.max_bytes} bytes are relayed")
        # Never dials the target: a relay that dialled for strangers would be a tool for scanning.
        if not passage.further and not self._links.is_linked(target):
            raise Refusal("unreachable", "it isn't connected to this relay")
        self._by_caller[caller] += 1
        self._by_target[target] += 1
        try:
            if passage.further:
                onward = msgspec.structs.replace(passage, further=())
                return await self._links.call(
                    passage.further[0], RELAY_METHOD, _builtins(onward), timeout=passage.timeout
                )
            return await self._links.call(target, RELAYED_METHOD, _builtins(passage.sealed), timeout=passage.timeout)
        except CallRefused as error:
            raise Refusal(error.code, error.message) from error
        except CallFailed as error:
            code = next((code for code, kind in _FORWARDED.items() if isinstance(error, kind)), "relay")
            raise Refusal(code, error.reason) from error
        finally:
            for counter, key in ((self._by_caller, caller), (self._by_target, target)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    async def _answer(self, relay: str, body: object) -> object:  # noqa: ARG002 - a handler's signature
        """Open a request that came through a relay, serve it, and seal the answer."""
        try:
            sealed = msgspec.convert(body, _Sealed, builtin_types=(bytes,))
            request = _parsed(sealed.payload, _Request)
        except (msgspec.ValidationError, FrameError) as error:
            raise Refusal("malformed", str(error)) from error
        left = request.expires - self._clock()
        if request.target != self._identity.peer_id or _opened(body, request.caller, _REQUEST_DOMAIN, _Request) is None:
            raise Refusal("malformed", "the request isn't for this peer, or not signed by its caller")
        if not -_SKEW <= left <= _LONGEST + _SKEW:
            raise Refusal("malformed", "the request has expired, or the clocks differ too much")
        self._remember(request)
        code = message = ""
        result = b""
        handler = self._handlers.get(request.method)
        if handler is None:
            code, message = "no-such-method", request.method
        else:
            try:
                result = encode_item(await handler(request.caller, decode_item(request.body)))
            except Refusal as refusal:
                code, message = refusal.code, refusal.message[:1024]
            except FrameError as error:
                code, message = "malformed", str(error)
        answer = _Answer(sha256(sealed.payload).digest(), code, message, result)
        return _builtins(self._seal(_ANSWER_DOMAIN, answer))

    def _remember(self, request: _Request) -> None:
        """Each request is served once: a relay that repeats one is refused."""
        now = self._clock()
        if len(self._seen) >= self._limits.max_remembered:
            self._seen = {nonce: until for nonce, until in self._seen.items() if until > now}
        if len(self._seen) >= self._limits.max_remembered:
            raise Refusal("overloaded", "too many requests came through relays")
        if self._seen.get(request.nonce, 0.0) > now:
            raise Refusal("malformed", "the request was served already")
        self._seen[request.nonce] = request.expires + 2 * _SKEW

    def _seal(self, domain: bytes, value: Struct) -> _Sealed:
        payload = encode_item(_builtins(value))
        return _Sealed(payload, self._identity.sign(domain + payload))


def _opened(raw: object, signer: str, domain: bytes, form: type[T]) -> T | None:
    try:
        sealed = msgspec.convert(raw, _Sealed, builtin_types=(bytes,))
        if not verify(signer, domain + sealed.payload, sealed.signature):
            return None
        return _parsed(sealed.payload, form)
    except (msgspec.ValidationError, FrameError, ValueError):
        return None


def _parsed(payload: bytes, form: type[T]) -> T:
    return msgspec.convert(decode_item(payload), form, builtin_types=(bytes,))


def _builtins(value: Struct) -> object:
    return msgspec.to_builtins(value, builtin_types=(bytes,))
