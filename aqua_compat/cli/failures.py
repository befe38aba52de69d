"""Errors of the command line: one line on stderr, and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from registry.protocol.folded_errors import folded

if TYPE_CHECKING:
    from registry.client.results import Created, Done

SPARE_MEMORY: Final = 32 * 2**20
"""Bytes that a process has left which doesn't fail for want of memory: four stacks of threads."""


class Failure(click.ClickException):
    """The operation failed (exit code 1). The message says what happened, to what, and what to do."""

    exit_code = 1


class Partial(Failure):
    """A write is on fewer replicas than asked for, and goes on (exit code 3)."""

    exit_code = 3


class Misuse(click.UsageError):
    """The command was given wrongly (exit code 2)."""


def tell(error: click.ClickException) -> None:
    """Prints an error as one line on stderr."""
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    with suppress(OSError):  # where nobody can be told, the exit code does
        click.echo(f"error: {one_line(error.format_message())}{hint}", err=True)


def end_for_want_of_memory(error: BaseException | None = None, *, spare: int = SPARE_MEMORY) -> None:
    """Ends this process with one line, if it has hardly any memory left: then anything fails, by errors of all kinds,
    and waits for threads that never start. `error`: what it failed by, which may say so itself.
    `spare`: bytes that it needs."""
    try:
        if isinstance(error, MemoryError):
            raise error
        bytes(spare)  # which takes addresses, and no time: nothing is written to them
    except MemoryError:
        os.write(2, b"error: this process has no memory left; give it more, or lower what it may keep\n")
        os._exit(1)  # what a clean end needs isn't there either


def root_of(error: BaseException) -> BaseException:
    """The error in the groups that Trio makes: of several the first, but this command's own before others."""
    found = list(_leaves(error))
    return next((leaf for leaf in found if isinstance(leaf, click.ClickException)), found[0])


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]


LONGEST_LINE = 2000  # characters


def one_line(text: str) -> str:
    """A text of a peer or of the system on one line, without control characters, which could change the terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text[: LONGEST_LINE + 1]).strip()
    return shown if len(text) <= LONGEST_LINE else f"{shown[:LONGEST_LINE]}..."


def not_done(what: str, result: Created | Done) -> Failure:
    """The failure of a write: `what` didn't come about, or did on fewer replicas than asked for."""
    if result.stored:
        return Partial(f"{what} on as many replicas as asked for: {reasons(result.errors)}")
    return Failure(f"{what}: {reasons(result.errors)}")


def reasons(errors: Iterable[str]) -> str:
    """The errors of one function as one text, each once, at most five."""
    distinct = folded(errors)
    shown = "; ".join(distinct[:5]) or "no reason was given"
    return shown if len(distinct) <= 5 else f"{shown}; and {len(distinct) - 5} more"
