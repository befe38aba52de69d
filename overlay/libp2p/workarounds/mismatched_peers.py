"""Fault: libp2p tells which other peer answered a dial only in the text of a ValueError.

It lies under a SwarmException, which says "after 0 attempts". Remove when libp2p has an error of its own for it.
"""

from __future__ import annotations

import re
from typing import Final

_MISMATCH: Final = re.compile(r"Peer ID mismatch: expected \w+ got (\w+)")


def who_answered(error: BaseException) -> str | None:
    """The id of the peer that answered in place of the one that was dialled; None where dialling failed otherwise."""
    cause: BaseException | None = error
    while cause is not None:
        if found := _MISMATCH.match(str(cause)):
            return found[1]
        cause = cause.__cause__ or cause.__context__
    return None
