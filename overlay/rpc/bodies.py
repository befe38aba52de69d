"""Bodies of requests and answers, decoded and encoded in turns with others where they are large."""

from __future__ import annotations

from typing import Final

import trio
from msgspec import Struct

from overlay.limits.time_slices import TimeSlices, turn
from overlay.rpc.decoded_items import DecodedBody
from overlay.rpc.framing import decode_counted_item, encode_item
from overlay.rpc.parts import MOST_AT_ONCE, is_small, parts_of

_SMALL: Final = 1024  # bytes of a body that is decoded at once, without a slice
_MANY: Final = 5000  # items, for which a request has to wait itself; those of fewer have the next one wait
_HANDLING: Final = 1e-6  # seconds for one item: parsing, making as many of it, encoding those
_ENCODING: Final = 4e-7  # seconds for one item that nobody was charged for yet


class Encoded(Struct, frozen=True):
    """A value that is CBOR already. A handler may return it, so that what it had to encode isn't encoded again."""

    cbor: bytes


async def decoded(
    body: bytes, time_slices: TimeSlices, source: str, one_at_a_time: trio.Lock, counted: DecodedBody | None = None
) -> object:
    """What is in a body; a large one takes a slice of its source's, who is charged for what will be made of it too.

    `one_at_a_time`: held meanwhile, so that what is decoded is used before more is. `counted`: where its items are
    counted; None for an answer, which we asked for. Raises `FrameError`, and `TooManyItems`.
    """
    while True:
        if counted is not None:
            await counted.wait_for_room(len(body))
        if len(body) <= _SMALL:
            return _counted(body, counted)[0]
        async with one_at_a_time:
            async with time_slices.slice(source):
                if counted is not None and not counted.fits(len(body)):
                    continue  # another one of this source's was decoded meanwhile
                value, items = _counted(body, counted)
                if items > _MANY:
                    time_slices.charge(source, _HANDLING * items)
            async with time_slices.slice(source, 0.0):  # what is made of it takes as long
                if items <= _MANY:
                    time_slices.charge(source, _HANDLING * items)
                return value


def _counted(body: bytes, counted: DecodedBody | None) -> tuple[object, int]:
    value, items = decode_counted_item(body)
    if counted is not None:
        counted.count(items)
    return value, items


async def encoded(value: object, *, like: bytes = b"") -> bytes:
    """The CBOR of a value, of an `Encoded` one too; a large one is encoded in parts, each in a turn of its own.

    `like`: the request that the value answers, if it does; it may have as many items as that has bytes, and was charged
    for them with it. Where it is small this is no checkpoint. Raises `FrameError`.
    """
    is_charged = len(like) > _SMALL
    if isinstance(value, Encoded):
        return value.cbor
    if is_charged:
        await turn(0.0)
    if is_small(value):
        return encode_item(value)
    parts: list[bytes] = []
    for part in parts_of(value):
        parts.append(part)
        await turn(0.0 if is_charged else _ENCODING * MOST_AT_ONCE)
    return b"".join(parts)
