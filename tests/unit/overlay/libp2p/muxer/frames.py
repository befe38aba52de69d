"""Frames of yamux by hand, as a peer that keeps no rule may send them."""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct("!BBHII")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int = 0, stream: int = 0, value: int = 0, version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream, value)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, len(payload)) + payload


class Sent(NamedTuple):
    """A frame that was sent."""

    kind: int
    flags: int
    stream: int
    value: int
    payload: bytes = b""


def parsed(sent: bytes) -> list[Sent]:
    """All frames of what was sent, which must be whole."""
    frames, rest = parsed_so_far(sent)
    assert not rest
    return frames


def parsed_so_far(sent: bytes) -> tuple[list[Sent], bytes]:
    """The whole frames of what was sent, and the beginning of the next."""
    frames: list[Sent] = []
    while len(sent) >= HEADER.size:
        _, kind, flags, stream, value = HEADER.unpack_from(sent)
        end = HEADER.size + (value if kind == DATA else 0)
        if len(sent) < end:
            break
        frames.append(Sent(kind, flags, stream, value, sent[HEADER.size : end]))
        sent = sent[end:]
    return frames, sent
