"""Fault: a websocket that we dialled stays open, as a file of this process, when its host stops at the wrong moment.

Once the listener's closing frame has come, trio-websocket leaves the TCP connection to its reader task, which waits for
the listener to close it, and `aclose` does nothing any more. A swarm that stops cancels that task.

Remedy: remember what was dialled until it's closed; close what's left when the host has stopped. Connections pass the
choice of their security first, so that's where they are noticed.

Remove when libp2p's websocket transport closes what it dialled (`transport/websocket/transport.py`, `close`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.transport.websocket.connection import P2PWebSocketConnection

if TYPE_CHECKING:
    from libp2p.abc import IRawConnection, ISecureConn
    from libp2p.network.swarm import Swarm
    from libp2p.peer.id import ID


class _NotingSecurity(SecurityMultistream):
    """Negotiates security, and notes each websocket that asks for it."""

    def __init__(self, before: SecurityMultistream) -> None:
        super().__init__(before.transports)
        self.dialled: list[trio.SocketStream] = []

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        if isinstance(conn, RawConnection) and isinstance(conn.stream, P2PWebSocketConnection):
            self.dialled = [stream for stream in self.dialled if stream.socket.fileno() >= 0]
            self.dialled.append(_beneath(conn.stream))
        return await super().secure_outbound(conn, peer_id)


def _beneath(websocket: P2PWebSocketConnection) -> trio.SocketStream:
    stream = websocket._ws_connection._stream
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    return stream


@asynccontextmanager
async def websockets_closed_at_last(swarm: Swarm) -> AsyncIterator[None]:
    """Within, `swarm` is run; at the end every websocket that it dialled is closed."""
    noting = _NotingSecurity(swarm.upgrader.security_multistream)
    swarm.upgrader.security_multistream = noting
    try:
        yield
    finally:
        for stream in noting.dialled:
            await trio.aclose_forcefully(stream)
