"""Peer ids as labels of DNS: CIDv1 in base36, since DNS forgets case and base58 lives by it. Pure.

`12D3KooW...` is `k51qzi5uqu5d...` there: 62 characters, of the 63 that a label has. It is the form that IPNS names have
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#string-representation).
"""

from __future__ import annotations

from typing import Final

import base58

from overlay.errors import PeerIdError
from overlay.identity import public_key_of

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MULTIBASE: Final = "k"
_CID: Final = b"\x01\x72"  # version 1, codec libp2p-key
_LENGTH: Final = 62  # of an Ed25519 key's
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}


def label_of_peer(peer_id: str) -> str:
    """The label that stands for a peer id."""
    number, digits = int.from_bytes(_CID + base58.b58decode(peer_id), "big"), ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return _MULTIBASE + digits


def peer_in_label(label: str) -> str | None:
    """The peer id that a label in lower case stands for; None where it is none."""
    if len(label) != _LENGTH or label[0] != _MULTIBASE:
        return None
    number = 0
    for digit in label[1:]:
        value = _VALUES.get(digit)
        if value is None:
            return None
        number = number * 36 + value
    raw = number.to_bytes(41, "big").lstrip(b"\0")
    if not raw.startswith(_CID):
        return None
    peer_id = base58.b58encode(raw.removeprefix(_CID)).decode()
    try:
        public_key_of(peer_id)
    except PeerIdError:
        return None
    return peer_id
