"""An attack of the corpus that goes on in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class RunningAttack:
    """An attack that goes on in a process of its own. `done`: what it did, once it has ended by itself."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}


@asynccontextmanager
async def attacking(
    attack: str, address: str, seconds: float, *, seed: int, rate: float
) -> AsyncIterator[RunningAttack]:
    """An attack on the node at `address` for so long, which the block doesn't outlive."""
    arguments = [attack, address, "--seconds", f"{seconds}", "--seed", f"{seed}", "--rate", f"{rate}"]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.attacks.corpus", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    running = RunningAttack()
    try:
        yield running
        with trio.move_on_after(seconds + 20):
            assert process.stdout is not None
            said = b"".join([piece async for piece in process.stdout])
            running.done = json.loads(said or b"{}")
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
