"""Bodies: small ones are encoded at once, large ones in turns with others."""

from __future__ import annotations

import cbor2
import pytest
import trio
import trio.testing

from overlay.limits.time_slices import TimeSlices, work_for
from overlay.rpc.bodies import Encoded, decoded, encoded
from overlay.rpc.framing import FrameError

LARGE = [[0, 0, 0, 0]] * 7_000


class Others:
    """A task that gets its turn each time that the loop goes round."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


@pytest.fixture
def others() -> Others:
    return Others()


async def test_small_bodies_are_encoded_at_once(others: Others) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        for value in (None, "x", [1, {"a": b"b"}], [0] * 1000):
            assert await encoded(value) == cbor2.dumps(value)
        assert others.turns == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("caller", ["", "a caller"])
async def test_large_bodies_leave_others_their_turns(others: Others, caller: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        if caller:
            work_for(caller, TimeSlices())
        assert await encoded(LARGE) == cbor2.dumps(LARGE)
        assert others.turns > 8
        nursery.cancel_scope.cancel()


async def test_a_large_answer_to_a_small_request_is_charged(autojump_clock: trio.testing.MockClock) -> None:
    took: dict[bytes, float] = {}
    for request in (b"small", bytes(50_000)):
        work_for("a caller", TimeSlices())
        began = trio.current_time()
        await encoded([0] * 39_000, like=request)
        took[request] = trio.current_time() - began
    small, large = took.values()
    assert small > 0
    assert large == 0, "it was charged with its request"


async def test_what_is_encoded_already_stays_as_it_is() -> None:
    assert await encoded(Encoded(b"\x80"), like=bytes(2000)) == b"\x80"


@pytest.mark.parametrize("value", [object(), [object()] * 5000, [0] * 40_001])
async def test_what_cbor_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(FrameError):
        await encoded(value)


async def test_a_long_string_costs_its_sender_no_rest(autojump_clock: trio.testing.MockClock) -> None:
    """It is one item, whatever it might have been by its length."""
    body, slices, lock = cbor2.dumps(bytes(100_000)), TimeSlices(), trio.Lock()
    began = trio.current_time()
    for _ in range(100):
        assert await decoded(body, slices, "a caller", lock) == bytes(100_000)
    assert trio.current_time() - began < 0.1
