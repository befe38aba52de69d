"""Memory that was freed goes back to the system, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
import trio
from pathlib import Path
from aqua_compat.cli.freed_memory import return_freed_memory

def resident():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024

async def main():
    pieces = [b"x" * 50_000 for _ in range(1600)]
    last = b"x" * 50_000  # keeps the heap's end
    full = resident()
    del pieces
    kept = resident()
    with trio.move_on_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(return_freed_memory, 0.01)
            while resident() > full - 60:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    print(full - kept, full - resident())

trio.run(main)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc keeps it, and is asked")
def test_memory_freed_amid_what_stays_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True, timeout=60)
    kept_back, given_back = map(int, done.stdout.split())
    assert kept_back < 10, "glibc doesn't do so by itself, or this shows nothing"
    assert given_back >= 60
