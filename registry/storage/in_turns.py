"""What takes long of resources with thousands of slots, in parts between which others have their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from hashlib import sha256
from itertools import islice
from typing import Final, TypeVar

from overlay.limits.time_slices import turn
from registry.model.merge import ResourceState

AT_ONCE: Final = 128  # states
_TOLD_AT_ONCE: Final = 1024  # states of one answer
_PER_STATE: Final = 2e-5  # seconds at most for encoding and hashing one of usual size

Part = TypeVar("Part")


async def in_parts(values: Iterable[Part], at_once: int = AT_ONCE) -> AsyncIterator[list[Part]]:
    """Some of what `values` makes at a time, charged to whom this task serves; a few come as one part, at once.

    `at_once`: of what takes about as long as `AT_ONCE` states.
    """
    left = iter(values)
    part = list(islice(left, at_once))
    while part:
        yield part
        if len(part) < at_once:
            return
        await turn(AT_ONCE * _PER_STATE)
        part = list(islice(left, at_once))


async def wait_for_turn(resource: ResourceState) -> None:
    """Before a resource is told of, which takes longer the more slots it has; at once for one with a few."""
    if len(resource.slots) > AT_ONCE / 2:
        await turn(min(len(resource.slots), _TOLD_AT_ONCE) * _PER_STATE)


async def digest_in_turns(resource: ResourceState) -> bytes:
    """The same as `ResourceState.digest`, computed in turns with other tasks."""
    summary = sha256()
    async for part in in_parts(resource.digests()):
        summary.update(b"".join(part))
    return summary.digest()
