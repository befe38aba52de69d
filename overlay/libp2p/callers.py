"""Who dialled this host: peers that proved who they are on a connection that they opened, however soon they hung up.

Members try whether they can dial whoever wants to count as a member (`overlay.discovery.vetting`), and hang up then: no
connection comes of that, and security is the last that is seen of it.
"""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache
from libp2p.abc import IRawConnection, ISecureConn, ISecureTransport
from libp2p.custom_types import TSecurityOptions
from libp2p.peer.id import ID

_MOST: Final = 4096


class Callers:
    """The peers that dialled this host since it started, the last ones of many."""

    def __init__(self) -> None:
        self._came: LRUCache[str, None] = LRUCache(_MOST)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._came

    def note(self, peer_id: str) -> None:
        """A peer has dialled this host."""
        self._came[peer_id] = None

    def noted_by(self, transports: TSecurityOptions) -> TSecurityOptions:
        """The same transports, which note whom they secure a connection with that came in."""
        return {protocol: _NotingTransport(transport, self) for protocol, transport in transports.items()}


class _NotingTransport(ISecureTransport):
    def __init__(self, transport: ISecureTransport, callers: Callers) -> None:
        self._transport = transport
        self._callers = callers

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        secured = await self._transport.secure_inbound(conn)
        self._callers.note(str(secured.get_remote_peer()))
        return secured

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        return await self._transport.secure_outbound(conn, peer_id)
