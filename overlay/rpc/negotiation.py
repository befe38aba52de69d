"""What both sides say on a new stream before anything else (multistream-select 1.0.0).

libp2p says it for us, except where a message is sent along with it to save a round trip.
"""

from __future__ import annotations

from typing import Final

_MULTISTREAM: Final = "/multistream/1.0.0"
_LONGEST: Final = 126  # bytes of a protocol id whose length, with its line's end, takes one byte


def negotiation_of(protocol_id: str) -> bytes:
    """The bytes with which a side proposes `protocol_id`; the other side accepts it with the same bytes."""
    return _line(_MULTISTREAM) + _line(protocol_id)


def _line(text: str) -> bytes:
    encoded = text.encode() + b"\n"
    if len(encoded) > _LONGEST + 1:
        raise ValueError(f"a protocol id of more than {_LONGEST} bytes: {text!r}")
    return bytes([len(encoded)]) + encoded
