"""Spans of time and moments, as options take them and as people read them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

LONGEST: Final = 100 * 365 * 86_400  # seconds

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,12})([smhd]?)")


class TimeSpan(click.ParamType[int]):
    """A whole number of seconds, or of `s`, `m`, `h` or `d`, as in 24h; it arrives as seconds."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the class."""
        if isinstance(value, int):
            return value
        seconds = span_in(str(value))
        if seconds is None:
            self.fail(f"{str(value)[:40]!r} is no time span: give a number and s, m, h or d, such as 24h", param, ctx)
        return seconds


class Moment(click.ParamType[int]):
    """A date, a date and time (UTC unless it says otherwise), or a span from now; it arrives as seconds since 1970."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the class."""
        if isinstance(value, int):
            return value
        text = str(value)
        span = span_in(text)
        if span is not None:
            return int(time.time()) + span
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text[:40]!r} is no moment: give a date such as 2027-01-31, with a time as in 2027-01-31T12:00, or a"
                " span from now such as 7d",
                param,
                ctx,
            )
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def span_in(text: str) -> int | None:
    """The seconds of a span as people write it, between 1 and `LONGEST`; None for what is none."""
    match = _SPAN.fullmatch(text.strip())
    seconds = int(match[1]) * _SECONDS[match[2] or "s"] if match else 0
    return seconds if 0 < seconds <= LONGEST else None


def span_text(seconds: int) -> str:
    """A span of time for people, in its greatest unit, rounded down."""
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _SECONDS[unit]:
            return f"{seconds // _SECONDS[unit]} {unit}"
    return f"{seconds} s"
