"""Fault: libp2p tells some errors apart only in their texts.

- Which other peer answered a dial is in a ValueError beneath a SwarmException that says "after 0 attempts".
- That a peer doesn't speak a protocol is a MultiselectClientError, as is that it said nothing in time.

Remove each function when libp2p has an error of its own for it.
"""

from __future__ import annotations

import re
from typing import Final

from libp2p.protocol_muxer.exceptions import MultiselectClientError

_MISMATCH: Final = re.compile(r"Peer ID mismatch: expected \w+ got (\w+)")
_UNSUPPORTED: Final = "not supported"


def who_answered(error: BaseException) -> str | None:
    """The id of the peer that answered in place of the one that was dialled; None where dialling failed otherwise."""
    cause: BaseException | None = error
    while cause is not None:
        if found := _MISMATCH.match(str(cause)):
            return found[1]
        cause = cause.__cause__ or cause.__context__
    return None


def is_protocol_unsupported(error: BaseException) -> bool:
    """Whether opening a stream failed because the peer doesn't speak the protocol."""
    return isinstance(error.__cause__, MultiselectClientError) and _UNSUPPORTED in str(error.__cause__)
