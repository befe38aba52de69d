"""What the kernel knows of a connection's other machine: when it acknowledged anything last (Linux's TCP_INFO).

A connection that is looked at gets keep-alive probes, one a second, which the kernels answer without either process. So
a machine that is gone shows within seconds, and a process that stands still doesn't look like one. TCP_USER_TIMEOUT
would break connections where packets get lost; here nothing breaks: `_PROBES` are more than a link lasts in silence.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import trio

_PROBE_EVERY: Final = 1  # seconds
_PROBES: Final = 100
_LAST_RECEIVED: Final = struct.Struct("=52xII")  # milliseconds since data came, and since anything was acknowledged
_INFO: Final = getattr(socket, "TCP_INFO", None)


def watch(connection: trio.socket.SocketType) -> None:
    """Have the kernel probe the other machine from now on."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_EVERY)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def silence(connection: trio.socket.SocketType) -> float | None:
    """Seconds since the other machine's kernel sent anything; None where this system doesn't tell."""
    if _INFO is None:
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, _INFO, _LAST_RECEIVED.size)
        received, acknowledged = _LAST_RECEIVED.unpack(told)
        return float(min(received, acknowledged)) / 1000
    except (OSError, struct.error):
        return None
