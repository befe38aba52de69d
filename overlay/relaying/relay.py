"""What a relay does: it passes sealed requests on to peers that are linked to it."""

from __future__ import annotations

import enum
from collections import Counter
from typing import Annotated, Any, Final, Protocol

import msgspec
import trio
from msgspec import Meta, Struct

from overlay.errors import (
    AnswerDropped,
    AnswerTooLarge,
    BodyTooLarge,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    Overloaded,
    Refusal,
    Unreachable,
)
from overlay.limits.token_bucket import TokenBuckets
from overlay.rpc.server import Handler
from overlay.settings import RelayLimits

RELAY_METHOD: Final = "overlay/relay"
LONGEST: Final = 3600.0  # seconds that a relayed call may take

_PeerId = Annotated[str, Meta(min_length=1, max_length=64)]

FAILURES: Final[dict[str, type[CallFailed]]] = {
    "lost": ConnectionLost,  # before `Unreachable`, of which it is a kind
    "unreachable": Unreachable,
    "answer-dropped": AnswerDropped,  # before `Overloaded`, of which it is a kind
    "overloaded": Overloaded,
    "timeout": CallTimeout,
    "answer-too-large": AnswerTooLarge,  # before `BodyTooLarge`, of which it is a kind
    "too-large": BodyTooLarge,
}
"""The codes with which a relay tells its caller how the call behind it failed."""


class RelayLinks(Protocol):
    """What relaying needs of the links of its peer: satisfied by `overlay.rpc.links.Links`."""

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls of `method`."""
        ...

    def is_linked(self, peer_id: str) -> bool:
        """Whether a call needs no dialling."""
        ...

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Call `method` of a peer. Raises `CallFailed`."""
        ...


class Purpose(enum.IntEnum):
    """What a relayed request is for, and so which method of the target gets it."""

    OPENING = 0
    REQUEST = 1


METHODS: Final = {Purpose.OPENING: "overlay/relayed-opening", Purpose.REQUEST: "overlay/relayed"}


class RelayRequest(Struct, frozen=True, array_like=True):
    """What a relay is asked to pass on. `further`: the relays after it, at most one. `timeout`: seconds."""

    target: _PeerId
    further: Annotated[tuple[_PeerId, ...], Meta(max_length=1)]
    purpose: Purpose
    sealed: bytes
    timeout: Annotated[float, Meta(ge=0, le=LONGEST)]

    def as_body(self) -> list[object]:
        """The request as the body of a call."""
        return [self.target, list(self.further), int(self.purpose), self.sealed, self.timeout]


class Relay:
    """Passes requests on, within bounds on what one caller, and all callers of one target, have under way.

    It holds nothing between calls. It also bounds how many sessions one caller opens.
    """

    def __init__(self, links: RelayLinks, limits: RelayLimits) -> None:
        self._links = links
        self._limits = limits
        self._by_caller: Counter[str] = Counter()
        self._by_target: Counter[str] = Counter()
        self._between: Counter[tuple[str, str]] = Counter()
        self._opened = TokenBuckets(
            limits.opened_by_caller, limits.opened_by_caller_burst, debt=limits.opened_by_caller_burst
        )
        links.serve(RELAY_METHOD, self._pass_on)

    async def _pass_on(self, caller: str, body: object) -> object:
        try:
            relay_request = msgspec.convert(body, RelayRequest, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        limits, target = self._limits, relay_request.target
        if (
            self._by_caller[caller] >= limits.max_by_caller
            or self._by_target[target] >= limits.max_to_target
            or self._between[caller, target] >= limits.max_between
        ):
            raise Refusal("overloaded", "too many calls are being relayed")
        if len(relay_request.sealed) > limits.max_bytes:
            raise Refusal("too-large", f"at most {limits.max_bytes} bytes are relayed")
        # Never dials: a relay that dialled for strangers would be a tool for scanning.
        if not self._links.is_linked(relay_request.further[0] if relay_request.further else target):
            raise Refusal("unreachable", "it isn't connected to this relay")
        if relay_request.purpose is Purpose.OPENING and not self._opened.take(caller, trio.current_time()):
            raise Refusal("overloaded", "this peer opens too many sessions")
        counted: list[tuple[Counter[Any], object]] = [
            (self._by_caller, caller),
            (self._by_target, target),
            (self._between, (caller, target)),
        ]
        for counter, key in counted:
            counter[key] += 1
        try:
            if relay_request.further:
                onward = msgspec.structs.replace(relay_request, further=()).as_body()
                return await self._links.call(
                    relay_request.further[0], RELAY_METHOD, onward, timeout=relay_request.timeout
                )
            return await self._links.call(
                target, METHODS[relay_request.purpose], relay_request.sealed, timeout=relay_request.timeout
            )
        except CallRefused as error:
            raise Refusal(error.code, error.message) from error
        except CallFailed as error:
            code = next((code for code, kind in FAILURES.items() if isinstance(error, kind)), "relay")
            raise Refusal(code, error.reason) from error
        finally:
            for counter, key in counted:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
