"""What drives presence on the network: whom it asks for a followed host's keepers, and when it asks again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import cast

import pytest
import trio
import trio.testing

from overlay.discovery.keyspace import peer_position
from overlay.errors import PeerIdError
from overlay.identity import Identity
from overlay.presence import liveness as module
from overlay.presence.actions import SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.liveness import Liveness
from overlay.presence.messages import AskAbout, Hint, Message, Said, SubscribeTo, Told, encode, parse
from overlay.presence.outgoing import GATHERING, OutgoingNotices
from overlay.presence.statements import Presence, Version, Word, sign
from overlay.rpc.links import Links

OWN = Identity.generate()
HOSTING = Identity.generate()
HOST = HOSTING.peer_id
WITNESSING = Identity.generate()
WITNESS = WITNESSING.peer_id
TOLD = Told(sign(HOSTING, Presence(HOST, Version(1))))
SAID = Said(sign(WITNESSING, Word(WITNESS, HOST, Version(1), True, 1, 30)))


class FakeLinks:
    """Links to those in `linked`; what is said on them is kept."""

    def __init__(self) -> None:
        self.linked: set[str] = set()
        self.said: list[tuple[str, Message]] = []
        self.note_up: Callable[[str, bool], None] = lambda *_: None
        self.note_down: Callable[[str], None] = lambda *_: None
        self.read: Callable[[str, bytes], None] = lambda *_: None

    def on_notice(self, topic: str, callback: Callable[[str, bytes], None]) -> None:
        self.read = callback

    def on_up(self, callback: Callable[[str, bool], None]) -> None:
        self.note_up = callback

    def on_down(self, callback: Callable[[str], None]) -> None:
        self.note_down = callback

    def on_closed(self, callback: Callable[[str], None]) -> None:
        pass

    def notify_at_last(self, say: object) -> None:
        pass

    def hold(self, peer_id: str) -> None:
        pass

    def release(self, peer_id: str) -> None:
        pass

    def is_linked(self, peer_id: str) -> bool:
        return peer_id in self.linked

    def notify(self, peer_id: str, topic: str, body: bytes) -> bool:
        if peer_id in self.linked:
            self.said += [(peer_id, message) for message in parse(body)]
        return peer_id in self.linked

    async def ensure_link(self, peer_id: str, *, timeout: float) -> None:
        await trio.lowlevel.checkpoint()

    def subscribed_at(self) -> set[str]:
        return {peer for peer, message in self.said if isinstance(message, SubscribeTo) and message.seconds}


class FakeNetwork:
    """What it finds can be changed."""

    def __init__(self) -> None:
        self.found: Sequence[str] = ()
        self.lookups = 0
        self.dialled = DialOutcome.SILENT

    def members_near(self, peer_id: str, count: int) -> Sequence[str]:
        peer_position(peer_id)
        return self.found

    async def find_members_near(self, peer_id: str, count: int) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        peer_position(peer_id)
        self.lookups += 1
        return self.found

    def home(self) -> Sequence[str]:
        return self.found

    def nodes(self) -> Sequence[str]:
        return ()

    async def answers_through(self, nodes: Sequence[str], peer_id: str, timeout: float) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def probe(self, peer_id: str, timeout: float) -> DialOutcome:
        await trio.lowlevel.checkpoint()
        return self.dialled

    def silence(self, peer_id: str) -> float | None:
        return None


def liveness(links: FakeLinks, network: FakeNetwork) -> Liveness:
    return Liveness(
        OWN,
        cast("Links", links),
        network,
        network,
        incarnation=1,
        clock=trio.current_time,
        randomness=random.Random(1),
    )


async def test_keepers_that_were_not_found_at_first_are_looked_up_again_when_members_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, network = FakeLinks(), FakeNetwork()
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        presence.follow([HOST])
        await trio.sleep(1.5)
        assert links.subscribed_at() == set()
        network.found = (WITNESS,)
        links.linked.add(WITNESS)
        presence.note_members()
        await trio.sleep(1.5)
        assert links.subscribed_at() == {WITNESS}
        nursery.cancel_scope.cancel()


async def test_keepers_are_looked_up_again_ever_rarer(autojump_clock: trio.testing.MockClock) -> None:
    links, network = FakeLinks(), FakeNetwork()
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        presence.follow([HOST])
        await trio.sleep(600)
        assert 8 <= network.lookups <= 15
        presence.unfollow([HOST])
        before = network.lookups
        await trio.sleep(600)
        assert network.lookups == before
        nursery.cancel_scope.cancel()


async def test_subscription_that_did_not_get_there_is_made_again(autojump_clock: trio.testing.MockClock) -> None:
    links, network = FakeLinks(), FakeNetwork()
    network.found = (WITNESS,)
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        presence.follow([HOST])
        await trio.sleep(3)
        assert links.subscribed_at() == set()
        links.linked.add(WITNESS)  # nobody tells of it
        await trio.sleep(10)
        assert links.subscribed_at() == {WITNESS}
        nursery.cancel_scope.cancel()


async def test_who_said_that_a_host_is_down_is_known_after_the_words_have_lapsed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, network = linked(), FakeNetwork()
    network.found, network.dialled = (WITNESS,), DialOutcome.REFUSED
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        presence.follow([HOST])
        await trio.sleep(0.1)
        links.read(WITNESS, encode([TOLD, SAID]))
        await trio.sleep(1.0)
        assert (presence.state_of(HOST).is_up, presence.state_of(HOST).accusers) == (False, (WITNESS,))
        await trio.sleep(600.0)
        assert (presence.state_of(HOST).is_up, presence.state_of(HOST).accusers) == (False, (WITNESS,))
        links.read(WITNESS, encode([Told(sign(HOSTING, Presence(HOST, Version(2))))]))
        assert (presence.state_of(HOST).is_up, presence.state_of(HOST).accusers) == (True, ())
        nursery.cancel_scope.cancel()


async def test_a_host_whose_keeper_the_reader_is_itself_is_known_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, network = FakeLinks(), FakeNetwork()
    presence = liveness(links, network)
    links.linked.add(HOST)
    network.found = (OWN.peer_id,)  # as in a network of two
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        links.read(HOST, encode([TOLD]))
        await trio.sleep(5.0)
        presence.follow([HOST])
        await trio.sleep(0.1)
        assert presence.state_of(HOST).is_known
        assert presence.is_settled(HOST)
        nursery.cancel_scope.cancel()


async def test_a_host_whose_keeper_the_reader_is_itself_is_known_to_be_dead_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, network = FakeLinks(), FakeNetwork()
    presence = liveness(links, network)
    links.linked.add(HOST)
    network.found = (OWN.peer_id,)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        links.read(HOST, encode([TOLD]))
        await trio.sleep(5.0)
        network.dialled = DialOutcome.REFUSED
        links.linked.clear()
        links.note_down(HOST)
        await trio.sleep(60.0)
        presence.follow([HOST])
        await trio.sleep(0.1)
        assert (presence.state_of(HOST).is_up, presence.state_of(HOST).accusers) == (False, (OWN.peer_id,))
        nursery.cancel_scope.cancel()


async def test_a_doubt_that_a_first_reader_is_told_of_is_looked_into_before_anything_is_settled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, network = linked(), FakeNetwork()
    network.found, network.dialled = (WITNESS,), DialOutcome.REFUSED
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        presence.follow([HOST])
        await trio.sleep(0.1)
        links.read(WITNESS, encode([TOLD, SAID]))
        assert not presence.is_settled(HOST)  # our own dial is under way
        await trio.sleep(0.1)
        assert presence.is_settled(HOST)
        assert not presence.state_of(HOST).is_up
        nursery.cancel_scope.cancel()


def linked() -> FakeLinks:
    links = FakeLinks()
    links.linked.add(WITNESS)
    return links


def test_what_is_said_to_one_peer_in_quick_succession_shares_a_notice() -> None:
    links, started = linked(), list[object]()
    outgoing = OutgoingNotices(
        cast("Links", links), start=lambda *arguments: started.append(arguments), unreached=print
    )
    for number in range(5):
        outgoing.say({WITNESS: [SendTo(WITNESS, Hint(f"host {number}"))]}, 1.0, may_wait=True)
    assert [message for _, message in links.said] == [Hint("host 0")]
    assert outgoing.say_at == pytest.approx(1.0 + GATHERING)
    outgoing.say_gathered(1.0 + GATHERING)
    assert [message for _, message in links.said] == [Hint(f"host {number}") for number in range(5)]
    assert outgoing.say_at == math.inf
    outgoing.say({WITNESS: [SendTo(WITNESS, Hint("later"))]}, 2.0, may_wait=True)
    assert links.said[-1] == (WITNESS, Hint("later"))
    assert not started


async def test_names_that_are_no_peers_end_neither_a_link_nor_the_peer(autojump_clock: trio.testing.MockClock) -> None:
    links, network = FakeLinks(), FakeNetwork()
    presence = liveness(links, network)
    async with trio.open_nursery() as nursery:
        await nursery.start(presence.run)
        for name in "0", "x", "é":
            with pytest.raises(PeerIdError):
                presence.follow([name])
            for message in AskAbout(name, bytes(8), Version(1)), SubscribeTo((name,), 600):
                links.read(WITNESS, encode([message]))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()


async def test_large_notices_count_for_more(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = list[bytes]()

    def note(body: bytes) -> list[Message]:
        parsed.append(body)
        return []

    monkeypatch.setattr(module, "parse", note)
    links = FakeLinks()
    liveness(links, FakeNetwork())
    for body, most in (bytes(64 * 1024), 120), (bytes(100), 1000):
        parsed.clear()
        for _ in range(1500):
            links.read(f"a peer that sends {len(body)} bytes", body)
        assert most * 0.9 <= len(parsed) <= most
