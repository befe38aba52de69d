"""Ending by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio

from aqua_compat.cli.signals import until_signalled


async def test_a_signal_ends_what_would_swallow_a_keyboard_interrupt() -> None:
    cleaned_up: list[bool] = []

    async def act() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                try:
                    await trio.lowlevel.checkpoint()
                except KeyboardInterrupt:
                    continue
        finally:
            cleaned_up.append(True)

    told: list[signal.Signals] = []
    with trio.fail_after(10):
        assert await until_signalled(act, signal.SIGINT, signal.SIGTERM, tell=told.append) is signal.SIGINT
    assert (told, cleaned_up) == ([signal.SIGINT], [True])


async def test_without_a_signal_it_ends_with_what_it_does() -> None:
    done: list[bool] = []

    async def act() -> None:
        await trio.lowlevel.checkpoint()
        done.append(True)

    assert await until_signalled(act, signal.SIGTERM) is None
    assert done == [True]

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("it failed")

    with pytest.raises(ExceptionGroup) as raised:
        await until_signalled(fail, signal.SIGTERM)
    assert raised.value.subgroup(OSError) is not None


_LOADING = """
import os, signal, sys, weakref
from aqua_compat.cli.signals import end_cleanly_from_now_on, until_signalled

class Lock: pass

def dropped(_):  # as an import has called; Python can't pass on what is raised here
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000): pass

end_cleanly_from_now_on(7, holds=True)
lock = Lock()
watched = weakref.ref(lock, dropped)
del lock
"""


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_a_signal_that_comes_where_nothing_can_be_raised_ends_a_node_when_it_runs() -> None:
    running = ran(
        _LOADING
        + """
import trio
print(trio.run(until_signalled, trio.sleep_forever, signal.SIGTERM).name)
"""
    )
    assert (running.returncode, running.stdout, running.stderr) == (0, "SIGTERM\n", "")


def test_the_second_signal_to_end_ends_a_node_at_once() -> None:
    again = "os.kill(os.getpid(), signal.SIGTERM)\n"
    assert ran(_LOADING + again).returncode == 7
    stopping = ran(
        _LOADING
        + """
import trio

async def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep_forever()

trio.run(lambda: until_signalled(trio.sleep_forever, signal.SIGTERM, finish=stop))
"""
    )
    assert (stopping.returncode, stopping.stderr) == (-signal.SIGTERM, "")
