"""Waiting for a peer that has too much to do: it says when to come back, and is asked again within the deadline."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from overlay.errors import AnswerDropped, CallFailed, Overloaded
from registry.codes import Kind
from registry.errors import RegistryError

SOONEST: Final = 0.1  # seconds after which a peer is asked again that didn't say when
LATEST: Final = 5.0  # seconds; a longer wait that somebody tells isn't believed

Answer = TypeVar("Answer")


async def patiently(ask: Callable[[float], Awaitable[Answer]], timeout: float) -> Answer:
    """Returns what `ask(seconds left)` does. While the peer refuses because of its load, asks again when it said.

    Raises what `ask` raises; its refusal for load too, at once when to come back would be after `timeout` seconds.
    """
    deadline, wait = trio.current_time() + timeout, SOONEST
    while True:
        try:
            return await ask(max(deadline - trio.current_time(), 0.0))
        except (RegistryError, CallFailed) as error:
            told = _retry_after(error)
            if told is None:
                raise
            # Many are told the same: they mustn't come back in one moment.
            after = min(told or wait, LATEST) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter, not secrets
            if trio.current_time() + after >= deadline:
                raise
            wait = min(2 * wait, LATEST)
            await trio.sleep(after)


def _retry_after(error: RegistryError | CallFailed) -> float | None:
    """In how many seconds to ask again, 0 if nobody said; None where that wouldn't help, or isn't safe."""
    if isinstance(error, RegistryError):
        return error.retry_after if error.code.kind is Kind.LOAD else None
    return error.retry_after if isinstance(error, Overloaded) and not isinstance(error, AnswerDropped) else None
