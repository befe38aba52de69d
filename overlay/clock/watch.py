"""Asks peers for their time, notices when this machine's clock jumps, and tells when what is known of it changed.

Peers are those that this one chose to link with; whoever just dialled it has no say. They are asked when it has joined,
when links change as long as too few have an opinion, at once after a jump, and every ten minutes.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
import structlog
import trio

from overlay.clock.comparison import ENOUGH, ClockComparison, ClockVerdict, Opinion, Standing
from overlay.discovery.address_group import address_group
from overlay.errors import CallFailed, NoSuchMethod
from overlay.tasks import Broadcast, Wakeup

METHOD: Final = "overlay/time"
ASKED: Final = 9  # peers at once
ASK_TIMEOUT: Final = 4.0  # seconds
PERIOD: Final = 600.0  # seconds between two comparisons
PERIOD_OFF: Final = 30.0  # the same while the clock is off, lest somebody sets it slowly
JITTER: Final = 0.1  # part of a period by which a comparison comes earlier
AGAIN: Final = 2.5  # seconds, twice as long each time, until those are asked again of whom too few answered
SETTLES: Final = 0.3  # seconds in which further links come, at first
LONGEST_SETTLES: Final = 30.0
POLL: Final = 2.0  # seconds between two looks at both clocks
JUMP: Final = 2.0  # seconds
PATIENCE: Final = 3.0  # seconds that somebody waits for the first comparisons
PATIENCE_AFTER_JUMP: Final = ASK_TIMEOUT + 1.0  # the same for one after a jump, of which one peer may not answer
_DECIDED: Final = (Standing.RIGHT, Standing.OFF)
_UNSETTLED: Final = (Standing.UNCHECKED, Standing.SUSPECT)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ClockPeers(Protocol):
    """What is needed of a peer of the network."""

    def chosen_members(self) -> Sequence[str]:
        """The linked members that this peer chose to link with."""
        ...

    def addresses_of(self, peer_id: str) -> list[str]:
        """Where a peer is (multiaddrs)."""
        ...

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Calls `method` of a peer. Raises `CallFailed`."""
        ...

    def serve(self, method: str, handler: Callable[[str, object], Awaitable[object]]) -> None:
        """Answers calls of `method`."""
        ...

    async def wait_joined(self) -> None:
        """Waits for the first member, where there should be any."""
        ...


class ClockWatch:
    """What is known of this machine's clock. `note_change` has to be told of links that come and go."""

    def __init__(self, peers: ClockPeers, clock: Callable[[], float], randomness: random.Random) -> None:
        """`clock`: seconds since 1970."""
        self._peers = peers
        self._clock = clock
        self._random = randomness
        self._comparison = ClockComparison()
        self._due = Wakeup()
        self._jumped = Wakeup()
        self._offset: float | None = None  # of the wall clock from the monotonic one, when it was looked at last
        self._changed = Broadcast()
        self._callbacks: list[Callable[[], None]] = []
        self._told = ClockVerdict(Standing.UNCHECKED)
        self._has_warned = False  # that the clock may be wrong, and nothing else since
        self._patient_until = math.inf
        self._asking = trio.CancelScope()  # of the comparison under way, or of the last one
        peers.serve(METHOD, self._tell)

    def verdict(self) -> ClockVerdict:
        """What is known now."""
        return self._comparison.verdict(self._clock(), trio.current_time())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Has `callback()` called, synchronously, when the standing of the clock changed."""
        self._callbacks.append(callback)

    def note_change(self) -> None:
        """A member came or went."""
        if self.verdict().standing not in _DECIDED:
            self._due.set()

    async def settle(self) -> ClockVerdict:
        """The verdict; just after the start, or a jump, it is waited for a moment, if a first answer differs or none
        has come."""
        self._look_for_jump()
        now = trio.current_time()
        with trio.move_on_at(self._patient_until if self._patient_until < math.inf else now + PATIENCE):
            while trio.current_time() < self._patient_until and self.verdict().standing in _UNSETTLED:
                await self._changed.wait()
        return self.verdict()

    async def run(self) -> None:
        """Compares and looks for jumps until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_for_jumps)
            await self._peers.wait_joined()
            self._patient_until = trio.current_time() + PATIENCE
            undecided = 0  # times in a row
            while True:
                could_tell = await self._compare()
                standing = self.verdict().standing
                undecided = 0 if standing in _DECIDED else min(undecided + 1, 16)
                period = PERIOD_OFF if standing is Standing.OFF else PERIOD
                if undecided and could_tell:
                    period = min(AGAIN * 2**undecided, PERIOD)
                with trio.move_on_after(period * (1 - JITTER * self._random.random())):
                    await self._due.wait()
                if undecided:
                    with trio.move_on_after(min(SETTLES * 2**undecided, LONGEST_SETTLES)) as settling:
                        await self._jumped.wait()  # then there is somebody who waits
                    undecided = undecided if settling.cancelled_caught else 0
                self._jumped.clear()
                self._due.clear()

    async def _compare(self) -> bool:
        """Whether there were enough to ask."""
        peers = self._in_turn()
        opinions: list[Opinion] = []

        async def ask(peer_id: str, group: str) -> None:
            began, asked_at = trio.current_time(), self._clock()
            try:
                told = await self._peers.call(peer_id, METHOD, None, timeout=ASK_TIMEOUT)
                theirs = msgspec.convert(told, int, strict=True) / 1000
            except NoSuchMethod:
                peers.remove((peer_id, group))  # of a version that doesn't tell
                return
            except (CallFailed, msgspec.ValidationError, OverflowError) as error:
                _log.debug("a peer doesn't tell its time", peer_id=peer_id, error=str(error))
                return
            uncertainty = (trio.current_time() - began) / 2
            # By the monotonic clock, or a jump meanwhile would count by half.
            opinions.append(Opinion(group, asked_at + uncertainty - theirs, uncertainty))

        before = self._clock() - trio.current_time()
        with trio.CancelScope() as self._asking:
            async with trio.open_nursery() as nursery:
                for peer_id, group in tuple(peers):
                    nursery.start_soon(ask, peer_id, group)
        wall, monotonic = self._clock(), trio.current_time()
        groups = len({group for _, group in peers})
        could_tell = (len(peers) if groups == 1 else groups) >= ENOUGH
        if self._asking.cancelled_caught or abs(wall - monotonic - before) > JUMP:
            self._due.set()  # the clock was set meanwhile
        else:
            self._comparison.asked(opinions, wall, monotonic, could_tell=could_tell)
        self._tell_change()
        return could_tell

    def _in_turn(self) -> list[tuple[str, str]]:
        """Some peers at random and the groups of their addresses: of each group one, then of each a second."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for peer_id in self._peers.chosen_members():
            groups[address_group(self._peers.addresses_of(peer_id))].append(peer_id)
        names = sorted(groups)
        self._random.shuffle(names)
        for members in groups.values():
            members.sort()
            self._random.shuffle(members)
        found: list[tuple[str, str]] = []
        while names and len(found) < ASKED:
            found += [(groups[name].pop(), name) for name in names[: ASKED - len(found)]]
            names = [name for name in names if groups[name]]
        return found

    async def _look_for_jumps(self) -> None:
        while True:
            self._look_for_jump()
            await trio.sleep(POLL)

    def _look_for_jump(self) -> None:
        now, before = self._clock() - trio.current_time(), self._offset
        if before is not None and abs(now - before) > JUMP:
            _log.warning("this machine's clock jumped", seconds=round(now - before, 1))
            self._patient_until = max(self._patient_until, trio.current_time() + PATIENCE_AFTER_JUMP)
            self._asking.cancel()  # of those that were asked before it, who doesn't answer would hold up the next
            self._jumped.set()
            self._due.set()
        self._offset = now
        self._tell_change()

    def _tell_change(self) -> None:
        verdict = self.verdict()
        if verdict.standing is self._told.standing:
            return
        told = {"seconds_ahead": round(verdict.ahead, 1), "peers": verdict.opinions}
        if verdict.is_off:
            _log.warning("this machine's clock is off: set it; nothing new is signed until then", **told)
        elif verdict.standing is Standing.SUSPECT:
            _log.warning("this machine's clock differs from those of too few peers to tell whose is right", **told)
        elif self._has_warned and verdict.standing is not Standing.UNCHECKED:  # of which nobody said anything yet
            _log.warning("this machine's clock is right again", **told)
        if verdict.standing is not Standing.UNCHECKED:
            self._has_warned = verdict.is_off or verdict.is_suspect
        self._told = verdict
        self._changed.send()
        for callback in self._callbacks:
            callback()

    async def _tell(self, caller: str, body: object) -> object:  # noqa: ARG002 - anybody may know
        await trio.lowlevel.checkpoint()
        return int(self._clock() * 1000)
