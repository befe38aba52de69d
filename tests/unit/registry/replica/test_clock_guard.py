"""What a node leaves undone while its clock may be wrong."""

from __future__ import annotations

from typing import cast

import pytest

from overlay.clock.comparison import ClockVerdict, Standing
from registry.codes import Code
from registry.protocol.error_info import ErrorInfo
from registry.protocol.network import Network
from registry.replica.clock_guard import ClockGuard


class _Compared:
    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def verdict(self) -> ClockVerdict:
        return ClockVerdict(self._standing, 172_800.0, 2)


class _Network:
    def __init__(self, standing: Standing) -> None:
        self.compared_clock = _Compared(standing)


def guard(standing: Standing) -> ClockGuard:
    return ClockGuard(cast("Network", _Network(standing)), lambda: 1e9)


@pytest.mark.parametrize("standing", Standing)
def test_nothing_is_too_old_for_good_while_peers_contradict_the_clock_be_they_too_few_to_tell_who_is_right(
    standing: Standing,
) -> None:
    is_trusted = standing in (Standing.RIGHT, Standing.UNKNOWN)
    expired = ErrorInfo(Code.RECORD_EXPIRED, "too old")
    assert guard(standing).is_trusted == is_trusted
    softened = guard(standing).softened(expired)
    assert softened is not None
    assert softened.known_code is (Code.RECORD_EXPIRED if is_trusted else Code.CLOCK)


def test_only_what_enough_peers_say_is_taken_for_the_time() -> None:
    assert guard(Standing.OFF).time() == 1e9 - 172_800
    assert guard(Standing.SUSPECT).time() == 1e9
