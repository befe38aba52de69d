"""Fault: yamux sends a window update after every read, so each message costs a second write and a second wake-up of the
peer: half of the system calls of a link whose frames are small.

Here the credit that reads give back waits for the next frame that is sent anyway, or until the sender has less than
three quarters of the smallest window left; so the sender isn't held up. (The first read of a stream doubles its window:
that is credit too, for which a stream of one message has no use.)

A second fault keeps a subclass from being configured: libp2p makes a plain `Yamux` for its protocol id, whatever class
the muxer options name. So the upgrader of a host gets muxers of ours, before it connects to anybody.

Remove when libp2p's yamux holds updates back itself, as go-yamux does (half a window).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

from libp2p.custom_types import TMuxerOptions, TProtocol
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, PROTOCOL_ID, Yamux

from overlay.libp2p.workarounds.paced_connections import PacedConnection, Pause

if TYPE_CHECKING:
    from libp2p.abc import IMuxedConn, ISecureConn
    from libp2p.network.swarm import Swarm
    from libp2p.peer.id import ID

_HEADER = struct.Struct("!BBHII")
_WINDOW_UPDATE = 1
_LEAST_LEFT = DEFAULT_WINDOW_SIZE * 3 // 4  # bytes that the sender may still send
_MOST_STREAMS = 256


class ThriftyYamux(Yamux):
    """Yamux that holds window updates back."""

    _credit: dict[int, int]

    async def _write_frame(self, data: bytes) -> None:
        credit = self.__dict__.setdefault("_credit", {})
        if len(data) == _HEADER.size:
            _, kind, flags, stream_id, increment = _HEADER.unpack(data)
            if kind == _WINDOW_UPDATE and not flags:
                stream = self.streams.get(stream_id)
                credit[stream_id] = credit.get(stream_id, 0) + increment
                left = stream.recv_window - credit[stream_id] if stream is not None else DEFAULT_WINDOW_SIZE
                if left >= _LEAST_LEFT and len(credit) < _MOST_STREAMS:
                    return
                data = b""
        if credit:
            held_back = [
                _HEADER.pack(0, _WINDOW_UPDATE, 0, *update) for update in credit.items() if update[0] in self.streams
            ]
            credit.clear()
            data = b"".join((*held_back, data))
        if data:
            await super()._write_frame(data)


class _ThriftyMuxers(MuxerMultistream):
    """Negotiates yamux, and makes a thrifty one of it over a paced connection."""

    def __init__(self, negotiate_timeout: int, pause: Pause) -> None:
        super().__init__(thrifty_yamux_option(), negotiate_timeout)
        self._pause = pause

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        paced = cast("ISecureConn", PacedConnection(conn, str(peer_id), self._pause))
        return self._annotate_connection(ThriftyYamux(paced, peer_id), conn, protocol)


def thrifty_yamux_option() -> TMuxerOptions:
    """Yamux, and nothing else."""
    return {TProtocol(PROTOCOL_ID): ThriftyYamux}


def hold_window_updates_back(swarm: Swarm, pause: Pause) -> None:
    """Make every connection of `swarm` a thrifty and paced one. To be called before it listens or dials."""
    swarm.upgrader.muxer_multistream = _ThriftyMuxers(swarm.upgrader.muxer_multistream.negotiate_timeout, pause)
