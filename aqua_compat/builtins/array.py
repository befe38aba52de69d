"""`array`: sums, sets and slices of arrays. Of sets, the order is that in which elements first come up."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from aqua_compat.builtins.math import I64, as_i64

Index = Annotated[int, Meta(ge=0)]


class Array:
    """The original's service `array`, where the order of sets isn't told."""

    async def sum(self, xs: list[I64]) -> int:
        """The sum of all numbers; an error when any on the way is no i64, as there."""
        total = 0
        for x in xs:
            total = as_i64(total + x)
        return total

    async def dedup(self, xs: list[str]) -> list[str]:
        """The elements, each once."""
        return list(dict.fromkeys(xs))

    async def intersect(self, xs: list[str], ys: list[str]) -> list[str]:
        """The elements of both, each once."""
        others = set(ys)
        return [x for x in dict.fromkeys(xs) if x in others]

    async def diff(self, xs: list[str], ys: list[str]) -> list[str]:
        """The elements of the first that aren't of the second, each once."""
        others = set(ys)
        return [x for x in dict.fromkeys(xs) if x not in others]

    async def sdiff(self, xs: list[str], ys: list[str]) -> list[str]:
        """The elements of one of both only, each once."""
        return [*(await self.diff(xs, ys)), *(await self.diff(ys, xs))]

    async def slice(self, xs: object, start: Index, end: Index) -> list[object]:
        """The elements from index `start` to before `end`."""
        elements = as_array(xs)
        if not start <= end <= len(elements):
            raise ValueError(
                f"slice indexes out of bounds. start index: {start}, end index: {end}, array length: {len(elements)}"
            )
        return elements[start:end]

    async def length(self, xs: object) -> int:
        """The number of elements."""
        return len(as_array(xs))


def as_array(value: object) -> list[object]:
    """An array of anything. Checked here, for an annotation would have all of it copied. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"not an array: {type(value).__name__}")  # noqa: TRY004 - the script's fault
    return value
