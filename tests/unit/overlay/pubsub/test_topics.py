"""Topics between hosts in one process, over real sockets: what is forwarded, what is dropped, who is banned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise

import msgspec
import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from overlay.errors import Unreachable
from overlay.identity import Identity
from overlay.libp2p.host import Host, open_host
from overlay.pubsub.admission import Admission, Verdict, message_id
from overlay.pubsub.topics import Topics
from overlay.settings import OverlaySettings, TopicLimits
from overlay.tasks import background

TOPIC = "a-resource"
LIMITS = TopicLimits()


class RecordingValidator:
    """Decides by the first word of each payload; keeps the payloads that it was asked about."""

    def __init__(self) -> None:
        self.validated: list[bytes] = []
        self.arrived = trio.Event()

    async def __call__(self, topic: str, payload: bytes, forwarder: str) -> Verdict:
        await trio.lowlevel.checkpoint()
        self.validated.append(payload)
        self.arrived.set()
        self.arrived = trio.Event()
        word = payload.split()[0].decode()
        if word == "raise":
            raise RuntimeError(word)
        return Verdict(word)

    async def heard(self, payload: bytes) -> None:
        with trio.fail_after(10):
            while payload not in self.validated:
                await self.arrived.wait()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - libp2p tells nobody
        await trio.sleep(0.01)


class Peer:
    """A host and its topics."""

    def __init__(self, host: Host, limits: TopicLimits) -> None:
        self.host = host
        self.topics = Topics(host.gossip, host.admission, limits)

    def is_in_mesh(self, neighbour: Peer) -> bool:
        return neighbour.host.libp2p.get_id() in self.host.gossip.pubsub.router.mesh.get(TOPIC, ())

    def topic_names(self) -> set[str]:
        return set(self.host.gossip.pubsub.topic_ids)


@asynccontextmanager
async def open_topics(limits: TopicLimits = LIMITS) -> AsyncIterator[Peer]:
    settings = OverlaySettings(topics=limits)
    async with open_host(Identity.generate(), settings) as host, background() as nursery:
        peer = Peer(host, limits)
        await nursery.start(peer.topics.run)
        yield peer


@asynccontextmanager
async def peers(count: int, limits: TopicLimits = LIMITS) -> AsyncIterator[tuple[list[Peer], list[RecordingValidator]]]:
    """In a row: each is connected to the one before only."""
    async with AsyncExitStack() as stack:
        row: list[Peer] = []
        validators: list[RecordingValidator] = []
        for _ in range(count):
            peer = await stack.enter_async_context(open_topics(limits))
            validate = RecordingValidator()
            if row:
                await peer.host.connect(row[-1].host.listen_addresses()[0], timeout=5)
            row.append(peer)
            validators.append(validate)
            assert await peer.topics.join(TOPIC, validate)
        for one, other in pairwise(row):
            with trio.fail_after(10):
                for peer, neighbour in ((one, other), (other, one)):
                    await until(partial(peer.is_in_mesh, neighbour))
        yield row, validators


async def test_news_travels_on_through_those_who_accept_it() -> None:
    async with peers(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[2].heard(b"accept 1")
        assert validators[1].validated == [b"accept 1"]
        assert row[1].topics.statistics().forwarded == 1


async def test_what_is_ignored_or_cannot_be_validated_stays_where_it_is() -> None:
    async with peers(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"ignore 1")
        await row[0].topics.announce(TOPIC, b"raise 1")
        await validators[1].heard(b"raise 1")
        await row[0].topics.announce(TOPIC, b"accept 2")
        await validators[2].heard(b"accept 2")
        assert validators[2].validated == [b"accept 2"]
        assert row[1].topics.statistics().ignored == 2
        assert row[1].topics.statistics().invalid == 0


async def test_the_same_announced_by_several_is_one_message() -> None:
    async with peers(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[2].heard(b"accept 1")
        await row[2].topics.announce(TOPIC, b"accept 1")
        await row[2].topics.announce(TOPIC, b"accept 2")
        await validators[0].heard(b"accept 2")
        assert validators[0].validated == [b"accept 2"]
        assert validators[1].validated == [b"accept 1", b"accept 2"]


async def test_a_forged_twin_neither_blocks_the_good_message_nor_rides_on_it() -> None:
    async with peers(2) as (row, validators):
        topics, pubsub = row[1].topics, row[1].host.gossip.pubsub
        good = rpc_pb2.Message(data=b"accept 1", topicIDs=[TOPIC], from_id=b"x", seqno=b"1")  # unsigned: forged
        await pubsub.push_msg(row[0].host.libp2p.get_id(), good)
        assert topics.statistics().invalid == 1
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[1].heard(b"accept 1")
        assert topics.statistics().forwarded == 1
        twin = rpc_pb2.Message(data=b"accept 1 and more", topicIDs=[TOPIC], from_id=b"x", seqno=b"1")
        await pubsub.push_msg(row[0].host.libp2p.get_id(), twin)
        assert validators[1].validated == [b"accept 1"]
        assert topics.statistics().invalid == 2


@pytest.mark.parametrize(
    "other", [([TOPIC], b"payload!"), ([TOPIC + "s"], b"payload"), ([TOPIC, TOPIC], b"payload"), ([], b"payload")]
)
def test_the_id_of_a_message_covers_all_that_is_validated(other: tuple[list[str], bytes]) -> None:
    assert message_id([TOPIC], b"payload") == message_id([TOPIC], b"payload")
    assert message_id([TOPIC], b"payload") != message_id(*other)


async def test_who_sends_many_invalid_messages_is_banned_and_comes_back_later() -> None:
    limits = TopicLimits(invalid_burst=3, ban_time=1.0)
    async with peers(2, limits) as (row, validators):
        bad = row[0].host.peer_id
        for number in range(4):
            await row[0].topics.announce(TOPIC, b"reject %d" % number)
            await validators[1].heard(b"reject %d" % number)
        with trio.fail_after(1):
            await until(lambda: not row[1].host.is_connected(bad))
        assert row[1].topics.statistics().banned == 1
        with pytest.raises(Unreachable, match="banned"):
            await row[1].host.connect(row[0].host.listen_addresses()[0], timeout=1)
        with trio.fail_after(10):
            while True:
                try:
                    await row[1].host.connect(row[0].host.listen_addresses()[0], timeout=1)
                    break
                except Unreachable:
                    await trio.sleep(0.05)


async def test_true_but_old_messages_are_never_blamed_on_their_forwarder() -> None:
    limits = TopicLimits(invalid_burst=1)
    async with peers(2, limits) as (row, validators):
        for number in range(30):
            await row[0].topics.announce(TOPIC, b"ignore %d" % number)
            await validators[1].heard(b"ignore %d" % number)
        assert row[1].host.is_connected(row[0].host.peer_id)
        assert row[1].topics.statistics().banned == 0


async def test_what_a_peer_sends_beyond_its_rate_is_dropped_unread_and_others_are_still_heard() -> None:
    limits = TopicLimits(rate=1.0, burst=20.0)
    async with peers(3, limits) as (row, validators):
        for number in range(40):
            await row[0].topics.announce(TOPIC, b"ignore %d" % number)
        await validators[1].heard(b"ignore 10")
        await row[2].topics.announce(TOPIC, b"accept 1")
        await validators[1].heard(b"accept 1")
        assert len(validators[1].validated) <= 22


async def test_topics_have_a_bound_and_are_left_a_while_after_their_last_use() -> None:
    limits = msgspec.structs.replace(TopicLimits(), max_topics=2, linger=0.2)
    async with open_topics(limits) as peer:
        assert await peer.topics.join("one", RecordingValidator())
        assert await peer.topics.join("one", RecordingValidator())
        assert await peer.topics.join("two", RecordingValidator())
        assert not await peer.topics.join("three", RecordingValidator())
        peer.topics.leave("one")
        assert not await peer.topics.join("three", RecordingValidator())
        peer.topics.leave("one")
        assert await peer.topics.join("three", RecordingValidator())
        assert peer.topic_names() == {"two", "three"}
        peer.topics.leave("two")
        with trio.fail_after(5):
            await until(lambda: "two" not in peer.topic_names())


async def test_a_name_that_no_topic_has_is_refused() -> None:
    async with open_topics() as peer:
        assert not await peer.topics.join("", RecordingValidator())
        assert not await peer.topics.join("x" * 129, RecordingValidator())


class SlowGossip:
    """Leaves a topic when it is let to."""

    def __init__(self) -> None:
        self.leaving = trio.Event()
        self.may_leave = trio.Event()

    async def subscribe(self, topic: str) -> None:
        await trio.lowlevel.checkpoint()

    async def unsubscribe(self, topic: str) -> None:
        self.leaving.set()
        await self.may_leave.wait()


async def test_a_topic_that_is_used_again_while_another_is_left_stays() -> None:
    async def ban(peer_id: str, seconds: float) -> None:
        raise AssertionError(peer_id)

    gossip, validate = SlowGossip(), RecordingValidator()
    limits = msgspec.structs.replace(TopicLimits(), linger=0.0)
    topics = Topics(gossip, Admission(limits, ban), limits)
    async with background() as nursery:
        await nursery.start(topics.run)
        assert await topics.join("one", validate)
        assert await topics.join("two", validate)
        topics.leave("one")
        topics.leave("two")
        await gossip.leaving.wait()
        assert await topics.join("two", validate)
        gossip.may_leave.set()
        assert await topics.join("one", validate)
        assert topics.statistics().topics == 2
