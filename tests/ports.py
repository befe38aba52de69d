"""Ports for servers that are told which to take, of processes that start a little later."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 15_000
_TRIES: Final = 1_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, for TCP and UDP alike.

    It lies below those that the kernel gives to connections: nobody's connection takes it before the server does.
    """
    first_ephemeral = int(_EPHEMERAL.read_text().split()[0])
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, first_ephemeral)
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return port
    raise OSError(f"no port from {_LOWEST} to {first_ephemeral} is free")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as taken:
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
