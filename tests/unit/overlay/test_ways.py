"""In which order ways to a peer are tried, and when the next is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from overlay.contact_record import Contact
from overlay.errors import CallFailed, CallRefused, ConnectionLost, Overloaded, ProtocolNotSupported, Unreachable
from overlay.ways import Ways

Failure = type[CallFailed] | str | None


class FakeWalker:
    """A peer whose ways behave as told: `fails` maps a relay, or "" for the direct way, to what happens there."""

    peer_id = "me"

    def __init__(self, **fails: Failure) -> None:
        self.fails = fails
        self.tried: list[str] = []
        self.linked = {"target", "one", "two", "node", "three"}
        self.addresses: list[str] = []
        self.found: list[str] = []
        self.contact: Contact | None = None
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

    async def find_contact(self, peer_id: str, *, timeout: float) -> Contact | None:
        await trio.lowlevel.checkpoint()
        return self.contact

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

    async def _outcome(self, way: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        self.tried.append(way)
        failure = self.fails.get(way)
        if failure == "refused":
            raise CallRefused("target", "m", "no", "never")
        if isinstance(failure, type):
            raise failure("target", "m", way)
        return body


async def called(walker: FakeWalker, *via: str, timeout: float = 6.0, reach: float = 60.0) -> object:
    return await Ways(walker, "target", via).call("m", lambda way: f"by {way}", timeout, reach=reach)


async def test_an_open_link_comes_first_then_the_relays_given() -> None:
    assert await called(FakeWalker(), "one") == "by "
    walker = FakeWalker()
    walker.linked.discard("target")
    assert await called(walker, "one", "two") == "by one"


async def test_the_node_then_what_the_peer_said_of_itself_come_last() -> None:
    gone = Unreachable
    walker = FakeWalker(direct=gone, one=gone, node=gone, two=gone)
    walker.contact = Contact("target", (), ("one", "two", "three"), (), 1, b"")
    assert await called(walker, "one") == "by three"
    assert walker.tried == ["direct", "one", "node", "two", "three"]


async def test_a_call_that_may_have_arrived_is_not_made_again() -> None:
    for failure in (ConnectionLost, "refused"):
        walker = FakeWalker(one=failure)
        walker.linked.discard("target")
        with pytest.raises((ConnectionLost, CallRefused)):
            await called(walker, "one", "two")
        assert walker.tried == ["one"]


async def test_the_first_failure_is_told() -> None:
    walker = FakeWalker(direct=Unreachable, one=Unreachable, node=Unreachable)
    with pytest.raises(Unreachable, match="direct"):
        await called(walker, "one")


async def test_one_that_does_not_answer_leaves_time_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    walker = FakeWalker()
    walker.linked = {"node"}
    walker.unreachable_for = 100
    began = trio.current_time()
    assert await called(walker, "one") == "by node"
    assert walker.tried == ["link one", "node"]
    assert trio.current_time() - began <= 3


async def test_no_way_is_tried_beyond_the_time_for_reaching(autojump_clock: trio.testing.MockClock) -> None:
    walker = FakeWalker()
    walker.linked = set()
    walker.unreachable_for = 100
    began = trio.current_time()
    with pytest.raises(Unreachable):
        await called(walker, "one", "two", timeout=60, reach=2)
    assert trio.current_time() - began <= 2


async def test_a_relay_that_is_full_or_speaks_otherwise_is_no_end() -> None:
    walker = FakeWalker(one=Overloaded)
    walker.linked.discard("target")
    assert await called(walker, "one", "two") == "by two"
    walker = FakeWalker()
    walker.linked = {"node"}
    walker.link_failure = ProtocolNotSupported
    assert await called(walker, "original relay") == "by node"
    with pytest.raises(Overloaded):  # the peer itself, on its own link
        await called(FakeWalker(direct=Overloaded), "one")
