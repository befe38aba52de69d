"""Ending by Ctrl-C or by a service manager."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable


async def until_signalled(
    act: Callable[[], Awaitable[None]],
    *signals: signal.Signals,
    tell: Callable[[signal.Signals], None] | None = None,
) -> signal.Signals | None:
    """Runs `act` until it ends or one of the signals comes; returns that signal once `act` has ended.

    `tell` is called as soon as the signal comes.

    A second signal does what it does by default. Python's KeyboardInterrupt wouldn't do: it is raised in whatever runs,
    and libraries catch it in places, or it comes where Python only notes it; then nothing ends. What `act` raises comes
    in a group.
    """
    import trio  # noqa: PLC0415 - `--help` is to answer at once

    came: signal.Signals | None = None
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await act()
            nursery.cancel_scope.cancel()

        with trio.open_signal_receiver(*signals) as arriving:
            nursery.start_soon(run)
            came = signal.Signals(await anext(arriving))
        if tell is not None:
            tell(came)
        nursery.cancel_scope.cancel()
    return came
