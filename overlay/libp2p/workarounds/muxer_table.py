"""Fault: libp2p makes a plain `Yamux` for its protocol id, whatever class the muxer options name, and that one never
enforces its receive window, tells a reset or a cut connection as an orderly end, and writes once more for each read.

So the upgrader of a host gets muxers of ours, before it connects to anybody.

Remove when `MuxerMultistream.new_conn` makes what its options name.
"""

from __future__ import annotations

from collections.abc import Callable

from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.custom_types import TMuxerOptions, TProtocol
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream

from overlay.libp2p.muxer.connection import MuxedConnection
from overlay.libp2p.muxer.session import PROTOCOL_ID
from overlay.libp2p.workarounds.bounded_negotiation import bound_selector

MakeConnection = Callable[[ISecureConn, ID], MuxedConnection]
"""Makes the muxer of a connection with the peer."""


class _Muxers(MuxerMultistream):
    """Negotiates yamux, and has our muxer made for it."""

    def __init__(self, negotiate_timeout: int, make: MakeConnection) -> None:
        super().__init__(muxer_options(), negotiate_timeout)
        bound_selector(self._selector)
        self._make = make

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        await self.select_transport(conn)
        connection = self._make(conn, peer_id)
        connection.negotiated_muxer_protocol = PROTOCOL_ID
        connection.negotiated_security_protocol = getattr(conn, "negotiated_security_protocol", None)
        return connection


def muxer_options() -> TMuxerOptions:
    """Yamux, and nothing else."""
    return {TProtocol(PROTOCOL_ID): MuxedConnection}


def install_muxer(swarm: Swarm, make: MakeConnection) -> None:
    """Have `make` called for every connection of `swarm`. To be called before it listens or dials."""
    swarm.upgrader.muxer_multistream = _Muxers(swarm.upgrader.muxer_multistream.negotiate_timeout, make)
