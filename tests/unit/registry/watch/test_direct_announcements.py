"""What waits for watchers that are told by calls: the newest of each slot, within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from overlay.tasks import background
from registry.model.values import Slot
from registry.protocol.messages import parse
from registry.watch.direct_announcements import MAX_BYTES, MAX_BYTES_OF_WATCHER, OVERHEAD, DirectAnnouncements
from registry.watch.messages import ANNOUNCE, AnnounceBody
from tests.simulation.simulated_network import SimulatedNetwork

SLOT: Final = Slot("key", "issuer", "host")
PAYLOAD: Final = bytes(100_000)
LARGEST: Final = MAX_BYTES_OF_WATCHER // (len(PAYLOAD) + OVERHEAD)


class Teller:
    """A peer that tells others, and what came there."""

    def __init__(self) -> None:
        self.network = SimulatedNetwork()
        self.given_up: list[str] = []
        self.told: dict[str, list[tuple[str, bytes]]] = {}
        self.direct = DirectAnnouncements(self.network.add("teller"), self.given_up.append)

    def add(self, name: str) -> None:
        async def told(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            self.told.setdefault(name, []).extend(parse(body, AnnounceBody).decoded())
            return None

        self.network.add(name).serve(ANNOUNCE, told)


@asynccontextmanager
async def a_teller(*watchers: str) -> AsyncIterator[Teller]:
    teller = Teller()
    for watcher in watchers:
        teller.add(watcher)
    async with background() as nursery:
        await nursery.start(teller.direct.run)
        yield teller


async def test_of_each_slot_the_newest_state_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with a_teller("quick") as teller:
        for number in range(50):
            teller.direct.put("quick", ("key", SLOT), b"%d" % number)
            teller.direct.put("quick", ("key", None), b"end %d" % number)
        await trio.sleep(1)
        assert sorted(teller.told["quick"]) == [("key", b"49"), ("key", b"end 49")]
        assert teller.direct.waiting_bytes == 0
        assert teller.direct.dropped == 0


async def test_more_than_fits_into_a_call_travels_in_several(autojump_clock: trio.testing.MockClock) -> None:
    async with a_teller("quick") as teller:
        for number in range(1500):
            teller.direct.put("quick", (f"key {number}", None), b"payload")
        for number in range(20):
            teller.direct.put("quick", (f"large {number}", None), PAYLOAD)
        await trio.sleep(1)
        assert len(teller.told["quick"]) == 1520
        assert 3 + 3 <= sum(method == ANNOUNCE for *_, method in teller.network.calls) <= 10


async def test_a_slow_watcher_delays_nobody_and_holds_a_bounded_part(autojump_clock: trio.testing.MockClock) -> None:
    async with a_teller("quick", "slow") as teller:
        teller.network.stalled.add("slow")
        teller.direct.put("slow", ("first", None), b"payload")
        await trio.sleep(0.1)
        for number in range(2 * LARGEST):
            teller.direct.put("slow", (f"key {number}", None), PAYLOAD)
            assert teller.direct.waiting_bytes <= MAX_BYTES_OF_WATCHER
        assert teller.direct.dropped == LARGEST
        teller.direct.put("quick", ("key", None), b"payload")
        await trio.sleep(0.1)
        assert teller.told["quick"] == [("key", b"payload")]
        await trio.sleep(6)
        assert teller.given_up == ["slow"]
        assert teller.direct.waiting_bytes == 0


async def test_all_slow_watchers_together_hold_a_bounded_part(autojump_clock: trio.testing.MockClock) -> None:
    names = [f"slow {number}" for number in range(2 * MAX_BYTES // MAX_BYTES_OF_WATCHER)]
    async with a_teller("quick", *names) as teller:
        teller.network.stalled.update(names)
        for name in names:
            teller.direct.put(name, ("first", None), b"payload")
        await trio.sleep(0.1)
        for number in range(LARGEST):
            for name in names:
                teller.direct.put(name, (f"key {number}", None), PAYLOAD)
                assert teller.direct.waiting_bytes <= MAX_BYTES
        teller.direct.put("quick", ("key", None), PAYLOAD)
        await trio.sleep(0.1)
        assert teller.told["quick"] == [("key", PAYLOAD)], "who takes little isn't refused for those who hold much"


async def test_an_announcement_for_nobody_who_is_there_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    async with a_teller() as teller:
        teller.direct.put("gone", ("key", None), b"payload")
        await trio.sleep(1)
        assert teller.given_up == ["gone"]
        assert teller.direct.waiting_bytes == 0
