"""Which of two links between the same two peers stays.

Where both peers opened a stream at the same time, the one stays that was opened by the peer whose id is smaller (base58
texts compared as strings; for ids of one length that is the order of their bytes). Both sides choose the same. A stream
that comes when a link has been up for a while replaces it, since a peer opens a stream only when it knows of no link;
and one of another run of the peer's process ends the old link.
"""

from __future__ import annotations

import enum
from typing import Protocol

from overlay.rpc.protocol import Hello


class Choice(enum.Enum):
    """What becomes of a link that came up, and of the one that was there."""

    FIRST = enum.auto()
    """There was none: the peer wasn't linked, and is now."""
    KEEP = enum.auto()
    """The old one stays, the new one is retired."""
    REPLACE = enum.auto()
    """The new one stays, the old one is retired."""
    RESTARTED = enum.auto()
    """The new one stays; the old one is ended: it leads to a process that is no more."""


class Candidate(Protocol):
    """What is compared of a link that is up, or was."""

    @property
    def opened_by(self) -> str:
        """The id of the peer that opened its stream."""
        ...

    @property
    def remote(self) -> Hello | None:
        """What the other side said of itself."""
        ...

    @property
    def up_since(self) -> float:
        """When it came up, by Trio's clock."""
        ...

    @property
    def usable(self) -> bool:
        """Whether calls can be made on it."""
        ...


def choose(new: Candidate, current: Candidate | None, simultaneous: float) -> Choice:
    """Choose between a link that has just come up and the current one.

    `simultaneous`: seconds between two links within which either side may have opened one before it saw the other's.
    """
    if current is None:
        return Choice.FIRST
    if new.remote != current.remote:
        return Choice.RESTARTED
    if not current.usable:
        return Choice.REPLACE
    crossed = new.up_since - current.up_since <= simultaneous and new.opened_by != current.opened_by
    return Choice.KEEP if crossed and current.opened_by < new.opened_by else Choice.REPLACE
