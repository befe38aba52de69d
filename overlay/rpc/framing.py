"""Frames: a 4-byte big-endian length, then one CBOR item. Bytes in, items out; no I/O.

What comes from a peer is bounded before it is built: the declared length first, then nesting; and what we don't use of
CBOR is refused: tags (which can share, recurse or expand), indefinite lengths, duplicate keys, and keys that are
neither text nor bytes.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final, NoReturn

import cbor2

from overlay.limits.gc_pause import gc_paused

HEADER_BYTES = 4

_DEEPEST_NESTING = 32
_LARGE: Final = 16_384  # bytes, from which on what is decoded may be so many values that collecting garbage matters


class FrameError(ValueError):
    """The bytes are no frame, or the item is none that a frame may hold."""


class FrameDecoder:
    """Turns chunks, cut anywhere, into items.

    Holds less than one frame between chunks, and copies each byte at most twice. After it raised, it is of no use.
    """

    def __init__(self, max_frame: int) -> None:
        """`max_frame`: bytes of the longest frame that is accepted, its header not counted."""
        self._max_frame = max_frame
        self._incomplete = bytearray()

    def feed(self, chunk: bytes) -> list[object]:
        """The items that `chunk` completes, in order. Raises `FrameError`."""
        received: bytes | bytearray = chunk
        if self._incomplete:
            self._incomplete += chunk
            if len(self._incomplete) < self._wanted():
                return []
            received, self._incomplete = self._incomplete, bytearray()
        items: list[object] = []
        start, end = 0, len(received)
        while end - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            length = self._length(received, start)
            if end - body < length:
                break
            items.append(decode_item(bytes(received[body : body + length])))
            start = body + length
        if start < end:
            self._incomplete += received[start:]
        return items

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame."""
        return len(self._incomplete)

    def _wanted(self) -> int:
        if len(self._incomplete) < HEADER_BYTES:
            return HEADER_BYTES
        return HEADER_BYTES + self._length(self._incomplete, 0)

    def _length(self, received: bytes | bytearray, start: int) -> int:
        length = int.from_bytes(received[start : start + HEADER_BYTES], "big")
        if not 0 < length <= self._max_frame:
            raise FrameError(f"a frame of {length} bytes; 1 to {self._max_frame} are allowed")
        return length


def encode_frame(item: object) -> bytes:
    """The frame that holds `item`. Raises `FrameError` for what CBOR can't hold."""
    encoded = encode_item(item)
    return len(encoded).to_bytes(HEADER_BYTES, "big") + encoded


def encode_item(item: object) -> bytes:
    """CBOR of a value of None, bool, int, float, text, bytes, lists and maps. Raises `FrameError`."""
    try:
        return cbor2.dumps(item)
    except Exception as error:  # the codec's own errors, and whatever the value's methods raise
        raise FrameError(f"can't be encoded: {error}") from error


def decode_item(encoded: bytes) -> object:
    """The value that is encoded, lists as `list`, maps as `dict`. Raises `FrameError`, and nothing else."""
    try:
        with gc_paused() if len(encoded) > _LARGE else nullcontext():
            item: object = cbor2.loads(
                encoded,
                tag_hook=_refuse_tag,
                semantic_decoders=_REFUSED_TAGS,
                max_depth=_DEEPEST_NESTING,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                strict_hashable_types=True,
            )
    except Exception as error:  # also MemoryError, which a declared length could cause
        raise FrameError(f"isn't CBOR as we use it: {error}") from error
    return item


def _refuse_tag(*_: object) -> NoReturn:
    raise FrameError("tags aren't allowed")


# cbor2 decodes these itself unless told otherwise; `tag_hook` gets the others.
_REFUSED_TAGS = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse_tag
)
