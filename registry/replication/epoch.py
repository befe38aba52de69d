"""When what lives is compared, so that both ends of a comparison leave out the same."""

from __future__ import annotations

from typing import Final

EPOCH: Final = 60  # seconds: trees leave out what is too old at a whole minute of the clock, which both ends name alike


def epoch_of(now: float, clock_skew: int) -> int:
    """The time at which what lives is compared: a whole minute so late that by no clock anything that lives then has
    been collected yet."""
    return (int(now) + clock_skew) // EPOCH * EPOCH + EPOCH
