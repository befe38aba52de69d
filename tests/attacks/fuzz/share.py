"""One parser's inputs, tried in a process of its own: what it says, and how it ended."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.attacks.fuzz.driver import run
from tests.attacks.fuzz.parsers import PARSERS, Parser

MEMORY: Final = 2 * 2**30  # bytes of address space of a process; what needs more gets a MemoryError, which is a fault
FAULTS_FOUND: Final = 3  # exit code, which nothing else has
_NUMBER: Final = 20  # digits


class Share(msgspec.Struct, frozen=True):
    """A parser, by its name, and how many of its inputs to try. `progress`: the file for the number of the last one."""

    parser: str
    seed: int
    count: int
    progress: str = ""

    @classmethod
    def of(cls, text: str) -> Share:
        """Of its JSON."""
        return msgspec.json.decode(text, type=cls)


def try_here(share: Share, parsers: Sequence[Parser] = PARSERS) -> int:
    """Try a share in this process, whose memory is bounded from now on, and print the report; the exit code."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    [parser] = [parser for parser in parsers if parser.name == share.parser]
    progress = os.open(share.progress, os.O_WRONLY)
    report = run(parser, share.seed, share.count, before_each=lambda number: os.pwrite(progress, b"%020d" % number, 0))
    print(report, flush=True)  # noqa: T201 - what whoever runs this reads
    for fault in report.faults:
        print(f"    {fault}", flush=True)  # noqa: T201
    return FAULTS_FOUND if report.fault_count else 0


def try_in_process(share: Share, module: str = "tests.attacks.fuzz") -> str:
    """Try a share in a new process, which prints its report; what was wrong, empty if nothing was."""
    with tempfile.NamedTemporaryFile() as progress:
        share = msgspec.structs.replace(share, progress=progress.name)
        done = subprocess.run(
            [sys.executable, "-m", module, "--share", msgspec.json.encode(share).decode()], check=False
        )
        number = Path(progress.name).read_bytes()[:_NUMBER]
    return ending_of(done.returncode, int(number) if number else None)


def ending_of(code: int, last: int | None) -> str:
    """How a process with this exit code ended, whose last input had this number; empty if all is well."""
    at = f"at input {last}" if last is not None else "before its first input"
    if code == 0:
        return ""
    if code == FAULTS_FOUND:
        return "faults, see above"
    if code > 0:
        return f"its process ended with exit code {code} {at}"
    name = signal.Signals(-code).name
    memory = "; the system may have been short of memory" if -code == signal.SIGKILL else ""
    return f"its process was ended by {name} {at}{memory}"
