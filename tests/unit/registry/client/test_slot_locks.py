"""One at a time per slot."""

from __future__ import annotations

import trio
import trio.testing

from registry.client.slot_locks import SlotLocks
from registry.model.values import Slot

ONE, OTHER = Slot("key", "issuer", "one"), Slot("key", "issuer", "other")


async def test_a_slot_has_one_holder_and_slots_do_not_wait_for_each_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    locks = SlotLocks()
    inside: list[Slot] = []

    async def hold(slot: Slot) -> None:
        async with locks.locked(slot):
            assert slot not in inside
            inside.append(slot)
            await trio.sleep(1)
            inside.remove(slot)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for slot in (ONE, OTHER, ONE, OTHER, ONE):
            nursery.start_soon(hold, slot)
    assert trio.current_time() - began == 3
    assert len(locks) == 0


async def test_who_gives_up_waiting_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    locks = SlotLocks()

    async def give_up() -> None:
        with trio.move_on_after(1) as patience:
            async with locks.locked(ONE):
                raise AssertionError
        assert patience.cancelled_caught

    async with locks.locked(ONE), trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
    assert len(locks) == 0
