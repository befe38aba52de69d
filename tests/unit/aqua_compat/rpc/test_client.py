"""Calls of services on one peer that has too much to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio

from aqua_compat.rpc.client import OnPeer
from aqua_compat.rpc.errors import CallInterrupted, PeerOverloaded
from overlay.errors import AnswerDropped, CallFailed, CallRefused, Overloaded

Failure = Callable[[str, str], CallFailed]


class BusyLink:
    """A peer that is linked with `target`, whose calls fail in turn as told, and then are answered."""

    peer_id = "me"

    def __init__(self, *failures: Failure) -> None:
        self.failures = list(failures)
        self.called_at: list[float] = []

    def is_linked(self, peer_id: str) -> bool:
        return True

    def nodes(self) -> list[str]:
        return []

    async def find(self, peer_id: str, *, timeout: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        return []

    async def find_peer_record(self, peer_id: str, *, timeout: float) -> None:
        await trio.lowlevel.checkpoint()

    def addresses_of(self, peer_id: str) -> list[str]:
        return []

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        await trio.lowlevel.checkpoint()
        self.called_at.append(trio.current_time())
        if self.failures:
            raise self.failures.pop(0)(peer_id, method)
        return "done"


def _busy(peer_id: str, method: str) -> CallFailed:
    return Overloaded(peer_id, method, retry_after=1.0)


def _on(link: BusyLink, *, is_patient: bool = True) -> OnPeer:
    peer = cast("Any", link)
    return OnPeer(peer, cast("Any", None), cast("Any", None), "target", (), 10.0, 10.0, is_patient=is_patient)


async def test_a_peer_with_too_much_to_do_is_asked_again_when_it_said(autojump_clock: object) -> None:
    link = BusyLink(_busy, _busy)
    assert await _on(link).call("echo", "echo") == "done"
    waited = [after - before for before, after in zip(link.called_at, link.called_at[1:], strict=False)]
    assert len(waited) == 2
    assert all(1.0 <= each <= 1.5 for each in waited)


async def test_it_isnt_waited_for_beyond_the_deadline(autojump_clock: object) -> None:
    link = BusyLink(*[_busy] * 100)
    with pytest.raises(PeerOverloaded, match=r"come back in 1\.0 s"):
        await _on(link).call("echo", "echo", timeout=5.0)
    assert trio.current_time() - link.called_at[0] < 5.0
    assert 3 <= len(link.called_at) <= 5


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (AnswerDropped, CallInterrupted),  # it was done
        (lambda peer_id, method: CallRefused(peer_id, method, "overloaded", "no place"), PeerOverloaded),
    ],
)
async def test_what_was_done_or_a_service_turns_away_itself_isnt_called_again(
    failure: Failure, raised: type[Exception]
) -> None:
    link = BusyLink(failure)
    with pytest.raises(raised):
        await _on(link).call("echo", "echo")
    assert len(link.called_at) == 1


async def test_who_has_others_to_call_goes_on_to_them_at_once() -> None:
    link = BusyLink(_busy)
    with pytest.raises(PeerOverloaded):
        await _on(link, is_patient=False).call("echo", "echo")
    assert len(link.called_at) == 1
