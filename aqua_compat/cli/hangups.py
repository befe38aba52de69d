"""What SIGHUP means to a node: that its terminal has closed, or that it is to read its services again.

1. A node that somebody started in a terminal ends with it.
2. One that keeps services registered doesn't, wherever it learned of them, nor does one without a terminal: a service
   manager's or a container's. SIGHUP has these read everything again.
3. Under `nohup` no node ends with the terminal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

from overlay.tasks import Wakeup


class Hangups:
    """Those of one node, from its start on."""

    def __init__(self, *, is_agent: bool) -> None:
        """`is_agent`: files are to say what it keeps registered."""
        self._ends = not is_agent and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
        self._came = Wakeup()
        self._keeps_services: Callable[[], bool] = lambda: False

    def take(self, came: signal.Signals) -> bool:
        """Whether the node goes on after this signal."""
        if came is not signal.SIGHUP or (self._ends and not self._keeps_services()):
            return False
        self._came.set()
        return True

    async def run(self, read_again: Callable[[], Awaitable[None]], keeps_services: Callable[[], bool]) -> None:
        """Reads again after each signal, also after one that came before, until cancelled. `keeps_services`: whether
        the node keeps any by then."""
        self._keeps_services = keeps_services
        while True:
            await self._came.wait()
            await read_again()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
