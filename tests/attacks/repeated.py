"""A measurement that failed is made again: what other processes do to one run, they don't do to three."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

TRIES: Final = 3


async def excesses(measure: Callable[[], Awaitable[str]], tries: int = TRIES) -> list[str]:
    """What exceeded a bound in each of `tries` measurements; nothing as soon as all was within bounds in one.

    `measure` returns what exceeded a bound, as text for whoever reads of the failure; "" when nothing did.
    """
    told: list[str] = []
    while len(told) < tries:
        excess = await measure()
        if not excess:
            return []
        told.append(excess)
    return told
