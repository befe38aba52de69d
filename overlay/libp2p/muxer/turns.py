"""Turns for what wakes many tasks at once: one in each round of the loop, of whichever connection.

A peer's connection may carry hundreds of streams, on each of which a task waits; when it ends, or resets them all, each
of those tasks has something to do, and what the loop does in one round holds up everybody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from overlay.libp2p.muxer.stream_state import StreamState
from overlay.limits.lock_of_run import LockOfRun

AT_ONCE: Final = 16
"""Streams whose users are woken without a turn, or in one: some 100 us each."""

_turn = LockOfRun("the turn that is taken")


@asynccontextmanager
async def own_turn() -> AsyncIterator[None]:
    """Runs the block in a round of the loop in which nobody else has a turn."""
    async with _turn.lock:
        yield
        await trio.lowlevel.cancel_shielded_checkpoint()


async def wake_in_turns(streams: Sequence[StreamState]) -> None:
    """Tells the users of these streams that they changed, for the last time. Goes on when cancelled: nobody else would
    tell them."""
    with trio.CancelScope(shield=True):
        for start in range(0, len(streams), AT_ONCE):
            async with own_turn():
                for state in streams[start : start + AT_ONCE]:
                    wake_for_good(state)


def wake_for_good(state: StreamState) -> None:
    """Tells the user of one stream, for the last time."""
    state.on_change()
    state.forget_driver()
