"""How values lie in the interpreter's memory: packed, little endian, without padding (reference: memory layout).

A string or vec is a pointer and a count, both u32; a record is a pointer to its fields, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

from aqua_compat.particles.errors import InterpreterFailed

_PAIR: Final = struct.Struct("<II")
_MOST_STRINGS: Final = 65_536


class Memory(Protocol):
    """The linear memory of one instance."""

    def read(self, start: int, size: int) -> bytes:
        """Raises InterpreterFailed for a place outside."""
        ...

    def write(self, start: int, payload: bytes) -> None:
        """Raises InterpreterFailed for a place outside."""
        ...


Allocate = Callable[[int], int]
"""Bytes -> a place for so many, within the memory; never called for 0."""


class Writer:
    """Puts arguments into memory. The callee frees them."""

    def __init__(self, memory: Memory, allocate: Allocate) -> None:
        self._memory = memory
        self._allocate = allocate

    def blob(self, content: bytes) -> tuple[int, int]:
        """(pointer, length); the pointer of nothing is 0."""
        if not content:
            return 0, 0
        place = self._allocate(len(content))
        self._memory.write(place, content)
        return place, len(content)

    def record(self, *fields: bytes) -> int:
        """The place of a record of packed fields."""
        return self.blob(b"".join(fields))[0]

    def text(self, text: str) -> bytes:
        """The field of a string."""
        return self.vec(text.encode())

    def vec(self, content: bytes) -> bytes:
        """The field of a vec of bytes."""
        return _PAIR.pack(*self.blob(content))


class Reader:
    """Reads a record's fields in their order."""

    def __init__(self, memory: Memory, place: int, size: int) -> None:
        """`size` of the whole record in bytes."""
        self._memory = memory
        self._fields = memory.read(place, size)
        self._at = 0

    def i64(self) -> int:
        [number] = struct.unpack_from("<q", self._take(8))
        return int(number)

    def flag(self) -> bool:
        return self._take(1) != b"\0"

    def blob(self) -> bytes:
        """A vec of bytes."""
        return self._blob(self._take(8))

    def text(self) -> str:
        return self.blob().decode(errors="replace")

    def texts(self) -> list[str]:
        """A vec of strings."""
        place, count = _PAIR.unpack(self._take(8))
        if count > _MOST_STRINGS:
            raise InterpreterFailed(f"a result of {count} strings")
        pairs = self._memory.read(place, count * _PAIR.size) if count else b""
        return [
            self._blob(pairs[start : start + _PAIR.size]).decode(errors="replace")
            for start in range(0, len(pairs), _PAIR.size)
        ]

    def _take(self, size: int) -> bytes:
        field = self._fields[self._at : self._at + size]
        self._at += size
        return field

    def _blob(self, pair: bytes) -> bytes:
        place, length = _PAIR.unpack(pair)
        return self._memory.read(place, length) if length else b""
