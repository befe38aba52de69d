"""What a session knows of one of its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.libp2p.muxer.unread_bytes import UnreadBytes

WINDOW: Final = 256 * 1024
"""Bytes that each side may send on a stream at first."""


def _nobody() -> None:
    """Who is told of a stream's changes at first."""


class StreamState:
    """One stream of a session. Read only, but for `on_change`, which the session never calls."""

    __slots__ = (
        "_credit",
        "_growth",
        "_left",
        "_read",
        "_swept",
        "_unread",
        "answered",
        "finished",
        "forgotten",
        "id",
        "inbound",
        "on_change",
        "peer_finished",
        "send_window",
        "was_reset",
        "window",
    )

    def __init__(self, stream_id: int, inbound: bool) -> None:
        self.id = stream_id
        self.inbound = inbound
        """Whether the peer opened it."""
        self.window = WINDOW
        """Bytes that the peer may still send."""
        self.send_window = WINDOW
        """Bytes that we may still send."""
        self.answered = inbound
        """Whether the peer said anything on it."""
        self.finished = False
        """Whether we send nothing more."""
        self.peer_finished = False
        """Whether the peer sends nothing more."""
        self.was_reset = False
        self.forgotten = False
        """Whether it isn't in the session any more."""
        self.on_change: Callable[[], None] = _nobody
        """Whom the driver of the session tells of changes."""
        self._unread = UnreadBytes()
        self._credit = 0  # bytes read and not told yet
        self._growth = 0  # of its window
        self._read = 0  # bytes, since it grew
        self._left = False
        self._swept = False

    @property
    def unread(self) -> int:
        """Bytes that came and weren't read."""
        return self._unread.count

    def forget_driver(self) -> None:
        """Tell nobody of changes any more."""
        self.on_change = _nobody
