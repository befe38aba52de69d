"""Frames: a 4-byte big-endian length, then one CBOR item. Bytes in, items out; no I/O.

What comes from a peer is bounded before it is built: first by its declared length (`max_frame` of `overlay.settings`),
then by `overlay.limits.decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cbor2

from overlay.limits.decoder import MAX_ITEMS, DecodeError, check_items, decode_counted

HEADER_BYTES = 4
MOST_IN_FRAME = 1024
"""Items of a frame: bodies are byte strings in it."""


_JOINED: Final = 4096  # bytes up to which chunks are joined


class FrameError(ValueError):
    """The bytes are no frame, or the item is none that a frame may hold."""


class FrameDecoder:
    """Turns chunks, cut anywhere, into items.

    Holds less than one frame between chunks, and copies each byte at most twice. After it raised, it is of no use.
    """

    def __init__(self, max_frame: int) -> None:
        """`max_frame`: bytes of the longest frame that is accepted, its header not counted."""
        self._max_frame = max_frame
        self._incomplete: list[bytes] = []  # chunks, joined at last: a buffer that grows would be moved again and again
        self._wanted = 0
        self.buffered = 0
        """Bytes of the incomplete frame."""
        self.decoded = 0
        """Bytes of all frames so far."""

    def feed(self, chunk: bytes) -> Iterator[object]:
        """The items that `chunk` completes, in order, each decoded when it is asked for. Raises `FrameError`.

        All of them have to be taken before the next chunk.
        """
        received = chunk
        if self._incomplete:
            self._keep(chunk)
            if self.buffered < self._wanted:
                return
            received = b"".join(self._incomplete)
            self._incomplete.clear()
            self.buffered = 0
        start, end = 0, len(received)
        while end - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            length = self._length(received, start)
            if end - body < length:
                break
            self.decoded += HEADER_BYTES + length
            yield decode_item(received[body : body + length], max_items=MOST_IN_FRAME)
            start = body + length
        if start < end:
            self._wanted = HEADER_BYTES + self._length(received, start) if end - start >= HEADER_BYTES else HEADER_BYTES
            self._keep(received[start:])

    def _keep(self, chunk: bytes) -> None:
        """Keep a part of the frame; small ones are joined, lest each costs more than it holds."""
        self.buffered += len(chunk)
        if self._incomplete and len(self._incomplete[-1]) + len(chunk) <= _JOINED:
            self._incomplete[-1] += chunk
        else:
            self._incomplete.append(chunk)

    def _length(self, received: bytes, start: int) -> int:
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
        encoded = cbor2.dumps(item)
        if len(encoded) > MAX_ITEMS:  # better refused here than by who gets it
            check_items(encoded)
    except Exception as error:  # the codec's own errors, and whatever the value's methods raise
        raise FrameError(f"can't be encoded: {error}") from error
    return encoded


def decode_item(encoded: bytes, *, max_items: int = MAX_ITEMS) -> object:
    """The value that is encoded, lists as `list`, maps as `dict`. Raises `FrameError`, and nothing else."""
    return decode_counted_item(encoded, max_items)[0]


def decode_counted_item(encoded: bytes, max_items: int = MAX_ITEMS) -> tuple[object, int]:
    """`decode_item`, and of how many items it is at most."""
    try:
        return decode_counted(encoded, max_items)
    except DecodeError as error:
        raise FrameError(str(error)) from error
