"""What travels on a link: nine kinds of frames, parsed at the edge into values.

1. Each side first says `Hello`, once. Anything before it breaks the protocol.
2. `Request` is answered once, by `Response`, `Refused` or `Failed` with its id, unless it is cancelled. Ids are chosen
   by the caller and mean nothing to the other direction. Answers to unknown ids are ignored (their caller gave up).
3. `Cancel` stops the serving of a request; it may cross the answer.
4. `Ping` is answered by `Pong`; any byte counts as a sign of life.
5. `Bye` says that its sender makes no more requests on this link. Answers still travel; when both said it, and nothing
   is under way, either side closes.

A frame is a CBOR array, its kind first. Bodies are CBOR within a byte string: they are decoded where they are used, so
queued requests take no more memory than their bytes, and a body that isn't CBOR fails its own call only.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from overlay.rpc.framing import FrameError, encode_frame

VERSION = 1
"""Of the protocol, as each side says in its `Hello`."""

METHOD_MAX_LENGTH = 128
_TEXT_MAX_LENGTH = 1024
_LONGEST_TIMEOUT = 24 * 3600 * 1000

CallId = Annotated[int, Meta(ge=0, le=2**53)]
Text = Annotated[str, Meta(max_length=_TEXT_MAX_LENGTH)]


class Fault(enum.IntEnum):
    """Why a request got no answer of its handler."""

    OVERLOADED = 1
    NO_SUCH_METHOD = 2
    TIMEOUT = 3
    ANSWER_TOO_LARGE = 4
    BAD_BODY = 5


class Hello(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=0):
    """Who speaks: its version, whether it is a member, and which run of its process this is (random bytes)."""

    version: Annotated[int, Meta(ge=1)]
    member: bool
    session: Annotated[bytes, Meta(min_length=8, max_length=8)]


class Request(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A call: the encoded body, and how long the caller waits in milliseconds."""

    id: CallId
    method: Annotated[str, Meta(min_length=1, max_length=METHOD_MAX_LENGTH)]
    body: bytes
    timeout: Annotated[int, Meta(ge=0, le=_LONGEST_TIMEOUT)]


class Response(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """What the handler returned, encoded."""

    id: CallId
    body: bytes


class Refused(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """The handler refused, or broke (code "internal")."""

    id: CallId
    code: Text
    message: Text


class Cancel(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The caller no longer waits."""

    id: CallId


class Ping(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Asks for a sign of life."""


class Pong(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """The sign of life."""


class Bye(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """No more requests of the sender will come on this link."""


class Failed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """The request got no answer of its handler."""

    id: CallId
    fault: Fault


Frame = Hello | Request | Response | Refused | Cancel | Ping | Pong | Bye | Failed

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
}


def parse(item: object) -> Frame:
    """The frame that a decoded item is. Raises `FrameError`."""
    # By kind through a table: converting to a union costs msgspec 9 us, to one struct 1.
    if type(item) is not list or not item or type(item[0]) is not int or item[0] not in _KINDS:
        raise FrameError("a frame of unknown kind")
    try:
        return msgspec.convert(item, _KINDS[item[0]], builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise FrameError(f"a frame of bad form: {error}") from error


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, length first."""
    return encode_frame(msgspec.to_builtins(frame, builtin_types=(bytes,)))


def shortened(text: str) -> str:
    """`text`, or as much of its beginning as a frame may hold, as UTF-8 can express it."""
    return text[:_TEXT_MAX_LENGTH].encode(errors="replace").decode()
