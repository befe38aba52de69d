"""Who answered a dial, when it wasn't the peer that was dialled."""

from __future__ import annotations

import re
from typing import Final

_MISMATCH: Final = re.compile(r"Peer ID mismatch: expected \w+ got (\w+)")


def who_answered(error: BaseException) -> str | None:
    """The other peer's id, where that is why dialling failed.

    libp2p 0.8.1 tells it by the text of a ValueError under its SwarmException, which says "after 0 attempts". Remove
    when it has an error of its own for it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if found := _MISMATCH.match(str(cause)):
            return found[1]
        cause = cause.__cause__ or cause.__context__
    return None
