"""`script`: runs a program, without a shell, in a process group of its own.

All of the group ends with the program: what it left running, as with `&`, would be one more after each check. So the
program, once it has ended, is left for the kernel to remember until the group was killed: its id is the group's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Final

import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import ScriptCheck

MOST_OUTPUT: Final = 4_096  # bytes that are kept; the rest is read and dropped, so that it isn't held up
_LAST_OUTPUT: Final = 0.1  # seconds for what a program wrote just before its end
_WARNING: Final = 1  # exit code, as with Consul and Nagios


async def probe_script(check: ScriptCheck) -> CheckResult:
    """What the program's exit code says; its note is what it printed."""
    try:
        process = await trio.lowlevel.open_process(
            list(check.arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return CheckResult(CheckState.CRITICAL, f"{check.arguments[0]}: can't be run: {error}")
    try:
        output = await _output_until_end(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # SIGKILL can't be put off
            await process.wait()
        assert process.stdout is not None
        await trio.aclose_forcefully(process.stdout)
    code = process.returncode
    state = {0: CheckState.PASSING, _WARNING: CheckState.WARNING}.get(code or 0, CheckState.CRITICAL)
    text = output.decode(errors="replace").strip()
    return CheckResult(state, text or f"exit code {code}")


async def _output_until_end(process: trio.Process) -> bytes:
    output, read_up = bytearray(), trio.Event()
    assert process.stdout is not None
    received = process.stdout

    async def read() -> None:
        while piece := await received.receive_some(16_384):
            output.extend(piece[: MOST_OUTPUT - len(output)])
        read_up.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await _ended(process)
        with trio.move_on_after(_LAST_OUTPUT):  # a child that lives on may hold the pipe open
            await read_up.wait()
        nursery.cancel_scope.cancel()
    return bytes(output)


async def _ended(process: trio.Process) -> None:
    """Waits for its end, and lets the kernel remember it."""
    file = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(file)
    finally:
        os.close(file)
