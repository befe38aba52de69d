"""In which order ways to a peer are tried, and when the next is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from overlay.discovery.peer_record import PeerRecord
from overlay.errors import (
    AnswerDropped,
    CallFailed,
    CallRefused,
    ConnectionLost,
    Overloaded,
    ProtocolNotSupported,
    Unreachable,
)
from overlay.relaying.path_selection import PathSelection

Failure = type[CallFailed] | str | None


class FakeDialer:
    """A peer whose ways behave as told: `fails` maps a relay, or "" for the direct way, to what happens there."""

    peer_id = "me"

    def __init__(self, **fails: Failure) -> None:
        self.fails = fails
        self.tried: list[str] = []
        self.linked = {"target", "one", "two", "node", "three"}
        self.addresses: list[str] = []
        self.found: list[str] = []
        self.peer_record: PeerRecord | None = None
        self.unreachable_for = 0.0
        self.link_failure: type[CallFailed] = Unreachable

    def nodes(self) -> list[str]:
        return ["node"]

    def is_linked(self, peer_id: str) -> bool:
        return peer_id in self.linked

    def addresses_of(self, peer_id: str) -> list[str]:
        return self.addresses if peer_id == "target" else ["somewhere"]

    async def find(self, peer_id: str, *, timeout: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.addresses = self.found
        return self.found

    async def find_peer_record(self, peer_id: str, *, timeout: float) -> PeerRecord | None:
        await trio.lowlevel.checkpoint()
        return self.peer_record

    async def link(self, peer_id: str) -> None:
        self.tried.append(f"link {peer_id}")
        await trio.sleep(self.unreachable_for)
        raise self.link_failure(peer_id, "link")

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        return await self._outcome("direct", body)

    async def call_via(
        self, relays: Sequence[str], peer_id: str, method: str, body: object, *, timeout: float
    ) -> object:
        return await self._outcome(relays[0], body)

    async def _outcome(self, path: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        self.tried.append(path)
        failure = self.fails.get(path)
        if failure == "refused":
            raise CallRefused("target", "m", "no", "never")
        if isinstance(failure, type):
            raise failure("target", "m", path)
        return body


async def called(dialer: FakeDialer, *via: str, timeout: float = 6.0, reach: float = 60.0) -> object:
    return await PathSelection(dialer, "target", via).call("m", lambda path: f"by {path}", timeout, reach=reach)


async def test_an_open_link_comes_first_then_the_relays_given() -> None:
    assert await called(FakeDialer(), "one") == "by "
    dialer = FakeDialer()
    dialer.linked.discard("target")
    assert await called(dialer, "one", "two") == "by one"


async def test_the_node_then_what_the_peer_said_of_itself_come_last() -> None:
    gone = Unreachable
    dialer = FakeDialer(direct=gone, one=gone, node=gone, two=gone)
    dialer.peer_record = PeerRecord("target", (), ("one", "two", "three"), (), 1, b"")
    assert await called(dialer, "one") == "by three"
    assert dialer.tried == ["direct", "one", "node", "two", "three"]


async def test_a_call_that_may_have_arrived_is_not_made_again() -> None:
    for failure in (ConnectionLost, "refused"):
        dialer = FakeDialer(one=failure)
        dialer.linked.discard("target")
        with pytest.raises((ConnectionLost, CallRefused)):
            await called(dialer, "one", "two")
        assert dialer.tried == ["one"]


async def test_the_first_failure_is_told() -> None:
    dialer = FakeDialer(direct=Unreachable, one=Unreachable, node=Unreachable)
    with pytest.raises(Unreachable, match="direct"):
        await called(dialer, "one")


async def test_one_that_does_not_answer_leaves_time_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    dialer = FakeDialer()
    dialer.linked = {"node"}
    dialer.unreachable_for = 100
    began = trio.current_time()
    assert await called(dialer, "one") == "by node"
    assert dialer.tried == ["link one", "node"]
    assert trio.current_time() - began <= 3


async def test_no_way_is_tried_beyond_the_time_for_reaching(autojump_clock: trio.testing.MockClock) -> None:
    dialer = FakeDialer()
    dialer.linked = set()
    dialer.unreachable_for = 100
    began = trio.current_time()
    with pytest.raises(Unreachable):
        await called(dialer, "one", "two", timeout=60, reach=2)
    assert trio.current_time() - began <= 2


async def test_a_relay_that_is_full_or_speaks_otherwise_is_no_end() -> None:
    dialer = FakeDialer(one=Overloaded)
    dialer.linked.discard("target")
    assert await called(dialer, "one", "two") == "by two"
    dialer = FakeDialer()
    dialer.linked = {"node"}
    dialer.link_failure = ProtocolNotSupported
    assert await called(dialer, "original relay") == "by node"
    dialer = FakeDialer(one=AnswerDropped)
    dialer.linked.discard("target")
    with pytest.raises(AnswerDropped):  # the peer served it: it isn't to be done again
        await called(dialer, "one", "two")
    with pytest.raises(Overloaded):  # the peer itself, on its own link
        await called(FakeDialer(direct=Overloaded), "one")
