"""How much of peers' requests is decoded at once: of one peer, of all, and through relays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.limits.decoder import MAX_ITEMS
from overlay.rpc.decoded_items import DecodedItems
from overlay.rpc.framing import encode_item
from overlay.rpc.protocol import Cancel, Failed, Fault, Request, Response
from overlay.settings import CallLimits
from tests.unit.overlay.rpc.test_link import Linked, linked

ITEMS = 30_000
SOME_TIME = 1.0  # second of virtual time, by when all that may be decoded is
LARGE = encode_item([0] * (ITEMS - 1))  # a byte each


class HeldServer:
    """Serves requests that say nothing until they are let go."""

    def __init__(self) -> None:
        self.started = 0
        self.under_way = 0
        self.go = trio.Event()

    async def serve(self, caller: str, body: object) -> object:
        self.started += 1
        self.under_way += 1
        try:
            await self.go.wait()
        finally:
            self.under_way -= 1
        return None


def large(call_id: int) -> Request:
    return Request(call_id, "serve", LARGE, 100_000)


@asynccontextmanager
async def links(serving: HeldServer, items: DecodedItems, peers: int) -> AsyncIterator[list[Linked]]:
    """Links of as many peers, which share a budget."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                linked(handlers={"serve": serving.serve}, decoded_items=items, peer_id=f"peer {number}")
            )
            for number in range(peers)
        ]


async def test_requests_of_one_peer_wait_for_room_and_all_are_served(autojump_clock: MockClock) -> None:
    serving, items = HeldServer(), DecodedItems(1_000_000, 100_000)
    async with links(serving, items, 1) as [pair]:
        await pair.remote.say(*map(large, range(10)))
        await trio.sleep(SOME_TIME)
        assert serving.under_way == 3, "one more might be decoded, of which nobody knows how many items it has"
        assert 3 * ITEMS <= items.total < 3 * ITEMS + 100
        await pair.remote.say(Cancel(0))
        await trio.sleep(SOME_TIME)
        assert serving.under_way == 3, "there was room again"
        serving.go.set()
        assert {(await pair.remote.hear()).id for _ in range(9)} == set(range(1, 10))  # type: ignore[union-attr]
        assert (serving.started, items.total) == (10, 0)


async def test_the_bound_is_of_a_peer_and_not_of_its_links(autojump_clock: MockClock) -> None:
    serving, items = HeldServer(), DecodedItems(1_000_000, 100_000)
    both = {"handlers": {"serve": serving.serve}, "decoded_items": items}
    async with linked(**both) as one, linked(**both) as other:  # type: ignore[arg-type]
        for pair in (one, other):
            await pair.remote.say(*map(large, range(3)))
        await trio.sleep(SOME_TIME)
        assert serving.under_way == 3


async def test_a_request_that_waits_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    serving, items = HeldServer(), DecodedItems(1_000_000, MAX_ITEMS)
    async with links(serving, items, 1) as [pair]:
        await pair.remote.say(large(0), Request(1, "serve", LARGE, 3_000))
        assert await pair.remote.hear() == Failed(1, Fault.TIMEOUT)
        assert serving.started == 1


async def test_a_long_value_is_served_beside_many_small_requests(autojump_clock: MockClock) -> None:
    """Of 60,000 bytes, which nobody knows to be one item before they are decoded, with the limits that nodes have."""
    limits, serving = CallLimits(), HeldServer()
    async with links(serving, DecodedItems(limits.max_decoded, limits.max_decoded_per_peer), 1) as [pair]:
        small, long = encode_item([1] * 99), encode_item("x" * 60_000)
        await pair.remote.say(*(Request(number, "serve", small, 100_000) for number in range(40)))
        await pair.remote.say(Request(40, "serve", long, 100_000))
        await trio.sleep(SOME_TIME)
        assert serving.under_way == 41


async def test_small_requests_count_too(autojump_clock: MockClock) -> None:
    serving, items = HeldServer(), DecodedItems(1_000_000, MAX_ITEMS)
    async with links(serving, items, 1) as [pair]:
        small = encode_item([[]] * 999)
        await pair.remote.say(*(Request(number, "serve", small, 100_000) for number in range(60)))
        await trio.sleep(SOME_TIME)
        assert 35 <= serving.under_way <= MAX_ITEMS // 1000
        serving.go.set()
        for _ in range(60):
            assert isinstance(await pair.remote.hear(), Response)


async def test_when_all_is_taken_the_peer_with_most_gives_way_and_others_are_served(autojump_clock: MockClock) -> None:
    serving, items = HeldServer(), DecodedItems(150_000, 100_000)
    async with links(serving, items, 3) as [greedy, other, third]:
        await greedy.remote.say(*map(large, range(3)))
        await trio.sleep(SOME_TIME)
        await other.remote.say(large(0))
        await trio.sleep(SOME_TIME)
        assert serving.under_way == 4
        await third.remote.say(large(0), large(1))
        assert await greedy.remote.hear() == Failed(0, Fault.TIMEOUT), "it may have been served"
        await wait_all_tasks_blocked()
        assert items.total <= 150_000
        await trio.sleep(SOME_TIME)
        assert await third.remote.hear() == Failed(1, Fault.OVERLOADED, 100), "it would have as much as the heaviest"
        serving.go.set()
        assert isinstance(await other.remote.hear(), Response)
        assert isinstance(await third.remote.hear(), Response)
        assert greedy.counters.overloaded == third.counters.overloaded == 1
    assert items.total == 0
