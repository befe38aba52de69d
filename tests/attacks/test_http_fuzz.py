"""Hostile HTTP never is a 500, never holds the loop up, and leaves a node that answers."""

from __future__ import annotations

import random
from pathlib import Path

import structlog

from tests.attacks.http_fuzz import try_requests


async def test_nothing_that_a_client_sends_is_a_fault(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    with structlog.testing.capture_logs() as logged:
        tried = await try_requests(1_500, seed, tmp_path)
    assert not tried.faults, (seed, tried.faults)
    assert not [each for each in logged if each["log_level"] == "error"], seed
    assert {200, 400, 404} <= set(tried.statuses), seed  # or nothing was tried
