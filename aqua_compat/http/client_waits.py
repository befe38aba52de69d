"""Waiting for something to tell a client that may have left.

A client that ends its sending side after a request still reads the answer (`nc -N` does so), and looks just like one
that closed its connection. So it gets what was asked for, within `FINISH`; but nothing waits for a change for it for
longer than `LINGER`, or whoever leaves would hold a place until something happens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

LINGER: Final = 1.0  # seconds
FINISH: Final = 60.0


class ClientWaits:
    """The waits for one client, one after the other."""

    def __init__(self) -> None:
        self._may_have_left = False
        self._scope = trio.CancelScope()
        self._linger = math.inf

    @contextmanager
    def one(self, linger: float) -> Iterator[trio.CancelScope]:
        """Cancels the block when the client ended its sending side and `linger` seconds are over since, and since the
        block began; `cancelled_caught` tells."""
        self._linger = linger
        with trio.CancelScope() as self._scope:
            if self._may_have_left:
                self.note_end()
            yield self._scope

    def note_end(self) -> None:
        """The client ended its sending side, at least."""
        self._may_have_left = True
        self._scope.deadline = trio.current_time() + self._linger
