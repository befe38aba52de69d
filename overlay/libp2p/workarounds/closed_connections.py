"""Fault: a connection that we dialled stays open, as a file of this process, when it is given up at the wrong moment.

1. Once the listener's closing frame has come, trio-websocket leaves the TCP connection to its reader task, which waits
   for the listener to close it, and `aclose` does nothing any more. A swarm that stops cancels that task.
2. `Yamux.close` says goodbye before it closes the socket, and `Swarm.close_peer` forgets the connection all the same
   when that is cancelled (`stream_muxer/yamux/yamux.py`): nobody closes the socket then.

Remedy: remember what was dialled until it's closed; close what's left when its peer has no connection any more, and
when the host has stopped. Connections pass the choice of their security first, so that's where they are noticed.

Remove when libp2p closes what it dialled (`transport/websocket/transport.py`, `close`; `Yamux.close`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.security_multistream import SecurityMultistream
from libp2p.transport.websocket.connection import P2PWebSocketConnection

if TYPE_CHECKING:
    from libp2p.abc import IRawConnection, ISecureConn
    from libp2p.network.swarm import Swarm
    from libp2p.peer.id import ID


class _Dialled(NamedTuple):
    peer: ID
    stream: trio.SocketStream
    when: float


class _NotingSecurity(SecurityMultistream):
    """Negotiates security, and notes each connection that asks for it."""

    def __init__(self, before: SecurityMultistream, swarm: Swarm, longest_dial: float) -> None:
        super().__init__(before.transports)
        self._swarm = swarm
        self._longest_dial = longest_dial
        self.dialled: list[_Dialled] = []

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        await self._close_orphans()
        stream = _beneath(conn)
        if stream is not None:
            self.dialled.append(_Dialled(peer_id, stream, trio.current_time()))
        return await super().secure_outbound(conn, peer_id)

    async def _close_orphans(self) -> None:
        known = trio.current_time() - self._longest_dial
        remaining = [dialled for dialled in self.dialled if dialled.stream.socket.fileno() >= 0]
        orphans = [one for one in remaining if one.when < known and not self._has_connection(one.peer)]
        self.dialled = [one for one in remaining if one not in orphans]
        for orphan in orphans:
            await trio.aclose_forcefully(orphan.stream)

    def _has_connection(self, peer: ID) -> bool:
        return any(not connection.is_closed for connection in self._swarm.get_connections(peer))


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
async def connections_closed_at_last(swarm: Swarm, longest_dial: float) -> AsyncIterator[None]:
    """Close every connection that `swarm` dialled, at the end of the block within which it runs.

    `longest_dial`: seconds, longer than any dial takes: for so long a connection may be unknown to the swarm.
    """
    noting = _NotingSecurity(swarm.upgrader.security_multistream, swarm, longest_dial)
    swarm.upgrader.security_multistream = noting
    try:
        yield
    finally:
        for dialled in noting.dialled:
            dialled.stream.socket.close()  # without a checkpoint: also when cancelled
