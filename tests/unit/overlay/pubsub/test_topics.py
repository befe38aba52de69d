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
from overlay.limits.token_bucket import TokenBuckets
from overlay.pubsub.topics import Verdict, message_id
from overlay.settings import OverlaySettings, TopicLimits

TOPIC = "a-resource"
LIMITS = TopicLimits()


class Judge:
    """Says of each payload what its first word says; keeps what was forwarded."""

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


def in_mesh(host: Host, neighbour: Host) -> bool:
    return neighbour.libp2p.get_id() in host.pubsub.router.mesh.get(TOPIC, ())  # type: ignore[attr-defined]


@asynccontextmanager
async def hosts(count: int, limits: TopicLimits = LIMITS) -> AsyncIterator[tuple[list[Host], list[Judge]]]:
    """In a row: each is connected to the one before only."""
    async with AsyncExitStack() as stack:
        row: list[Host] = []
        validators: list[Judge] = []
        for _ in range(count):
            settings = OverlaySettings(topics=limits)
            host = await stack.enter_async_context(open_host(Identity.generate(), settings))
            validate = Judge()
            host.topics.validate_with(validate)
            if row:
                await host.connect(row[-1].listen_addresses()[0], timeout=5)
            row.append(host)
            validators.append(validate)
            assert await host.topics.join(TOPIC)
        for one, other in pairwise(row):
            with trio.fail_after(10):
                for host, neighbour in ((one, other), (other, one)):
                    await until(partial(in_mesh, host, neighbour))
        yield row, validators


async def test_news_travels_on_through_those_who_accept_it() -> None:
    async with hosts(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[2].heard(b"accept 1")
        assert validators[1].validated == [b"accept 1"]
        assert row[1].topics.statistics().forwarded == 1


async def test_what_is_ignored_or_cannot_be_judged_stays_where_it_is() -> None:
    async with hosts(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"ignore 1")
        await row[0].topics.announce(TOPIC, b"raise 1")
        await validators[1].heard(b"raise 1")
        await row[0].topics.announce(TOPIC, b"accept 2")
        await validators[2].heard(b"accept 2")
        assert validators[2].validated == [b"accept 2"]
        assert row[1].topics.statistics().ignored == 2
        assert row[1].topics.statistics().invalid == 0


async def test_the_same_announced_by_several_is_one_message() -> None:
    async with hosts(3) as (row, validators):
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[2].heard(b"accept 1")
        await row[2].topics.announce(TOPIC, b"accept 1")
        await row[2].topics.announce(TOPIC, b"accept 2")
        await validators[0].heard(b"accept 2")
        assert validators[0].validated == [b"accept 2"]
        assert validators[1].validated == [b"accept 1", b"accept 2"]


async def test_a_forged_twin_neither_blocks_the_good_message_nor_rides_on_it() -> None:
    async with hosts(2) as (row, validators):
        topics, pubsub = row[1].topics, row[1].pubsub
        good = rpc_pb2.Message(data=b"accept 1", topicIDs=[TOPIC], from_id=b"x", seqno=b"1")  # unsigned: forged
        await pubsub.push_msg(row[0].libp2p.get_id(), good)
        assert topics.statistics().invalid == 1
        await row[0].topics.announce(TOPIC, b"accept 1")
        await validators[1].heard(b"accept 1")
        assert topics.statistics().forwarded == 1
        twin = rpc_pb2.Message(data=b"accept 1 and more", topicIDs=[TOPIC], from_id=b"x", seqno=b"1")
        await pubsub.push_msg(row[0].libp2p.get_id(), twin)
        assert validators[1].validated == [b"accept 1"]
        assert topics.statistics().invalid == 2


@pytest.mark.parametrize(
    "other",
    [
        rpc_pb2.Message(data=b"payload!", topicIDs=[TOPIC]),
        rpc_pb2.Message(data=b"payload", topicIDs=[TOPIC + "s"]),
        rpc_pb2.Message(data=b"payload", topicIDs=[TOPIC, TOPIC]),
        rpc_pb2.Message(data=b"payload", topicIDs=[]),
    ],
)
def test_the_id_of_a_message_covers_all_that_is_judged(other: rpc_pb2.Message) -> None:
    message = rpc_pb2.Message(data=b"payload", topicIDs=[TOPIC], from_id=b"one", seqno=b"1")
    same = rpc_pb2.Message(data=b"payload", topicIDs=[TOPIC], from_id=b"two", seqno=b"2")
    assert message_id(message) == message_id(same)
    assert message_id(message) != message_id(other)


async def test_who_sends_many_invalid_messages_is_banned_and_comes_back_later() -> None:
    limits = TopicLimits(invalid_burst=3, ban=1.0)
    async with hosts(2, limits) as (row, validators):
        bad = row[0].peer_id
        for number in range(4):
            await row[0].topics.announce(TOPIC, b"reject %d" % number)
            await validators[1].heard(b"reject %d" % number)
        with trio.fail_after(1):
            await until(lambda: not row[1].is_connected(bad))
        assert row[1].topics.statistics().banned == 1
        with pytest.raises(Unreachable, match="banned"):
            await row[1].connect(row[0].listen_addresses()[0], timeout=1)
        with trio.fail_after(10):
            while True:
                try:
                    await row[1].connect(row[0].listen_addresses()[0], timeout=1)
                    break
                except Unreachable:
                    await trio.sleep(0.05)


async def test_true_but_old_messages_are_never_blamed_on_their_forwarder() -> None:
    limits = TopicLimits(invalid_burst=1)
    async with hosts(2, limits) as (row, validators):
        for number in range(30):
            await row[0].topics.announce(TOPIC, b"ignore %d" % number)
            await validators[1].heard(b"ignore %d" % number)
        assert row[1].is_connected(row[0].peer_id)
        assert row[1].topics.statistics().banned == 0


async def test_what_a_peer_sends_beyond_its_rate_is_dropped_unjudged_and_others_are_still_heard() -> None:
    limits = TopicLimits(rate=1.0, burst=20.0)
    async with hosts(3, limits) as (row, validators):
        for number in range(40):
            await row[0].topics.announce(TOPIC, b"ignore %d" % number)
        await validators[1].heard(b"ignore 10")
        await row[2].topics.announce(TOPIC, b"accept 1")
        await validators[1].heard(b"accept 1")
        assert len(validators[1].validated) <= 22


async def test_topics_have_a_bound_and_are_left_a_while_after_their_last_use() -> None:
    limits = msgspec.structs.replace(TopicLimits(), max_topics=2, linger=0.2)
    async with open_host(Identity.generate(), OverlaySettings(topics=limits)) as host:
        assert await host.topics.join("one")
        assert await host.topics.join("one")
        assert await host.topics.join("two")
        assert not await host.topics.join("three")
        host.topics.leave("one")
        assert not await host.topics.join("three")
        host.topics.leave("one")
        assert await host.topics.join("three")
        assert set(host.pubsub.topic_ids) == {"two", "three"}
        host.topics.leave("two")
        with trio.fail_after(5):
            await until(lambda: "two" not in host.pubsub.topic_ids)


async def test_a_name_that_no_topic_has_is_refused() -> None:
    async with open_host(Identity.generate(), OverlaySettings()) as host:
        assert not await host.topics.join("")
        assert not await host.topics.join("x" * 129)


async def test_an_allowance_is_spent_owed_and_earned_back(autojump_clock: trio.testing.MockClock) -> None:
    buckets = TokenBuckets(rate=2.0, burst=4.0, debt=4.0)
    assert [buckets.take("peer", trio.current_time()) for _ in range(6)] == [True] * 4 + [False] * 2
    assert buckets.debt("peer", trio.current_time()) == 1.0
    assert buckets.debt("another", trio.current_time()) == 0.0
    await trio.sleep(1.5)
    assert buckets.debt("peer", trio.current_time()) == 0.0
    assert buckets.take("peer", trio.current_time())
    assert not buckets.take("peer", trio.current_time())
