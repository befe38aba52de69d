"""The bytes of a stream that came and weren't read."""

from __future__ import annotations

from collections import deque
from typing import Final

_SMALL: Final = 512  # bytes; smaller pieces are joined, lest each costs more than it holds
_JOINED: Final = 4096  # bytes up to which pieces are joined


class UnreadBytes:
    """A queue of bytes: appended in pieces of any size, taken in others. Large pieces aren't copied."""

    __slots__ = ("_chunks", "_start", "count")

    def __init__(self) -> None:
        self.count = 0
        self._chunks: deque[bytes | bytearray] = deque()
        self._start = 0  # of the first chunk: what was taken of it

    def append(self, piece: bytes) -> None:
        """Append a piece, joined with the one before it where it is small."""
        self.count += len(piece)
        chunks = self._chunks
        if not chunks or len(piece) >= _SMALL or len(chunks[-1]) >= _JOINED:
            chunks.append(piece)
            return
        last = chunks[-1]
        if isinstance(last, bytes):
            last = chunks[-1] = bytearray(last)
        last += piece

    def take(self, most: int) -> bytes:
        """Take up to `most` bytes (at least one); there must be any."""
        chunks, start = self._chunks, self._start
        first = chunks[0]
        if len(chunks) > 1 and len(first) - start < most:
            data = self._joined(most)
        elif len(first) - start <= most:
            data = bytes(first[start:] if start else first)
            chunks.popleft()
            self._start = 0
        else:
            data = bytes(first[start : start + most])
            self._start = start + most
        self.count -= len(data)
        return data

    def clear(self) -> None:
        """Drops all that is unread."""
        self._chunks.clear()
        self._start = self.count = 0

    def _joined(self, most: int) -> bytes:
        """Take up to `most` bytes of several chunks."""
        chunks, start = self._chunks, self._start
        taken: list[bytes | bytearray] = []
        while chunks and most > 0:
            chunk = chunks[0]
            part = chunk[start : start + most]
            most -= len(part)
            taken.append(part)
            if start + len(part) == len(chunk):
                chunks.popleft()
                start = 0
            else:
                start += len(part)
        self._start = start
        return b"".join(taken)
