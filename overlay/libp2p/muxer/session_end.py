"""Why a session of streams, or the connection beneath it, ended."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overlay.libp2p.muxer.stream_state import StreamState


class EndCode(enum.Enum):
    """Why a session, or the connection beneath it, ended."""

    CLOSED = "closed"
    """By us."""
    LEFT = "left"
    """The peer said goodbye."""
    LOST = "lost"
    """The connection beneath it ended."""
    STALLED = "stalled"
    """The peer reads nothing."""
    MEMORY = "memory"
    """Memory is short, and more of this connection than of any other is unread."""
    REFUSED = "refused"
    """The peer went away, saying that something is wrong."""
    BAD_FRAME = "bad frame"
    """A frame of a version or kind that doesn't exist."""
    BAD_STREAM = "bad stream"
    """The peer opened a stream under a number that isn't free, or not its to use."""
    WINDOW_EXCEEDED = "window exceeded"
    """More data than the peer may send."""
    WINDOW_OVERFLOW = "window overflow"
    """More credit than a window can have."""
    UNREAD_ANSWERS = "unread answers"
    """The peer makes us answer, and doesn't read the answers."""


class SessionEnded(Exception):
    """The session can't go on, for what the peer sent."""

    def __init__(self, code: EndCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.changed: list[StreamState] = []
        """The streams of which something changed before."""
