"""`math` and `cmp`: Aqua's arithmetic and comparisons compile to calls of them. Whole numbers are i64."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

_LEAST, _MOST = -(2**63), 2**63 - 1

I64 = Annotated[int, Meta(ge=_LEAST, le=_MOST)]
U32 = Annotated[int, Meta(ge=0, lt=2**32)]


class Math:
    """The original's service `math`; a result that is no i64 is an error."""

    async def add(self, x: I64, y: I64) -> int:
        """x + y"""
        return as_i64(x + y)

    async def sub(self, x: I64, y: I64) -> int:
        """x - y"""
        return as_i64(x - y)

    async def mul(self, x: I64, y: I64) -> int:
        """x * y"""
        return as_i64(x * y)

    async def fmul(self, x: float, y: float) -> int:
        """floor(x * y)"""
        return as_i64(math.floor(x * y))

    async def div(self, x: I64, y: I64) -> int:
        """x / y, towards zero."""
        return as_i64(_quotient(x, y))

    async def rem(self, x: I64, y: I64) -> int:
        """The remainder of x / y."""
        return x - y * _quotient(x, y)

    async def pow(self, x: I64, y: U32) -> int:
        """x to the power of y"""
        if abs(x) > 1 and y > 63:
            raise ValueError("the result is no i64")
        return as_i64(x**y if abs(x) > 1 or y < 2 else x ** (2 + y % 2))

    async def log(self, x: I64, y: I64) -> int:
        """The logarithm of y to base x, rounded down."""
        if x < 2 or y < 1:
            raise ValueError("there is no such logarithm")
        power = 0
        while (y := y // x) > 0:
            power += 1
        return power


class Cmp:
    """Comparisons, as in the original."""

    async def gt(self, x: I64, y: I64) -> bool:
        """x > y"""
        return x > y

    async def gte(self, x: I64, y: I64) -> bool:
        """x >= y"""
        return x >= y

    async def lt(self, x: I64, y: I64) -> bool:
        """x < y"""
        return x < y

    async def lte(self, x: I64, y: I64) -> bool:
        """x <= y"""
        return x <= y

    async def cmp(self, x: I64, y: I64) -> int:
        """-1, 0 or 1 when x is less than y, the same, or more."""
        return (x > y) - (x < y)


def _quotient(x: int, y: int) -> int:
    if y == 0:
        raise ValueError("division by zero")
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def as_i64(number: int) -> int:
    """The number itself. Raises ValueError for one that fits in no i64."""
    if not _LEAST <= number <= _MOST:
        raise ValueError("the result is no i64")
    return number
