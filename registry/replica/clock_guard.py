"""What this node leaves undone while its clock is wrong, as enough peers say (docs/design.md, Clocks).

It signs nothing as issuer, owner or host; its answers don't count; it collects nothing as expired; and what it refuses
for its time, it refuses for now. What it reads from others it judges by their time.
"""

from __future__ import annotations

from typing import Final

from overlay.clock.comparison import ClockVerdict, Standing
from registry.codes import Code
from registry.errors import ClockOff
from registry.protocol.error_info import ErrorInfo
from registry.protocol.network import Clock, Network

_EXPIRED: Final = frozenset((Code.KEY_EXPIRED, Code.RECORD_EXPIRED, Code.TOMBSTONE_EXPIRED))


class ClockGuard:
    """Asked before anything that only a right clock may decide, in Trio's thread."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network = network
        self._clock = clock

    @property
    def verdict(self) -> ClockVerdict:
        """What is known of the clock."""
        return self._network.compared_clock.verdict()

    @property
    def is_off(self) -> bool:
        """Whether the clock is wrong."""
        return self.verdict.is_off

    @property
    def is_trusted(self) -> bool:
        """Whether what is old by the clock may be taken as old for good: not before peers were asked at all, nor while
        some say otherwise, too few to tell who is right."""
        return self.verdict.standing not in (Standing.OFF, Standing.UNCHECKED, Standing.SUSPECT)

    def time(self) -> float:
        """Seconds since 1970: by this machine's clock, and by peers' while it is off. For reading, not for signing."""
        verdict = self.verdict
        return self._clock() - verdict.ahead if verdict.is_off else self._clock()

    def check(self) -> None:
        """Before something is signed. Raises ClockOff."""
        verdict = self.verdict
        if verdict.is_off:
            raise ClockOff(str(verdict))

    def time_to_sign(self) -> int:
        """Whole seconds since 1970, as something is signed. Raises ClockOff: the clock may have jumped since others
        were asked what is to be known before."""
        self.check()
        return int(self._clock())

    async def wait(self) -> None:
        """`check`, after waiting a moment for peers' answers where the node has just joined. Raises ClockOff."""
        if not self._network.is_isolated():
            await self._network.compared_clock.settle()
        self.check()

    def softened(self, error: ErrorInfo | None) -> ErrorInfo | None:
        """A refusal as others should take it: one for age may be wrong while this clock isn't known to be right."""
        if error is None or error.known_code not in _EXPIRED or self.is_trusted:
            return error
        return ErrorInfo(Code.CLOCK, f"{error.text} (by this peer's clock, which isn't right, or not compared yet)")
