"""Fault: a WebSocket that we dialled stays open, as a file of this process, when its swarm stops at the wrong moment.

Once the listener's closing frame has come, trio-websocket leaves the TCP connection to its reader task, which waits for
the listener to close it, and `aclose` does nothing any more. A swarm that stops cancels that task.

Remedy: remember what was dialled until it's closed, and close what's left when the host has stopped. Connections pass
the choice of their security first, so that's where they are noticed.

Remove when libp2p closes what it dialled (`transport/websocket/transport.py`, `close`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.transport.websocket.connection import P2PWebSocketConnection

from overlay.libp2p.workarounds.bounded_negotiation import bound_selector

if TYPE_CHECKING:
    from libp2p.abc import IRawConnection, ISecureConn
    from libp2p.network.swarm import Swarm
    from libp2p.peer.id import ID


class _NotingSecurity(SecurityMultistream):
    """Negotiates security, and notes each connection that asks for it."""

    def __init__(self, before: SecurityMultistream) -> None:
        super().__init__(before.transports)
        bound_selector(self._selector)
        self.dialled: list[trio.SocketStream] = []

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        self.dialled = [stream for stream in self.dialled if stream.socket.fileno() >= 0]
        stream = _beneath(conn)
        if stream is not None:
            self.dialled.append(stream)
        return await super().secure_outbound(conn, peer_id)


def _beneath(conn: IRawConnection) -> trio.SocketStream | None:
    if not isinstance(conn, RawConnection):
        return None
    stream: object = conn.stream
    if isinstance(stream, P2PWebSocketConnection):
        stream = stream._ws_connection._stream
    elif isinstance(stream, TrioTCPStream):
        stream = stream.stream
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream if isinstance(stream, trio.SocketStream) else None


@asynccontextmanager
async def connections_closed_at_last(swarm: Swarm) -> AsyncIterator[None]:
    """Close every connection that `swarm` dialled, at the end of the block within which it runs."""
    noting = _NotingSecurity(swarm.upgrader.security_multistream)
    swarm.upgrader.security_multistream = noting
    try:
        yield
    finally:
        for stream in noting.dialled:
            stream.socket.close()  # without a checkpoint: also when cancelled
