"""What goes wrong with simulated machines and the paths between them, all of it decided before the time begins."""

from __future__ import annotations

import bisect
import enum
import math
import random
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from overlay.presence.dial_outcome import DialOutcome

SLOWEST: Final = 0.05  # seconds one way
FASTEST: Final = 0.0005
GIVEN_UP: Final = 12.0  # seconds after which what is sent again and again counts as lost
SYNS: Final = (0.0, 1.0)  # when a connection's first packet is sent
HANDSHAKE: Final = 4  # messages until a process has proven who it is


class Trouble(enum.Enum):
    """What a machine's process suffers for a while."""

    STALLED = enum.auto()
    """The process stands still, the kernel doesn't."""
    KILLED = enum.auto()
    """The process is gone; its machine refuses connections."""
    VANISHED = enum.auto()
    """The machine answers nothing."""


class Outage(Struct, frozen=True):
    """From when to when, and what."""

    start: float
    end: float
    kind: Trouble


class Cut(Struct, frozen=True):
    """Packets from one machine to another that don't arrive meanwhile."""

    start: float
    end: float
    stops: Callable[[int, int], bool]


class Machines:
    """Machines by number, their outages, and packets between them."""

    def __init__(self, count: int, randomness: random.Random, *, loss: float = 0.0) -> None:
        """`loss`: part of the packets that don't arrive."""
        self.count = count
        self.loss = loss
        self.cuts: list[Cut] = []
        self.outages: list[list[Outage]] = [[] for _ in range(count)]
        self._starts: list[list[float]] = [[] for _ in range(count)]
        self._randomness = randomness
        self._seed = randomness.getrandbits(32)
        self._delays: dict[tuple[int, int], float] = {}

    def begin(self) -> None:
        """All outages are known."""
        for outages in self.outages:
            outages.sort(key=lambda outage: outage.start)
        self._starts = [[outage.start for outage in outages] for outages in self.outages]

    def delay(self, one: int, other: int) -> float:
        """Seconds one way."""
        pair = (min(one, other), max(one, other))
        if pair not in self._delays:
            logs = math.log(FASTEST), math.log(SLOWEST)
            drawn = random.Random(pair[0] * 7919 + pair[1] + self._seed).uniform(*logs)
            self._delays[pair] = math.exp(drawn)
        return self._delays[pair]

    def outage(self, machine: int, at: float) -> Outage | None:
        """What it suffers then."""
        starts = self._starts[machine]
        index = bisect.bisect_right(starts, at) - 1 if starts else -1
        if index < 0:
            return None
        outage = self.outages[machine][index]
        return outage if at < outage.end else None

    def runs_at(self, machine: int, at: float) -> float:
        """When its process sees to what came then; infinity when it dies before."""
        while True:
            outage = self.outage(machine, at)
            if outage is None:
                return at
            if outage.kind is not Trouble.STALLED:
                return math.inf
            at = outage.end

    def woke_at(self, machine: int, at: float) -> float:
        """The end of its last outage that was longer than a second."""
        ended = [outage.end for outage in self.outages[machine] if outage.end <= at and outage.end - outage.start > 1]
        return max(ended, default=-math.inf)

    def is_cut(self, sender: int, receiver: int, at: float) -> bool:
        """Whether packets don't get through then."""
        return any(cut.start <= at < cut.end and cut.stops(sender, receiver) for cut in self.cuts)

    def answers(self, one: int, other: int, at: float) -> bool:
        """Whether a packet that goes there and back is answered by the other machine's kernel, by chance too."""
        if self.loss and self._randomness.random() < 1 - (1 - self.loss) ** 2:
            return False
        outage = self.outage(other, at)
        is_gone = outage is not None and outage.kind is Trouble.VANISHED
        return not is_gone and not self.is_cut(one, other, at) and not self.is_cut(other, one, at)

    def arrival(self, sender: int, receiver: int, at: float) -> float:
        """When what is sent on a connection reaches the other kernel, sent again where it is lost; infinity: never."""
        delay = self.delay(sender, receiver)
        if not self.loss and not self.cuts and not self._starts[receiver]:
            return at + delay
        pause, sent = max(0.2, 4 * delay), at
        while sent - at < GIVEN_UP:
            outage = self.outage(receiver, sent + delay)
            is_gone = outage is not None and outage.kind is Trouble.VANISHED
            is_lost = self.loss > 0 and self._randomness.random() < self.loss
            if not is_lost and not is_gone and not self.is_cut(sender, receiver, sent):
                return sent + delay
            sent, pause = sent + pause, 2 * pause
        return math.inf

    def dial(self, caller: int, callee: int, at: float, timeout: float) -> tuple[DialOutcome, float]:
        """What dialling brings, and when."""
        delay = self.delay(caller, callee)
        for wait in SYNS:
            if wait < timeout and self.answers(caller, callee, at + wait):
                break
        else:
            return DialOutcome.SILENT, at + min(timeout, 2.0)
        outage = self.outage(callee, at + wait + delay)
        if outage is not None and outage.kind is Trouble.KILLED:
            return DialOutcome.REFUSED, at + wait + 2 * delay
        now = at + wait + 2 * delay
        for _ in range(HANDSHAKE):
            now = self.runs_at(callee, self.arrival(caller, callee, now))
            now = self.arrival(callee, caller, now) if now < math.inf else now
            if now > at + timeout:
                return DialOutcome.MUTE, at + timeout
        return DialOutcome.ALIVE, now
