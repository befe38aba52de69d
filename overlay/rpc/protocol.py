"""What travels on a link: twelve kinds of frames, parsed at the edge into values.

1. Each side first says `Hello`, once, or `Bye` where it has no place, or doesn't let the other into its network.
   Anything else before it breaks the protocol.
2. `Request` is answered once, by `Response`, `Refused` or `Failed` with its id, unless it is cancelled. Ids are chosen
   by the caller and mean nothing to the other direction. Answers to unknown ids are ignored (their caller gave up).
3. `Cancel` stops the serving of a request; it may cross the answer.
4. `Ping` is answered by `Pong`; any byte counts as a sign of life. A peer with many links says in it that it would be
   asked more rarely.
5. `Bye` says why its sender leaves. `STOPPING`, `FULL`, `BROKE_PROTOCOL` and `NOT_ADMITTED`: the link is over. `IDLE`
   asks whether the link may end; it is answered once, by the same or by `Stay`, and the asker makes no requests
   meanwhile. Any other: its sender makes no more requests on this link. Answers still travel; when both said it, and
   nothing is under way, either side closes.
6. `Notice` is said once and never answered. Who knows its topic reads it; whoever doesn't passes it over.
7. `Keep` tells whether its sender keeps the link; until then it does. Only a link that neither keeps is asked to end.

A frame is a CBOR array, its kind first. Bodies are CBOR within a byte string: they are decoded where they are used, so
queued requests take no more memory than their bytes, and a body that isn't CBOR fails its own call only.

Peers of newer minor versions may say more: fields after the known ones, and after the hello frames of unknown kinds,
are ignored; unknown codes of faults and reasons are taken as "failed" and "other". See docs/wire-protocol.md.
"""

from __future__ import annotations

import enum
import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from overlay.membership.certificate import MAX_CHAIN_BYTES
from overlay.membership.gatekeeper import LinkFault
from overlay.rpc.framing import FrameError, encode_frame

MINOR_VERSION = 0
"""Newest minor version of the protocol that we speak, with all before it; the major one is in the protocol's id."""

METHOD_MAX_LENGTH = 128
_TEXT_MAX_LENGTH = 1024
_LONGEST_TIMEOUT = 24 * 3600 * 1000  # milliseconds
_MOST_OTHERS = 16

CallId = Annotated[int, Meta(ge=0, le=2**53)]
Milliseconds = Annotated[int, Meta(ge=0)]


class Fault(enum.IntEnum):
    """Why a request got no answer of its handler."""

    OVERLOADED = 1
    NO_SUCH_METHOD = 2
    TIMEOUT = 3
    ANSWER_TOO_LARGE = 4
    BAD_BODY = 5
    ANSWER_DROPPED = 6


class Reason(enum.IntEnum):
    """Why a side leaves a link, as it says in its `Bye`."""

    OTHER = 0
    """Whatever a newer peer may mean."""
    REPLACED = 1
    """Another link between the two stays."""
    STOPPING = 2
    """The peer's process ends."""
    IDLE = 3
    """Neither side keeps the link, and nothing went over it for long, or others need the place."""
    FULL = 4
    """All places for links are taken; other members to try are named."""
    BROKE_PROTOCOL = 5
    """The other side broke the rules."""
    NOT_ADMITTED = 6
    """The network is private, and the other side may not be in it, or not any more; `Bye.why` tells the code."""


IMMEDIATE = frozenset({Reason.STOPPING, Reason.FULL, Reason.BROKE_PROTOCOL, Reason.NOT_ADMITTED})
"""Reasons for which nothing more is said or heard on the link."""


class Hello(Struct, frozen=True, array_like=True, tag=0):
    """Who speaks: its newest minor version, whether it's a member, which run of its process this is (random bytes).

    In a private network also its certificates, and what it takes for the present (seconds since 1970). `version` names
    its product and release, for people alone; versions before ours don't say it.
    """

    minor: Annotated[int, Meta(ge=0)]
    member: bool
    session: Annotated[bytes, Meta(min_length=8, max_length=8)]
    chain: Annotated[bytes, Meta(max_length=MAX_CHAIN_BYTES)] = b""
    time: Annotated[int, Meta(ge=0)] = 0
    version: Annotated[str, Meta(max_length=64)] = ""


class Request(Struct, frozen=True, array_like=True, tag=1):
    """A call: the encoded body, and how long the caller waits in milliseconds."""

    id: CallId
    method: Annotated[str, Meta(min_length=1, max_length=METHOD_MAX_LENGTH)]
    body: bytes
    timeout: Milliseconds
    trace: Any = b""
    """Of the span that it is made in (`overlay.tracing`); not sent where there is none. What a later version has here
    instead is ignored, as all that it adds."""

    @property
    def timeout_seconds(self) -> float:
        """How long the caller waits, at most a day."""
        return seconds(self.timeout)


class Response(Struct, frozen=True, array_like=True, tag=2):
    """What the handler returned, encoded."""

    id: CallId
    body: bytes


class Refused(Struct, frozen=True, array_like=True, tag=3):
    """The handler refused, or broke (code "internal")."""

    id: CallId
    code: str
    message: str
    retry_after: Milliseconds = 0
    """When to come back; 0 where the time has nothing to do with it."""


class Cancel(Struct, frozen=True, array_like=True, tag=4):
    """The caller no longer waits."""

    id: CallId


class Ping(Struct, frozen=True, array_like=True, tag=5):
    """Asks for a sign of life."""


class Pong(Struct, frozen=True, array_like=True, tag=6):
    """The sign of life, and for how many seconds of silence its sender would be left alone from now on."""

    rest: Annotated[int, Meta(ge=0)] = 0


class Referral(Struct, frozen=True, array_like=True):
    """A member that may have a place, and multiaddrs of it."""

    peer_id: str
    addresses: tuple[str, ...]


class Bye(Struct, frozen=True, array_like=True, tag=7):
    """The sender leaves the link, or asks whether it may.

    With `FULL` it names others to try, with `NOT_ADMITTED` it says why: the value of a `LinkFault`.
    """

    code: Annotated[int, Meta(ge=0)] = Reason.OTHER
    others: tuple[Referral, ...] = ()
    why: str = ""

    @property
    def reason(self) -> Reason:
        """What the code means."""
        return Reason(self.code) if self.code in _REASONS else Reason.OTHER

    @property
    def others_to_try(self) -> tuple[Referral, ...]:
        """As many of the others as are worth reading."""
        return self.others[:_MOST_OTHERS]

    @property
    def fault(self) -> LinkFault | None:
        """Why the peer isn't admitted; None where no code is told that we know."""
        return LinkFault(self.why) if self.why in _LINK_FAULTS else None


class Failed(Struct, frozen=True, array_like=True, tag=8):
    """The request got no answer of its handler."""

    id: CallId
    fault: Annotated[int, Meta(ge=0)]
    """A `Fault`, or what a newer peer may say instead."""
    retry_after: Milliseconds = 0
    """When to come back to a peer that is overloaded, if it says."""


class Keep(Struct, frozen=True, array_like=True, tag=9):
    """Whether the sender keeps the link."""

    kept: bool


class Stay(Struct, frozen=True, array_like=True, tag=10):
    """Answers `Bye` for being idle: the link doesn't end."""


class Notice(Struct, frozen=True, array_like=True, tag=11):
    """Something that wants no answer."""

    topic: Annotated[str, Meta(min_length=1, max_length=METHOD_MAX_LENGTH)]
    body: bytes


class Unknown(Struct, frozen=True):
    """A frame of a kind that only newer peers know."""


Frame = Hello | Request | Response | Refused | Cancel | Ping | Pong | Bye | Failed | Keep | Stay | Notice

_KINDS: dict[object, type[Frame]] = {
    0: Hello,
    1: Request,
    2: Response,
    3: Refused,
    4: Cancel,
    5: Ping,
    6: Pong,
    7: Bye,
    8: Failed,
    9: Keep,
    10: Stay,
    11: Notice,
}
_REASONS = frozenset(Reason)
_LINK_FAULTS = frozenset(LinkFault)


def parse(item: object) -> Frame | Unknown:
    """The frame that a decoded item is. Raises `FrameError`."""
    # By kind through a table: converting to a union costs msgspec 9 us, to one struct 1.
    if type(item) is not list or not item or type(item[0]) is not int or item[0] < 0:
        raise FrameError("not a frame")
    kind = _KINDS.get(item[0])
    if kind is None:
        return Unknown()
    try:
        return msgspec.convert(item, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise FrameError(f"a frame of bad form: {error}") from error


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, length first."""
    items = msgspec.to_builtins(frame, builtin_types=(bytes,))
    return encode_frame(items[:-1] if isinstance(frame, Request) and not frame.trace else items)


def seconds(milliseconds: int) -> float:
    """A time that a peer told, at most a day."""
    return min(milliseconds, _LONGEST_TIMEOUT) / 1000


def milliseconds(seconds: float) -> int:
    """A time as it is told to a peer; none that isn't 0 becomes 0."""
    return math.ceil(seconds * 1000)


def shortened(text: str) -> str:
    """`text`, or as much of its beginning as a frame may hold, as UTF-8 can express it."""
    return text[:_TEXT_MAX_LENGTH].encode(errors="replace").decode()
