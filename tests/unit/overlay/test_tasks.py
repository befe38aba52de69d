"""Tasks behind blocks, threads, and events that repeat."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from overlay.tasks import Broadcast, Wakeup, background, in_thread


class Own(Exception):
    """What a block raises here."""


async def test_tasks_in_the_background_end_with_the_block() -> None:
    ended = trio.Event()

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with background() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


async def test_what_the_block_raises_comes_out_as_itself_and_what_a_task_raises_in_a_group() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise Own

    async def fail_in_the_block() -> None:
        async with background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await fail()

    async def fail_in_a_task() -> None:
        async with background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(Own):
        await fail_in_the_block()
    with pytest.raises(ExceptionGroup) as failure:
        await fail_in_a_task()
    assert failure.group_contains(Own)


async def test_a_thread_is_left_to_itself_when_its_task_is_cancelled() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def wait() -> None:
        may_end.wait(10)
        ended.set()

    with trio.move_on_after(0.01):
        await in_thread(wait)
    assert not ended.is_set()
    may_end.set()
    assert await in_thread(ended.wait, 10)


async def test_a_wakeup_wakes_its_waiter_once_however_often_it_was_set(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    await wakeup.wait()
    with trio.move_on_after(1) as again:
        await wakeup.wait()
    assert again.cancelled_caught
    wakeup.set()
    wakeup.clear()
    with trio.move_on_after(1) as cleared:
        await wakeup.wait()
    assert cleared.cancelled_caught


async def test_a_broadcast_wakes_all_who_wait_and_nobody_who_waits_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    broadcast = Broadcast()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await broadcast.wait()
        woken.append(number)

    async with background() as nursery:
        broadcast.send()
        for number in range(3):
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        broadcast.send()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]
        with trio.move_on_after(1) as later:
            await broadcast.wait()
        assert later.cancelled_caught
