"""What lies beneath the muxer: bytes both ways, authenticated and encrypted."""

from __future__ import annotations

from typing import Protocol

import trio
from libp2p.abc import ISecureConn


class Pipe(Protocol):
    """Bytes to and from one peer. One task receives and one task drains at a time. Whatever it raises has ended it."""

    immediate: bool
    """Whether `send` sends by itself, so that it is worth calling at once, from any task."""

    socket: trio.socket.SocketType | None
    """What it goes over, where that is a plain socket."""

    async def receive(self) -> bytes:
        """Some bytes, as soon as there are any; empty at the end. May be cancelled without losing anything."""
        ...

    def send(self, data: bytes) -> bool:
        """Take `data`, after all that was taken before was sent; whether nothing of it waits for `drain`."""
        ...

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits for `drain`, which `receive` may have left too."""
        ...

    async def drain(self) -> None:
        """Send what was taken. Once it was cancelled, nothing can be sent any more."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SecuredPipe:
    """A connection by its public reads and writes."""

    immediate = False
    socket: trio.socket.SocketType | None = None

    def __init__(self, connection: ISecureConn) -> None:
        self._connection = connection
        self._taken = b""

    async def receive(self) -> bytes:
        """What one read gives: a record of TLS, a message of noise."""
        return await self._connection.read(None)

    def send(self, data: bytes) -> bool:
        """Keep `data` for `drain`."""
        self._taken = data
        return False

    @property
    def is_clear(self) -> bool:
        """Whether nothing was taken since the last `drain`."""
        return not self._taken

    async def drain(self) -> None:
        """Write it."""
        taken, self._taken = self._taken, b""
        await self._connection.write(taken)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
