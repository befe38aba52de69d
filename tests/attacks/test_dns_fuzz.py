"""Hostile DNS never is a fault, costs no more than itself, and leaves a node that answers."""

from __future__ import annotations

import random
from pathlib import Path

import structlog

from tests.attacks.dns_fuzz import try_messages


async def test_nothing_that_is_sent_is_a_fault(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    with structlog.testing.capture_logs() as logged:
        tried = await try_messages(1_000, seed, tmp_path)
    assert not tried.faults, (seed, tried.faults)
    assert not [each for each in logged if each["log_level"] == "error"], seed
    assert {"NOERROR", "NXDOMAIN", "FORMERR", "REFUSED", "none"} <= set(tried.rcodes), seed  # or nothing was tried
