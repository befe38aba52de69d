"""Fault: libp2p's TLS reads the socket in pieces of 4 KiB, each at the cost of two turns of the scheduler, so 100 kB
take 25 of them: more time than all else that is done with them.

Here a connection under TLS is read in pieces of 64 KiB.

Remove when `TLSStreamReadWriter.read` asks for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from libp2p.abc import IRawConnection

_PIECE: Final = 4096  # what TLS asks for
_BULK: Final = 64 * 1024


class BulkReads:
    """A raw connection whose reads of 4 KiB return up to 64 KiB. Only for readers that take what comes."""

    def __init__(self, connection: IRawConnection) -> None:
        self._connection = connection

    async def read(self, n: int | None = None) -> bytes:
        """Read `n` bytes at most, or 64 KiB where TLS asks for 4."""
        return await self._connection.read(_BULK if n == _PIECE else n)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
