"""Real nodes on machines that fall sick: a seed of what `python -m tests.faults` runs any number of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.namespaces import are_possible
from tests.paths import ROOT

FAULTS = 12  # seconds in which things go wrong, in one run: starting and settling cost more than what goes wrong
TIME = 240  # seconds of the wall clock, on a machine that does much else
MANY_TIME = 900  # the same with 32 nodes


@pytest.mark.slow
@pytest.mark.timeout(TIME)
@pytest.mark.skipif(not are_possible(), reason="this machine lets nobody make network namespaces")
def test_a_service_whose_machine_is_gone_without_a_word_is_listed_no_more_within_seven_seconds() -> None:
    command = [sys.executable, "-m", "tests.faults.lost_machine"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME - 10, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not are_possible(), reason="this machine lets nobody make network namespaces")
@pytest.mark.parametrize(
    ("nodes", "time"),
    [
        pytest.param(5, TIME, marks=pytest.mark.timeout(TIME)),
        pytest.param(32, MANY_TIME, marks=[pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(MANY_TIME)]),
    ],
)
def test_what_is_promised_holds_while_machines_are_sick_and_all_is_well_afterwards(nodes: int, time: int) -> None:
    command = [sys.executable, "-m", "tests.faults", "--seeds", "1", "--nodes", str(nodes), "--faults", str(FAULTS)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=time - 10, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "all 1 seeds held"
    for fault in ("crash", "partition", "full disk", "wrong clock", "pause"):
        assert fault in ran.stdout, f"no {fault} in {ran.stdout}"
