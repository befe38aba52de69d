"""Tells a service manager such as systemd how a node is (sd_notify): datagrams on a socket of its."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHED: Final = "WATCHDOG_PID"
_LONGEST: Final = 200  # characters of a status
_STATUS_EVERY: Final = 10.0  # seconds, at most

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ServiceManager:
    """The one that started this process, if any did."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: of this process."""
        address = environment.get(_SOCKET, "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = _seconds(environment)

    @property
    def is_there(self) -> bool:
        """Whether anybody is told."""
        return self._address.startswith(("/", "\0"))

    def ready(self, status: str) -> None:
        """The node has started."""
        self._tell("READY=1", status)

    def stopping(self) -> None:
        """Tells the service manager that the node ends."""
        self._tell("STOPPING=1", "stopping")

    async def keep_informed(self, status: Callable[[], str]) -> None:
        """Tells how the node is, and that its loop runs, as often as the watchdog asks for, until cancelled."""
        if not self.is_there:
            return
        pause = min(self._watchdog / 2, _STATUS_EVERY) if self._watchdog else _STATUS_EVERY
        while True:
            self._tell("WATCHDOG=1" if self._watchdog else "", status())
            await trio.sleep(pause)

    def _tell(self, state: str, status: str) -> None:
        if not self.is_there:
            return
        text = "\n".join(filter(None, [state, f"STATUS={' '.join(status.split())[:_LONGEST]}"]))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.setblocking(False)  # a service manager that hangs holds nobody up
                notify.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("the service manager can't be told", error=error.strerror)


def _seconds(environment: Mapping[str, str]) -> float:
    """How long the service manager waits for a sign of life; 0 where it doesn't."""
    watched, given = environment.get(_WATCHED, ""), environment.get(_WATCHDOG, "")
    if not given.isdecimal() or (watched and watched != str(os.getpid())):
        return 0.0
    return int(given) / 1e6
