"""FIND_NODE for others, over streams in memory: whom it names, and what visitors can't make it do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.kad_dht.pb.kademlia_pb2 import Message, Record
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.discovery.keyspace import nearest, peer_position
from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.kad_messages import KnownPeer, MessageReader, encoded, tell, told
from overlay.libp2p.kad_server import IDLE, MOST_STREAMS, MOST_STREAMS_OF_ONE, KadServer
from tests.unit.overlay.memory_network import MemoryStream, memory_streams

MEMBERS = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(1, 31)]
ADDRESS = "/ip4/127.0.0.1/tcp/4001"
FIND_NODE = Message.MessageType.FIND_NODE


def known_nearest(position: int, count: int) -> list[KnownPeer]:
    return [KnownPeer(member, (ADDRESS,)) for member in nearest(position, MEMBERS, count)]


class Visitors:
    """Peers that open streams to a server."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.server = KadServer(known_nearest)
        self.nursery = nursery

    async def come(self, peer_id: str) -> MemoryStream:
        ours, theirs = memory_streams()
        self.nursery.start_soon(self.server.handle, peer_id, ours)
        await wait_all_tasks_blocked(0.001)
        return theirs


@asynccontextmanager
async def visited() -> AsyncIterator[Visitors]:
    async with trio.open_nursery() as nursery:
        yield Visitors(nursery)
        nursery.cancel_scope.cancel()


async def asked(stream: MemoryStream, message: Message) -> Message | None:
    await stream.write(encoded(message))
    with trio.fail_after(5):
        return await MessageReader(stream, 10**6).next()


def question(target: str) -> Message:
    return Message(type=FIND_NODE, key=libp2p_id(target).to_bytes())


async def test_answer_names_the_nearest_members_with_addresses() -> None:
    async with visited() as visitors:
        target = Identity.generate().peer_id
        answer = await asked(await visitors.come("a visitor"), question(target))
        assert answer is not None
        assert [*told(answer)] == known_nearest(peer_position(target), 20)


async def test_asker_is_not_told_of_itself_and_enters_nothing() -> None:
    async with visited() as visitors:
        for asker in (MEMBERS[3], Identity.generate().peer_id):
            for _ in range(2):
                answer = await asked(await visitors.come(asker), question(MEMBERS[3]))
                assert answer is not None
                names = [peer.peer_id for peer in told(answer)]
                assert len(names) == 20
                assert asker not in names
                assert set(names) <= set(MEMBERS)


async def test_one_stream_asks_many_times() -> None:
    async with visited() as visitors:
        stream = await visitors.come("a visitor")
        for _ in range(10):
            assert await asked(stream, question(MEMBERS[0])) is not None
        await stream.close()
        await wait_all_tasks_blocked()
        assert not stream.was_reset


async def test_whoever_asks_too_often_is_sent_away() -> None:
    async with visited() as visitors:
        stream = await visitors.come("a visitor")
        await stream.write(encoded(question(MEMBERS[0])) * 100)
        await wait_all_tasks_blocked()
        assert stream.was_reset
        assert await asked(await visitors.come("another"), question(MEMBERS[0])) is not None


@pytest.mark.parametrize("asked_of", [Message.MessageType.GET_VALUE, Message.MessageType.GET_PROVIDERS])
async def test_values_are_answered_by_who_is_nearer(asked_of: Message.MessageType) -> None:
    async with visited() as visitors:
        key = b"a key"
        answer = await asked(await visitors.come("a visitor"), Message(type=asked_of, key=key))
        assert answer is not None
        assert (answer.type, answer.key) == (asked_of, key)
        assert not answer.HasField("record")
        assert len([*told(answer)]) == 20


async def test_nothing_can_be_put() -> None:
    async with visited() as visitors:
        stream = await visitors.come("a visitor")
        put = Message(type=Message.MessageType.PUT_VALUE, key=b"k", record=Record(key=b"k", value=b"v"))
        await stream.write(encoded(put))
        await wait_all_tasks_blocked()
        assert stream.was_reset


@pytest.mark.parametrize("garbage", [b"\xff" * 20, b"\x05hello", b"\xff\xff\xff\x7f", b"\x80\x80\x02", b"\x00"])
async def test_garbage_ends_its_own_stream_only(garbage: bytes) -> None:
    async with visited() as visitors:
        stream, other = await visitors.come("a visitor"), await visitors.come("another")
        await stream.write(garbage)
        await stream.close()
        await wait_all_tasks_blocked()
        assert await asked(other, question(MEMBERS[0])) is not None


async def test_silent_streams_shut_nobody_out() -> None:
    """Each place is taken by a stream that asks nothing; whoever asks finds one all the same."""
    async with visited() as visitors:
        silent = [await visitors.come(f"silent {number}") for number in range(MOST_STREAMS + 20)]
        assert [stream.was_reset for stream in silent] == [True] * 20 + [False] * MOST_STREAMS, (
            "the longest silent went"
        )
        for number in range(50):
            stream = await visitors.come(f"visitor {number}")
            assert await asked(stream, question(MEMBERS[0])) is not None


async def test_one_peer_has_a_few_places_only() -> None:
    async with visited() as visitors:
        patient = await visitors.come("patient")
        greedy = [await visitors.come("greedy") for _ in range(2 * MOST_STREAMS)]
        assert sum(not stream.was_reset for stream in greedy) == MOST_STREAMS_OF_ONE
        assert not patient.was_reset
        assert await asked(greedy[-1], question(MEMBERS[0])) is not None


async def test_silent_stream_ends_at_its_deadline_and_gives_its_place_back(autojump_clock: MockClock) -> None:
    async with visited() as visitors:
        for _ in range(3):
            streams = [await visitors.come("a visitor") for _ in range(MOST_STREAMS_OF_ONE)]
            await trio.sleep(IDLE + 1)
            assert all(stream.was_reset for stream in streams)


async def test_peer_that_does_not_read_is_given_up(autojump_clock: MockClock) -> None:
    async with visited() as visitors:
        stream = await visitors.come("a visitor")
        assert stream.other is not None
        stream.other.stall()
        await stream.write(encoded(question(MEMBERS[0])))
        await trio.sleep(6)
        assert stream.was_reset


async def test_message_in_pieces_is_read_whole() -> None:
    async with visited() as visitors:
        stream = await visitors.come("a visitor")
        for byte in encoded(question(MEMBERS[0])):
            await stream.write(bytes([byte]))
        assert await MessageReader(stream, 10**6).next() is not None


def test_malformed_peers_in_an_answer_are_left_out() -> None:
    answer = Message(type=FIND_NODE)
    tell(answer, [KnownPeer(MEMBERS[0], (ADDRESS,))])
    bad = answer.closerPeers.add()
    bad.id = b"no peer"
    answer.closerPeers.add().CopyFrom(answer.closerPeers[0])
    answer.closerPeers[2].addrs[:] = [b"\xff\xff", *answer.closerPeers[0].addrs]
    assert [*told(answer)] == [KnownPeer(MEMBERS[0], (ADDRESS,))] * 2
