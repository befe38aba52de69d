"""Hostile HTTP never is a 500, never holds the loop up, and leaves a node that answers."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import structlog

from tests.attacks.http_fuzz import try_requests
from tests.attacks.repeated import excesses

INPUTS: Final = 1_500


async def test_nothing_that_a_client_sends_is_a_fault(tmp_path: Path) -> None:
    seed = random.randrange(2**32)

    async def slow() -> str:
        """Turns that took too long; whatever else is wrong is a fault at once."""
        with structlog.testing.capture_logs() as logged:
            tried = await try_requests(INPUTS, seed, Path(mkdtemp(dir=tmp_path)))
        assert not tried.faults, (seed, tried.faults)
        assert not [each for each in logged if each["log_level"] == "error"], seed
        assert {200, 400, 404} <= set(tried.statuses), seed  # or nothing was tried
        return "; ".join(tried.slow)

    assert not await excesses(slow), seed
