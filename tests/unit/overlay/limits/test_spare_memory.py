from __future__ import annotations

import resource
import sys

import pytest

from overlay.limits.spare_memory import keep_spare_memory
from overlay.tasks import background


def pages_of_a_large_body() -> int:
    """Pages that the system had to find for 40,000 lists, which are dropped again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    lists: list[list[object]] = [[] for _ in range(40_000)]
    found = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del lists
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="how memory is got is told by Linux")
async def test_what_is_built_and_dropped_finds_its_memory_there() -> None:
    async with background() as nursery:
        await nursery.start(keep_spare_memory)
        assert max(pages_of_a_large_body() for _ in range(5)) < 200  # of 700, and the list's own
