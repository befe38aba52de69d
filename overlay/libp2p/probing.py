"""Dials a peer anew to see whether its machine and its process are there, whatever connections are open.

A plain connection first: its kernel refuses, accepts or says nothing. Then the process has to prove who it is.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
import trio

from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.timings import CONNECTING

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_OURS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
)
_AGAIN: Final = 0.1  # seconds until a machine that hung up is dialled again
_REFUSING: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


async def knock(address: str, authenticate: Callable[[], Awaitable[object]], timeout: float) -> DialOutcome:
    """What becomes of a multiaddr `/ip4/../tcp/N` or `/ip6/..`, within so many seconds.

    `authenticate` connects, and raises unless the peer proved who it is.
    """
    _, kind, host, _, port, *_ = [*address.split("/"), "", "", "", "", ""]
    if kind not in {"ip4", "ip6"} or not port.isdecimal():
        return DialOutcome.OWN_FAULT
    deadline = trio.current_time() + timeout
    while True:
        outcome = await _connect(kind, host, int(port), min(deadline - trio.current_time(), CONNECTING))
        if outcome is not DialOutcome.MUTE:
            return outcome
        with trio.move_on_at(deadline):
            try:
                await authenticate()
            except Exception as error:
                log.debug("a peer didn't prove who it is", address=address, error=repr(error)[:200])
            else:
                return DialOutcome.ALIVE
        if trio.current_time() + _AGAIN >= deadline:
            return DialOutcome.MUTE
        await trio.sleep(_AGAIN)  # it hung up: a process that stops is gone in a moment


async def _connect(kind: str, host: str, port: int, timeout: float) -> DialOutcome:
    family = trio.socket.AF_INET if kind == "ip4" else trio.socket.AF_INET6
    try:
        connection = trio.socket.socket(family)
    except OSError:
        return DialOutcome.OWN_FAULT
    outcome = DialOutcome.SILENT
    with connection, trio.move_on_after(timeout):
        try:
            await connection.connect((host, port))
            outcome = DialOutcome.MUTE
        except OSError as error:
            if error.errno in _REFUSING:
                outcome = DialOutcome.REFUSED
            elif error.errno in _OURS:
                outcome = DialOutcome.OWN_FAULT
    return outcome


def most_telling(outcomes: Iterable[DialOutcome]) -> DialOutcome:
    """What several addresses of one peer tell together: it is refused where each of them was."""
    found = {*outcomes}
    for outcome in (DialOutcome.ALIVE, DialOutcome.MUTE, DialOutcome.SILENT, DialOutcome.REFUSED):
        if outcome in found:
            return outcome
    return DialOutcome.OWN_FAULT
