"""Tasks that an object's methods start, and wake-ups that come up again and again."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from overlay.tasks import TaskOwner, Wakeup, background


async def test_tasks_can_be_started_while_their_owner_is_open_and_end_with_it() -> None:
    owner = TaskOwner()
    ended: list[int] = []

    async def task(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(number)

    with pytest.raises(RuntimeError, match="isn't running"):
        owner.start_soon(task, 0)
    async with background() as nursery:
        await nursery.start(owner.run)
        assert owner.is_open
        owner.start_soon(task, 1)
        owner.start_soon(task, 2)
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(ended) == [1, 2]
    assert not owner.is_open
    assert owner.count == 0


async def test_what_was_done_anyway_wakes_nobody(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    wakeup.set()
    assert wakeup.is_set()
    wakeup.clear()
    assert not wakeup.is_set()
    with trio.move_on_after(1) as waiting:
        await wakeup.wait()
    assert waiting.cancelled_caught
