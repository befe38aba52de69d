"""Whom a peer asks for the time and when, what it does about jumps, and what it tells."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from structlog.testing import capture_logs

from overlay.clock.comparison import Standing
from overlay.clock.watch import (
    ASK_TIMEOUT,
    ASKED,
    METHOD,
    PATIENCE,
    PATIENCE_AFTER_JUMP,
    PERIOD,
    POLL,
    SETTLES,
    ClockWatch,
)
from overlay.errors import NoSuchMethod, Unreachable

START = 1_700_000_000.0
DAY = 86_400.0


class PlayedPeers:
    """Members by their names, each with its address and how far its clock is ahead; None of those that don't tell."""

    def __init__(self, ahead: dict[str, float | None], groups: Callable[[str], int] = lambda name: 0) -> None:
        self.ahead = ahead
        self.groups = groups
        self.asked = Counter[str]()
        self.takes = 0.0
        self.joined = trio.Event()
        self.joined.set()
        self.is_old = False
        self.skew = 0.0
        self.silent = ""
        self.handlers: dict[str, Callable[[str, object], Awaitable[object]]] = {}

    def clock(self) -> float:
        return START + trio.current_time() + self.skew

    def chosen_members(self) -> list[str]:
        return list(self.ahead)

    def addresses_of(self, peer_id: str) -> list[str]:
        return [f"/ip4/10.{self.groups(peer_id)}.0.1/tcp/4001"]

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        assert method == METHOD
        self.asked[peer_id] += 1
        if peer_id == self.silent:
            await trio.sleep(timeout)
            raise Unreachable(peer_id, method)
        await trio.sleep(self.takes)
        if self.is_old:
            raise NoSuchMethod(peer_id, method)
        ahead = self.ahead[peer_id]
        if ahead is None:
            raise Unreachable(peer_id, method)
        told = int((START + trio.current_time() + ahead) * 1000)
        await trio.sleep(self.takes)
        return told

    def serve(self, method: str, handler: Callable[[str, object], Awaitable[object]]) -> None:
        self.handlers[method] = handler

    async def wait_joined(self) -> None:
        await self.joined.wait()


@asynccontextmanager
async def watched(peers: PlayedPeers) -> AsyncIterator[ClockWatch]:
    async with trio.open_nursery() as nursery:
        watch = ClockWatch(peers, peers.clock, random.Random(1))
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()


async def test_it_tells_its_own_time_to_whoever_asks(autojump_clock: object) -> None:
    peers = PlayedPeers({})
    peers.skew = 0.25
    async with watched(peers):
        now = trio.current_time()
        assert await peers.handlers[METHOD]("stranger", None) == int((START + now + 0.25) * 1000)


async def test_a_few_peers_are_asked_one_of_each_address_group_first(autojump_clock: object) -> None:
    names = [f"crowd {number}" for number in range(40)]
    peers = PlayedPeers(dict.fromkeys([*names, "a", "b", "c"], 0.0), lambda name: len(name) if name in "abc" else 9)
    peers.groups = lambda name: "abc".index(name) if name in ("a", "b", "c") else 9
    async with watched(peers) as watch:
        await trio.sleep(1)
        assert watch.verdict().standing is Standing.RIGHT
        assert watch.verdict().opinions == 4
        assert sum(peers.asked.values()) == ASKED
        assert {"a", "b", "c"} <= set(peers.asked)
        await trio.sleep(PERIOD)
        assert sum(peers.asked.values()) == 2 * ASKED, "and again after ten minutes"


async def test_how_long_answers_take_is_taken_into_account(autojump_clock: object) -> None:
    peers = PlayedPeers(dict.fromkeys("abc", 4.0))
    peers.takes = 1.5
    async with watched(peers) as watch:
        await trio.sleep(5)
        assert abs(watch.verdict().ahead + 4.0) < 0.01
    assert 2 * peers.takes < ASK_TIMEOUT


async def test_a_jump_is_noticed_and_peers_are_asked_at_once_and_each_change_is_told_once(
    autojump_clock: object,
) -> None:
    peers = PlayedPeers(dict.fromkeys("abcd", 0.0))
    changes: list[Standing] = []
    with capture_logs() as logs:
        async with watched(peers) as watch:
            watch.on_change(lambda: changes.append(watch.verdict().standing))
            await trio.sleep(100)
            before = sum(peers.asked.values())
            peers.skew = 2 * DAY
            assert watch.verdict().is_off, "before anything is asked"
            await trio.sleep(POLL + 0.1)
            assert sum(peers.asked.values()) == before + 4
            await trio.sleep(1000)
            peers.skew = 0.0
            assert watch.verdict().standing is Standing.RIGHT
            await trio.sleep(POLL + 0.1)
            peers.skew = 3.0
            await trio.sleep(POLL + 0.1)
    assert changes == [Standing.RIGHT, Standing.OFF, Standing.RIGHT]
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert [event for event in warnings if "jumped" not in event] == [
        "this machine's clock is off: set it; nothing new is signed until then",
        "this machine's clock is right again",
    ]
    assert len(warnings) == 5, "three jumps"


async def test_links_that_come_decide_what_the_first_one_could_not(autojump_clock: object) -> None:
    peers = PlayedPeers({"a": 0.0})
    peers.skew = -45.0
    async with watched(peers) as watch:
        await trio.sleep(0.1)
        assert watch.verdict().standing is Standing.SUSPECT
        peers.ahead.update(b=0.0, c=0.0)
        watch.note_change()
        assert (await watch.settle()).is_off
        assert trio.current_time() < PATIENCE


async def test_nobody_waits_for_long_where_one_peer_alone_differs(autojump_clock: object) -> None:
    peers = PlayedPeers({"a": 40.0})
    async with watched(peers) as watch:
        assert (await watch.settle()).standing is Standing.SUSPECT
        assert trio.current_time() <= PATIENCE
        before = trio.current_time()
        await watch.settle()
        assert trio.current_time() == before


async def test_who_is_about_to_sign_after_a_jump_waits_for_answers_where_nothing_was_decided_before(
    autojump_clock: object,
) -> None:
    """The owner was cut off, and the clock set two days ahead just when the others were there again: it removed a
    resource for the day after tomorrow before it looked at its clock (seed 668 of the simulation)."""
    peers = PlayedPeers({"a": 0.0})
    async with watched(peers) as watch:
        await trio.sleep(1)
        peers.ahead = dict.fromkeys("abc")
        watch.note_change()
        await trio.sleep(200)  # in vain, less and less often
        assert watch.verdict().standing is Standing.UNKNOWN
        peers.ahead = dict.fromkeys("abc", 0.0)
        peers.skew = 2 * DAY
        before = trio.current_time()
        assert (await watch.settle()).is_off
        assert trio.current_time() - before < 0.1


async def test_a_jump_while_peers_are_asked_has_them_asked_anew_and_one_that_is_silent_holds_up_nobody(
    autojump_clock: object,
) -> None:
    peers = PlayedPeers({"a": 0.0})
    async with watched(peers) as watch:
        await trio.sleep(1)
        peers.ahead = {**dict.fromkeys("abc", 0.0), "silent": 0.0}
        peers.silent = "silent"
        watch.note_change()
        await trio.sleep(SETTLES * 2 + 0.5)
        assert peers.asked["silent"] == 1
        assert watch.verdict().standing is Standing.UNKNOWN, "still asking"
        peers.skew = 2 * DAY
        assert (await watch.settle()).is_off
        assert peers.asked["a"] == 3


async def test_after_a_jump_nobody_waits_for_long_for_those_who_dont_answer(autojump_clock: object) -> None:
    peers = PlayedPeers({"a": 0.0})
    async with watched(peers) as watch:
        await trio.sleep(1)
        peers.ahead = dict.fromkeys("abc")
        peers.skew = 2 * DAY
        before = trio.current_time()
        assert (await watch.settle()).standing is Standing.UNCHECKED
        assert trio.current_time() - before <= PATIENCE_AFTER_JUMP
        await watch.settle()
        assert trio.current_time() - before <= PATIENCE_AFTER_JUMP, "once for a jump"


async def test_a_clock_that_jumped_isnt_called_right_before_anybody_said_so(autojump_clock: object) -> None:
    peers = PlayedPeers({"a": 40.0})
    with capture_logs() as logs:
        async with watched(peers) as watch:
            await trio.sleep(1)
            assert watch.verdict().standing is Standing.SUSPECT
            peers.ahead = dict.fromkeys("abc")
            peers.skew = 2 * DAY
            await trio.sleep(2 * POLL)
            assert watch.verdict().standing is Standing.UNCHECKED
            told = [entry["event"] for entry in logs]
            assert "this machine's clock is right again" not in told
            peers.ahead, peers.skew = dict.fromkeys("abc", 0.0), 0.0
            await trio.sleep(2 * POLL)
            assert watch.verdict().standing is Standing.RIGHT
    assert [entry["event"] for entry in logs].count("this machine's clock is right again") == 1


async def test_peers_that_dont_answer_are_asked_again_less_and_less(autojump_clock: object) -> None:
    peers = PlayedPeers(dict.fromkeys("abc"))
    async with watched(peers) as watch:
        await trio.sleep(60)
        assert watch.verdict().standing is Standing.UNCHECKED
        assert 3 <= peers.asked["a"] <= 6
        peers.ahead.update(dict.fromkeys("abc", 0.0))
        await trio.sleep(2 * PERIOD)
        assert watch.verdict().standing is Standing.RIGHT


async def test_peers_of_a_version_that_doesnt_tell_count_as_asked(autojump_clock: object) -> None:
    peers = PlayedPeers(dict.fromkeys("abc", 0.0))
    peers.is_old = True
    async with watched(peers) as watch:
        await trio.sleep(60)
        assert watch.verdict().standing is Standing.UNKNOWN
        assert peers.asked["a"] <= 6


async def test_nobody_is_asked_before_the_first_link(autojump_clock: object) -> None:
    peers = PlayedPeers(dict.fromkeys("abc", 0.0))
    peers.joined = trio.Event()
    async with watched(peers) as watch:
        await trio.sleep(100)
        assert not peers.asked
        assert watch.verdict().standing is Standing.UNCHECKED
        peers.joined.set()
        await trio.sleep(0.1)
        assert watch.verdict().standing is Standing.RIGHT
