"""Ending by a signal."""

from __future__ import annotations

import os
import signal

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
