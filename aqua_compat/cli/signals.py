"""Ending by Ctrl-C, by a service manager, with the terminal, or with whoever started this process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final, NoReturn

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a node cleanly."""


class _Held:
    """Signals that came before this process could say what they mean to it."""

    def __init__(self) -> None:
        self._came: list[signal.Signals] = []
        self.is_over = False
        """Whether they were passed on: from then on nothing is held."""

    def take(self, number: signal.Signals) -> bool:
        """Holds the first of each, until they are passed on; whether it did."""
        if self.is_over or number in self._came:
            return False
        self._came.append(number)
        return True

    def pass_on(self) -> None:
        """Raises them, to whoever takes them by now."""
        self.is_over = True
        for number in self._came:
            signal.raise_signal(number)
        self._came.clear()


_held: Final = _Held()


def end_cleanly_from_now_on(code: int, *, holds: bool = False) -> None:
    """Has SIGTERM and SIGHUP end this process with an exit code, until something else takes them: while a command still
    loads, the first of them would kill it as if it had crashed.

    `holds`: the first of each is kept for `until_signalled` instead; a second SIGTERM ends the process. SIGHUP may mean
    that what isn't read yet is to be read again, which must end nothing. And what a signal raises is lost where Python
    can't pass an exception on, as in what an import has called when a lock is dropped: a node would run on.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - as `signal` calls it
        sys.exit(code)

    def hold(number: int, frame: FrameType | None) -> None:
        if _held.take(signal.Signals(number)) or number != signal.SIGTERM:
            return
        if not _held.is_over:
            end(number, frame)
        signal.signal(number, signal.SIG_DFL)  # while it stops: what ended a task alone would be lost again
        signal.raise_signal(number)

    for number in heeded(signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hold if holds else end)


def heeded(*signals: signal.Signals) -> list[signal.Signals]:
    """These signals, but for the end of the terminal where `nohup` had it ignored. Shells have background jobs ignore
    Ctrl-C, too; whoever sends them that means it."""
    return [
        number for number in signals if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


async def until_stdin_ends() -> None:
    """Waits until nobody holds the other end of stdin any more: whoever started this process has ended, however."""
    import trio  # noqa: PLC0415 - `--help` is to answer at once

    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(4096):
            pass


async def until_signalled(
    act: Callable[[], Awaitable[None]],
    *signals: signal.Signals,
    tell: Callable[[signal.Signals], None] | None = None,
    finish: Callable[[], Awaitable[None]] | None = None,
    outlive: Callable[[signal.Signals], bool] | None = None,
) -> signal.Signals | None:
    """Runs `act` until it ends or one of the signals comes; returns that signal once `act` has ended.

    `tell` is called as soon as the signal comes, then `finish`, for what `act` has to run for yet; it limits its time.
    `outlive` says of a signal that it doesn't end `act`, and is asked of those, too, that `nohup` had ignored.

    A second signal does what it does by default. Python's KeyboardInterrupt wouldn't do: it is raised in whatever runs,
    and libraries catch it in places, or it comes where Python only notes it; then nothing ends. What `act` raises comes
    in a group. What `end_cleanly_from_now_on` held back counts as if it came now.
    """
    import trio  # noqa: PLC0415 - `--help` is to answer at once

    came: signal.Signals | None = None
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await act()
            nursery.cancel_scope.cancel()

        with trio.open_signal_receiver(*(signals if outlive else heeded(*signals))) as arriving:
            nursery.start_soon(run)
            _held.pass_on()
            came = signal.Signals(await anext(arriving))
            while outlive is not None and outlive(came):
                came = signal.Signals(await anext(arriving))
        if tell is not None:
            tell(came)
        if finish is not None:
            await finish()
        nursery.cancel_scope.cancel()
    return came
