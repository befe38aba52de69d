"""`op`: pure functions on values."""

from __future__ import annotations

from hashlib import sha256
from itertools import chain
from typing import Annotated

import base58
from msgspec import Meta

from aqua_compat.builtins.array import as_array

_SHA2_256 = b"\x12\x20"  # multihash: its code and the length of the digest
_LONGEST = 1024  # bytes; base58 takes time that grows with the square of the length: 4 ms


class Op:
    """The original's service `op`; base58 of at most 1,024 bytes."""

    async def noop(self) -> None:
        """Does nothing."""

    async def identity(self, value: object = None) -> object:
        """Returns its argument."""
        return value

    async def array(self, *values: object) -> list[object]:
        """Returns its arguments as an array."""
        return list(values)

    async def array_length(self, values: object) -> int:
        """The number of elements of an array."""
        return len(as_array(values))

    async def concat(self, *arrays: object) -> list[object]:
        """One array of the elements of all arrays, in their order."""
        return list(chain.from_iterable(map(as_array, arrays)))

    async def concat_strings(self, *texts: str) -> str:
        """One text of all texts, in their order."""
        return "".join(texts)

    async def string_to_b58(self, text: str) -> str:
        """The text's UTF-8 as base58."""
        return _b58(text.encode())

    async def string_from_b58(self, text: str) -> str:
        """The text whose UTF-8 is given as base58."""
        return _raw(text).decode()

    async def bytes_to_b58(self, given: Annotated[list[int], Meta(max_length=_LONGEST)] | bytes) -> str:
        """Bytes, or an array of numbers, as base58."""
        return _b58(bytes(given))

    async def bytes_from_b58(self, text: str) -> list[int]:
        """The bytes that are given as base58, as an array of numbers."""
        return list(_raw(text))

    async def sha256_string(self, text: str) -> str:
        """The SHA2-256 multihash of the text's UTF-8, as base58."""
        return _b58(_SHA2_256 + sha256(text.encode()).digest())


def _b58(raw: bytes) -> str:
    if len(raw) > _LONGEST:
        raise ValueError(f"{len(raw)} bytes; at most {_LONGEST} are encoded")
    return base58.b58encode(raw).decode()


def _raw(text: str) -> bytes:
    if len(text) > 2 * _LONGEST:
        raise ValueError(f"{len(text)} letters; at most {2 * _LONGEST} are decoded")
    return base58.b58decode(text)
