"""Logs of the command line: to stderr, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, TypeVar, cast

import click

from aqua_compat.cli.failures import one_line
from aqua_compat.cli.loading import loading
from aqua_compat.cli.output import json_line

Command = TypeVar("Command", bound=Callable[..., Any])

_MINUTE: Final = 60.0  # seconds

LEVELS = ("debug", "info", "warning", "error")


def logging_options(default_level: str) -> Callable[[Command], Command]:
    """The options `--log-level` and `--log-format`, which arrive as `log_level` and `log_format`."""

    def add(command: Command) -> Command:
        command = click.option(
            "--log-format",
            type=click.Choice(["human", "json"]),
            default="human",
            show_default=True,
            envvar="AQUA_REGISTRY_LOG_FORMAT",
            help="Format of log lines on stderr.",
        )(command)
        return click.option(
            "--log-level",
            type=click.Choice(LEVELS),
            default=default_level,
            show_default=True,
            envvar="AQUA_REGISTRY_LOG_LEVEL",
            help="Least severe log lines to show on stderr.",
        )(command)

    return add


def _printable(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Log lines hold texts of other peers: none of them may send control characters to the terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = one_line(value)
    return event


class RepeatedLines:
    """Leaves out what is logged again and again: each event from `info` on gets so many lines a minute.

    Peers can cause some events as often as they like, and a disk would fill with them. The next line after some were
    left out tells how many, as `left_out`.
    """

    def __init__(self, most: int = 60, clock: Callable[[], float] = time.monotonic) -> None:
        """`most`: lines a minute of one event, by its name; all of them come from our own code, so they are few."""
        self._most = most
        self._clock = clock
        self._lines: dict[str, tuple[float, int]] = {}  # when the minute began, and lines in it

    def __call__(self, _: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A processor of structlog's. Raises DropEvent for a line that is left out."""
        import structlog  # noqa: PLC0415 - see `configure_logs`

        if level == "debug":
            return event
        name, now = str(event.get("event")), self._clock()
        began, lines = self._lines.get(name, (now, 0))
        if now - began >= _MINUTE:
            if lines > self._most:
                event["left_out"] = lines - self._most
            began, lines = now, 0
        self._lines[name] = began, lines + 1
        if lines >= self._most:
            raise structlog.DropEvent
        return event


class LossyStream:
    """Log lines go here: those that can't be written, on a full disk or a terminal that was closed, are lost, and the
    first that can tells how many. Whoever logs never fails for it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0

    def write(self, text: str) -> int:
        """Writes a piece of a line."""
        try:
            if self._lost:
                self._stream.write(f"{self._lost} pieces of log lines couldn't be written\n")
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._lost += 1
        else:
            self._lost = 0
        return len(text)

    def flush(self) -> None:
        """Does nothing, since nothing waits."""


def configure_logs(level: str, form: str) -> None:
    """Has structlog write to stderr from `level` on, in lines that are `human` or `json`."""
    with loading():
        import structlog  # noqa: PLC0415 - 0.2 s that `--help` needn't pay

    number = getattr(logging, level.upper())
    if form == "json":
        last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(json_line)]
    else:
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain, pad_event_to=0)
        last = [_printable, renderer]
    structlog.configure(
        processors=[
            RepeatedLines(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", LossyStream(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # libp2p and its parts log through the standard library, root logger included: hundreds of lines per connection.
    logging.basicConfig(stream=LossyStream(sys.stderr), level=logging.CRITICAL)
