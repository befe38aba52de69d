"""Errors of several peers as people are told of them: what they said alike, once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_ON_A_PEER: Final = re.compile(r"(.+) on ([1-9A-HJ-NP-Za-km-z]{40,60})", re.DOTALL)


def folded(told: Iterable[str]) -> list[str]:
    """Texts, each once; of what several peers said (`ErrorInfo.on`), how many they were. Only for showing: nothing is
    decided by it."""
    peers: dict[str, set[str]] = {}
    for text in told:
        found = _ON_A_PEER.fullmatch(text)
        said, peer = (found[1], found[2]) if found else (text, "")
        peers.setdefault(said, set()).add(peer)
    return [said + _places(peers[said] - {""}) for said in peers]


def _places(peers: set[str]) -> str:
    return f" on {len(peers)} peers" if len(peers) > 1 else "".join(f" on {peer}" for peer in peers)
