"""Fault: yamux sends a window update after every read, so each message costs a second write and a second wake-up of the
peer: half of the system calls of a link whose frames are small.

Here the credit that reads give back waits for the next frame that is sent anyway, or until a quarter of the smallest
window has gathered; the sender, who has the rest of the window, isn't held up by that.

Remove when libp2p's yamux holds updates back itself, as go-yamux does (half a window).
"""

from __future__ import annotations

import struct

from libp2p.custom_types import TMuxerOptions, TProtocol
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID, Yamux

_HEADER = struct.Struct("!BBHII")
_WINDOW_UPDATE = 1
_MOST_HELD_BACK = 64 * 1024  # bytes of credit; the initial window of yamux is 256 KiB
_MOST_STREAMS = 256


class ThriftyYamux(Yamux):
    """Yamux that holds window updates back."""

    _credit: dict[int, int]

    async def _write_frame(self, data: bytes) -> None:
        credit = self.__dict__.setdefault("_credit", {})
        if len(data) == _HEADER.size:
            _, kind, flags, stream_id, increment = _HEADER.unpack(data)
            if kind == _WINDOW_UPDATE and not flags:
                credit[stream_id] = credit.get(stream_id, 0) + increment
                if credit[stream_id] < _MOST_HELD_BACK and len(credit) < _MOST_STREAMS:
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


def thrifty_yamux_option() -> TMuxerOptions:
    """Yamux, in its thrifty form, and nothing else."""
    return {TProtocol(PROTOCOL_ID): ThriftyYamux}
