"""Fault: whatever a peer sends is read at once, each frame for a fifth of a millisecond, and nothing above can slow it
down: a stream that isn't read piles up in memory instead, since the receive window isn't enforced.

Here the frames of a whole connection wait as long as its peer's pause says, so that TCP makes the peer wait.

Remove when libp2p's yamux enforces its window; then a stream can be left unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from libp2p.abc import ISecureConn

Pause = Callable[[str], float]
"""Seconds to wait before the next frame of a peer (base58) is read."""

_HEADER: Final = 12  # bytes of a frame's header; a body has a deadline in libp2p, so it isn't held up


class PacedConnection:
    """A connection whose reader waits between frames."""

    def __init__(self, connection: ISecureConn, peer_id: str, pause: Pause) -> None:
        self._connection = connection
        self._peer_id = peer_id
        self._pause = pause

    async def read(self, n: int | None = None) -> bytes:
        """Read `n` bytes, after the pause of the peer where they are a frame's header."""
        if n == _HEADER and (seconds := self._pause(self._peer_id)) > 0:
            await trio.sleep(seconds)
        return await self._connection.read(n)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
