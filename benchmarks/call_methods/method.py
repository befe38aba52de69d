"""What every way of calling has in common: a server in its own process, and something that measures calls to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from benchmarks.timing import Timing, timed

Measure = Callable[[bytes, int, int], Awaitable[Timing]]
"""Makes so many calls with a payload, so many in flight, each answered with the same payload."""

CONCURRENCY = 128  # more than are ever in flight, so that no way turns calls away
START_TIMEOUT = 20.0  # seconds
CALL_TIMEOUT = 10.0  # seconds, for each way alike


def measured(echo: Callable[[bytes], Awaitable[bytes]]) -> Measure:
    """Measures a way whose calls are made on Trio."""

    async def measure(payload: bytes, count: int, in_flight: int) -> Timing:
        async def call(number: int) -> bool:  # noqa: ARG001 - a call's signature
            return len(await echo(payload)) == len(payload)

        return await timed(call, count, in_flight)

    return measure


@asynccontextmanager
async def server(module: str, *arguments: str) -> AsyncIterator[str]:
    """Runs `python -m benchmarks.call_methods.MODULE`; the first line that it prints tells how to reach it."""
    command = [sys.executable, "-m", f"benchmarks.call_methods.{module}", *arguments]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        received = b""
        with trio.fail_after(START_TIMEOUT):
            while not received.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                if not piece:
                    raise RuntimeError(f"{module} ended with exit code {await process.wait()}")
                received += piece
        yield received.decode().strip()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def serve_until_told(reached_at: str) -> None:
    """In the server's process: tell how it is reached, and wait until the standard input closes."""
    print(reached_at, flush=True)
    await trio.lowlevel.wait_readable(sys.stdin.fileno())
