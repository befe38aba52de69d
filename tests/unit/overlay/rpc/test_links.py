"""Links between whole peers over in-memory streams."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.errors import (
    BodyTooLarge,
    CallFailed,
    CallTimeout,
    ConnectionLost,
    PeerFull,
    ProtocolError,
    ProtocolNotSupported,
    Unreachable,
)
from overlay.identity import Identity
from overlay.rpc.framing import FrameError
from overlay.rpc.links import Links
from overlay.rpc.protocol import Hello, Keep, Pong, encode
from overlay.rpc.transport import ByteStream
from overlay.settings import CallLimits, LinkLimits, OverlaySettings
from tests.unit.overlay.memory_network import LARGER, SMALLER, MemoryNetwork, memory_network, memory_streams

PROTOCOL = OverlaySettings().protocol_id


async def echo(caller: str, body: object) -> object:
    await trio.lowlevel.checkpoint()
    return [caller, body]


class CallEnds:
    """What calls came to, in the order of their ends."""

    def __init__(self) -> None:
        self.all: list[object] = []

    async def call(self, links: Links, peer_id: str, method: str, body: object, timeout: float = 60) -> None:
        try:
            self.all.append(await links.call(peer_id, method, body, timeout=timeout))
        except CallFailed as error:
            self.all.append(error)


def events_of(links: Links) -> list[str]:
    """A list that grows with what `links` tells of its peers."""
    events: list[str] = []
    links.on_up(lambda peer_id, member: events.append(f"{peer_id} up, {'member' if member else 'no member'}"))
    links.on_down(lambda peer_id: events.append(f"{peer_id} down"))
    links.on_unreachable(lambda peer_id: events.append(f"{peer_id} unreachable"))
    return events


# One link per pair


async def test_call_links_when_there_is_no_link() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER, member=False)
        b.serve("echo", echo)
        assert await a.call(LARGER, "echo", 1, timeout=5) == [SMALLER, 1]
        assert dict(a.linked_peers()) == {LARGER: False}
        assert dict(b.linked_peers()) == {SMALLER: True}


async def test_calls_go_both_ways_over_the_link_of_one_dial() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        a.serve("echo", echo)
        assert await a.ensure_link(LARGER, timeout=5) is True
        await wait_all_tasks_blocked()
        assert await b.call(SMALLER, "echo", "back", timeout=5) == [LARGER, "back"]
        assert network.diallers[LARGER].dialled == []


async def test_concurrent_calls_share_one_dial() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("echo", echo)
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(outcomes.call, a, LARGER, "echo", number)
        assert len(outcomes.all) == 50
        assert network.diallers[SMALLER].dialled == [LARGER]


async def test_of_links_opened_at_the_same_time_that_of_the_smaller_id_stays() -> None:
    async with memory_network() as network:
        links = {peer_id: await network.links(peer_id) for peer_id in (SMALLER, LARGER)}
        events = events_of(links[SMALLER])
        held = trio.Event()
        served: list[object] = []

        async def hold(caller: str, body: object) -> object:
            served.append(body)
            await held.wait()
            return body

        for peer in links.values():
            peer.serve("hold", hold)
        go = trio.Event()
        for dialler in network.diallers.values():
            dialler.before_dialling = go
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(outcomes.call, links[SMALLER], LARGER, "hold", number)
                nursery.start_soon(outcomes.call, links[LARGER], SMALLER, "hold", 100 + number)
            await wait_all_tasks_blocked()
            go.set()
            await wait_all_tasks_blocked()
            held.set()
        expected = sorted([*range(10), *range(100, 110)])
        assert sorted(served, key=str) == sorted(expected, key=str), "each call was executed once"
        assert sorted(outcomes.all, key=str) == sorted(expected, key=str)
        await wait_all_tasks_blocked()
        [survivor], [loser] = network.diallers[SMALLER].streams, network.diallers[LARGER].streams
        assert not survivor.was_reset
        assert loser.was_closed, "the loser was drained and closed"
        assert events == [f"{LARGER} up, member"]


@pytest.mark.parametrize("first", [SMALLER, LARGER])
async def test_calls_in_flight_on_the_losing_link_finish(first: str) -> None:
    """Whichever of the two is up first, calls on it outlive its replacement."""
    second = LARGER if first == SMALLER else SMALLER
    async with memory_network() as network:
        links = {peer_id: await network.links(peer_id) for peer_id in (SMALLER, LARGER)}
        held = trio.Event()

        async def hold(caller: str, body: object) -> object:
            await held.wait()
            return body

        for peer in links.values():
            peer.serve("hold", hold)
        go = network.diallers[second].before_dialling = trio.Event()
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.call, links[second], first, "hold", "late dial")
            await wait_all_tasks_blocked()
            nursery.start_soon(outcomes.call, links[first], second, "hold", "early dial")
            await wait_all_tasks_blocked()
            go.set()
            await wait_all_tasks_blocked()
            nursery.start_soon(outcomes.call, links[first], second, "hold", "after both")
            await wait_all_tasks_blocked()
            held.set()
        assert sorted(map(str, outcomes.all)) == ["after both", "early dial", "late dial"]
        await wait_all_tasks_blocked()
        [stays], [went] = network.diallers[SMALLER].streams, network.diallers[LARGER].streams
        assert not stays.was_closed
        assert went.was_closed


async def test_restarted_peer_is_down_and_up_again() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        events = events_of(a)
        await b.ensure_link(SMALLER, timeout=5)
        await wait_all_tasks_blocked()
        again = await network.links(LARGER, member=False)
        await again.ensure_link(SMALLER, timeout=5)
        await wait_all_tasks_blocked()
        assert events == [f"{LARGER} up, member", f"{LARGER} down", f"{LARGER} up, no member"]
        assert dict(a.linked_peers()) == {LARGER: False}


async def test_new_stream_replaces_a_link_that_was_up_for_a_while(autojump_clock: MockClock) -> None:
    """The other side lost it unnoticed; whoever opened which, it knows better."""
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("echo", echo)
        await a.ensure_link(LARGER, timeout=5)
        await trio.sleep(60)
        [old] = network.diallers[SMALLER].streams
        assert old.other is not None
        old.stall()
        old.other.lose()
        await wait_all_tasks_blocked(0.01)
        assert dict(b.linked_peers()) == {}
        assert dict(a.linked_peers()) == {LARGER: True}
        await b.ensure_link(SMALLER, timeout=5)
        await wait_all_tasks_blocked(0.01)
        assert await a.call(LARGER, "echo", 1, timeout=1) == [SMALLER, 1]


async def test_streams_of_one_peer_are_bounded() -> None:
    async with memory_network() as network:
        await network.links(SMALLER)
        dialler = network.dialler(LARGER)
        for _ in range(6):
            await dialler.open_stream(SMALLER, PROTOCOL)
        await wait_all_tasks_blocked()
        assert sorted(stream.was_reset for stream in dialler.streams) == [False] * 4 + [True] * 2


# Failing


async def test_unreachable_peer_fails_calls_and_is_told() -> None:
    async with memory_network() as network:
        a = await network.links(SMALLER)
        events = events_of(a)
        with pytest.raises(Unreachable, match="nobody is there"):
            await a.call(LARGER, "echo", 1, timeout=5)
        assert events == [f"{LARGER} unreachable"]
        assert a.statistics().dial_failures == 1
        network.dialler(LARGER)
        with pytest.raises(ProtocolNotSupported):
            await a.ensure_link(LARGER, timeout=5)
        assert events == [f"{LARGER} unreachable"], "it is there, and something else"


async def test_dial_that_hangs_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        a = await network.links(SMALLER)
        network.diallers[SMALLER].before_dialling = trio.Event()
        with pytest.raises(CallTimeout):
            await a.call(LARGER, "echo", 1, timeout=2)
        assert trio.current_time() == pytest.approx(2)
        with pytest.raises(Unreachable, match="longer than 5 s"):
            await a.call(LARGER, "echo", 1, timeout=20)
        assert trio.current_time() == pytest.approx(5), "the second call joined the first one's dial"


async def test_caller_that_gives_up_does_not_spoil_the_dial_of_others() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("echo", echo)
        go = network.diallers[SMALLER].before_dialling = trio.Event()
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as impatient:
                nursery.start_soon(outcomes.call, a, LARGER, "echo", "patient")
                await wait_all_tasks_blocked()
                impatient.cancel()
                await a.call(LARGER, "echo", "impatient", timeout=5)
            go.set()
        assert outcomes.all == [[SMALLER, "patient"]]


async def test_peer_that_speaks_something_else_on_our_protocol_is_a_protocol_error() -> None:
    async def teapot(peer_id: str, stream: ByteStream) -> None:
        await stream.write(b"HTTP/1.1 418 I'm a teapot\r\n\r\n")

    async with memory_network() as network:
        a = await network.links(SMALLER)
        network.dialler(LARGER).set_stream_handler(PROTOCOL, teapot)
        with pytest.raises(ProtocolError):
            await a.ensure_link(LARGER, timeout=5)
        assert a.statistics().malformed == 1
        assert a.statistics().links == 0


async def test_deadline_of_a_call_cancels_the_handler_too(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def hang(caller: str, body: object) -> object:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("hang", hang)
        with pytest.raises(CallTimeout):
            await a.call(LARGER, "hang", 1, timeout=3)
        await wait_all_tasks_blocked(0.01)
        assert ended == [pytest.approx(3)]


async def test_lost_link_is_told_and_the_next_call_makes_a_new_one() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("echo", echo)
        events = events_of(a)
        await a.ensure_link(LARGER, timeout=5)
        await network.diallers[SMALLER].disconnect(LARGER)
        await wait_all_tasks_blocked()
        assert dict(a.linked_peers()) == {}
        assert await a.call(LARGER, "echo", 1, timeout=5) == [SMALLER, 1]
        assert events == [f"{LARGER} up, member", f"{LARGER} down", f"{LARGER} up, member"]


async def test_lost_link_fails_its_calls_and_they_are_not_repeated() -> None:
    served: list[object] = []

    async def hang(caller: str, body: object) -> object:
        served.append(body)
        await trio.sleep_forever()

    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("hang", hang)
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(outcomes.call, a, LARGER, "hang", number)
            await wait_all_tasks_blocked()
            await network.diallers[SMALLER].disconnect(LARGER)
        assert [type(outcome) for outcome in outcomes.all] == [ConnectionLost] * 5
        assert sorted(map(str, served)) == ["0", "1", "2", "3", "4"]


async def test_own_bad_bodies_are_refused_without_dialling() -> None:
    async with memory_network(CallLimits(max_frame=1024)) as network:
        a = await network.links(SMALLER)
        with pytest.raises(BodyTooLarge):
            await a.call(LARGER, "echo", b"x" * 2000, timeout=5)
        with pytest.raises(FrameError):
            await a.call(LARGER, "echo", object(), timeout=5)
        assert network.diallers[SMALLER].dialled == []


async def test_peer_does_not_call_itself() -> None:
    async with memory_network() as network:
        a = await network.links(SMALLER)
        with pytest.raises(Unreachable, match="itself"):
            await a.call(SMALLER, "echo", 1, timeout=5)


# Beginning and end


async def test_method_is_served_once_and_has_a_name() -> None:
    async with memory_network() as network:
        links = await network.links(SMALLER)
        links.serve("echo", echo)
        for bad in ("echo", "", "x" * 129):
            with pytest.raises(ValueError, match="served already"):
                links.serve(bad, echo)


async def test_end_of_run_ends_links_and_dials_quietly() -> None:
    async with memory_network() as network:
        b = await network.links(LARGER)
        outcomes = CallEnds()
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                a = Links(network.dialler(SMALLER), network.settings, True)
                await nursery.start(a.run)
                await a.ensure_link(LARGER, timeout=5)
                network.diallers[SMALLER].before_dialling = trio.Event()
                network.nursery.start_soon(outcomes.call, a, "12D3KooWC", "echo", 1)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
        assert dict(a.linked_peers()) == {} == dict(b.linked_peers())
        assert [type(outcome) for outcome in outcomes.all] == [Unreachable]
        with pytest.raises(Unreachable, match="isn't running"):
            await a.call(LARGER, "echo", 1, timeout=5)
        assert {entry["log_level"] for entry in logs} <= {"debug"}


async def test_stream_that_comes_afterwards_is_reset() -> None:
    ours, theirs = memory_streams()
    async with memory_network() as network:
        async with trio.open_nursery() as nursery:
            await nursery.start(Links(network.dialler(SMALLER), network.settings, True).run)
            nursery.cancel_scope.cancel()
        await network.diallers[SMALLER].handlers[PROTOCOL](LARGER, ours)
        assert theirs.was_reset


async def test_end_of_the_connection_task_ends_its_link() -> None:
    async with memory_network() as network:
        a = await network.links(SMALLER)
        ours, theirs = memory_streams()
        async with trio.open_nursery() as connection:
            connection.start_soon(network.diallers[SMALLER].handlers[PROTOCOL], LARGER, ours)
            await theirs.write(encode(Hello(1, True, b"session1")))
            await wait_all_tasks_blocked()
            assert LARGER in a.linked_peers()
            connection.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert LARGER not in a.linked_peers()


async def test_statistics_count_what_went_over_links() -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER), await network.links(LARGER)
        b.serve("echo", echo)
        await a.call(LARGER, "echo", b"x" * 1000, timeout=5)
        with pytest.raises(CallFailed):
            await a.call(LARGER, "nothing", 1, timeout=5)
        ours, theirs = a.statistics(), b.statistics()
        assert (ours.links, ours.members, ours.calls_made, ours.calls_failed) == (1, 1, 2, 1)
        assert theirs.calls_served == 1
        assert theirs.bytes_received == ours.bytes_sent > 1000


# Links that nobody keeps


class Keeping:
    """Whom a peer keeps, as the tests say."""

    def __init__(self, *kept: str) -> None:
        self.kept = set(kept)

    def __call__(self, peer_id: str) -> bool:
        return peer_id in self.kept


def closings_of(links: Links) -> list[str]:
    """A list that grows with the peers whose links were closed on purpose."""
    closed: list[str] = []
    links.on_closed(closed.append)
    return closed


async def test_link_that_neither_keeps_is_closed_when_idle_and_is_no_loss(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        a = await network.links(SMALLER, keeps=Keeping())
        b = await network.links(LARGER, keeps=Keeping())
        events, closed, closed_there = events_of(a), closings_of(a), closings_of(b)
        await a.ensure_link(LARGER, timeout=5)
        await trio.sleep(599)
        assert a.is_linked(LARGER)
        await trio.sleep(1.5)
        assert not a.is_linked(LARGER)
        assert not b.is_linked(SMALLER)
        assert events == [f"{LARGER} up, member"], "a link that was closed on purpose tells nothing about its peer"
        assert (closed, closed_there) == ([LARGER], [SMALLER])
        [stream] = network.diallers[SMALLER].streams
        assert not stream.was_reset
        await trio.sleep(2)
        assert stream.was_reset, "its connection is closed afterwards"
        assert a.statistics().closed == 1


@pytest.mark.parametrize("keeper", [SMALLER, LARGER])
async def test_link_that_one_side_keeps_stays(keeper: str, autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        links = {
            peer_id: await network.links(peer_id, keeps=Keeping(*{SMALLER, LARGER} if peer_id == keeper else ()))
            for peer_id in (SMALLER, LARGER)
        }
        await links[SMALLER].ensure_link(LARGER, timeout=5)
        await trio.sleep(5000)
        assert links[SMALLER].is_linked(LARGER)
        assert network.diallers[SMALLER].dialled == [LARGER]


async def test_link_goes_when_its_keeper_lets_go(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        keeping = Keeping(LARGER)
        a, b = await network.links(SMALLER, keeps=keeping), await network.links(LARGER, keeps=Keeping())
        await a.ensure_link(LARGER, timeout=5)
        await trio.sleep(1000)
        keeping.kept.clear()
        a.note_keeping()
        await trio.sleep(1)
        assert not b.is_linked(SMALLER), "it had been idle for long"


async def test_link_in_use_is_held(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER, keeps=Keeping()), await network.links(LARGER, keeps=Keeping())
        await a.ensure_link(LARGER, timeout=5)
        a.hold(LARGER)
        a.hold("12D3KooWC")
        a.hold(LARGER)
        await trio.sleep(2000)
        a.release(LARGER)
        await trio.sleep(2000)
        assert b.is_linked(SMALLER)
        a.release(LARGER)
        await trio.sleep(1)
        assert not b.is_linked(SMALLER)


async def test_peers_with_many_links_are_asked_for_signs_of_life_more_rarely(autojump_clock: MockClock) -> None:
    async def bytes_in_ten_minutes(calls: CallLimits) -> int:
        async with memory_network(calls) as network:
            node = await network.links(SMALLER)
            clients = [await network.links(f"client {number}", member=False) for number in range(40)]
            for client in clients:
                await client.ensure_link(SMALLER, timeout=5)
            await trio.sleep(100)
            before = node.statistics().bytes_sent
            await trio.sleep(600)
            assert node.statistics().links == 40
            return node.statistics().bytes_sent - before

    for pings_per_second, asked in ((1000.0, 5.0), (4.0, 4.0), (1.0, 1.0)):
        pongs = 600 * asked * len(encode(Pong(int(40 / asked))))
        sent = await bytes_in_ten_minutes(CallLimits(pings_per_second=pings_per_second))
        assert sent == pytest.approx(pongs, rel=0.05)


async def test_calls_keep_a_link_open(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        a, b = await network.links(SMALLER, keeps=Keeping()), await network.links(LARGER, keeps=Keeping())
        release = trio.Event()

        async def hang(caller: str, body: object) -> object:
            await release.wait()
            return body

        b.serve("echo", echo)
        b.serve("hang", hang)
        for _ in range(10):
            await a.call(LARGER, "echo", 1, timeout=5)
            await trio.sleep(500)
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.call, a, LARGER, "hang", "long", 3000)
            await trio.sleep(2000)
            release.set()
        assert outcomes.all == ["long"]
        assert network.diallers[SMALLER].dialled == [LARGER]


async def test_call_while_the_link_ends_takes_a_new_one(autojump_clock: MockClock) -> None:
    """Whoever calls at whatever moment around the end of a link isn't told of it."""
    async with memory_network() as network:
        a, b = await network.links(SMALLER, keeps=Keeping()), await network.links(LARGER, keeps=Keeping())
        for links in (a, b):
            links.serve("echo", echo)
        losses = [*events_of(a), *events_of(b)]
        await a.ensure_link(LARGER, timeout=5)
        outcomes = CallEnds()

        async def call_at(links: Links, peer_id: str, moment: float, steps: int) -> None:
            await trio.sleep_until(moment)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await outcomes.call(links, peer_id, "echo", steps)

        moment = trio.current_time()
        async with trio.open_nursery() as nursery:
            for steps in range(0, 40, 2):
                moment += 700.0
                nursery.start_soon(call_at, *((a, LARGER) if steps % 4 else (b, SMALLER)), moment, steps)
        assert [outcome for outcome in outcomes.all if not isinstance(outcome, list)] == []
        assert losses == []


async def test_call_waits_for_the_answer_whether_the_link_may_end(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        network.settings = OverlaySettings(links=LinkLimits(idle_timeout=0.0, min_lifetime=0.0))
        keeping = Keeping(LARGER)
        a, b = await network.links(SMALLER, keeps=keeping), await network.links(LARGER, keeps=Keeping())
        b.serve("echo", echo)
        await a.ensure_link(LARGER, timeout=5)
        await trio.sleep(1)
        [stream] = network.diallers[SMALLER].streams
        assert stream.other is not None
        stream.other.stall()
        keeping.kept.clear()
        a.note_keeping()
        await trio.sleep(1)
        outcomes = CallEnds()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.call, a, LARGER, "echo", 1)
            await trio.sleep(1)
            assert network.diallers[SMALLER].dialled == [LARGER], "the call waits, and dials nobody"
            stream.other.may_write.set()
        assert outcomes.all == [[SMALLER, 1]]


async def test_peer_that_changes_its_mind_all_the_time_costs_a_few_looks(autojump_clock: MockClock) -> None:
    asked: list[float] = []

    def keeps(peer_id: str) -> bool:
        asked.append(trio.current_time())
        return False

    async with memory_network() as network:
        a = await network.links(SMALLER, keeps=keeps)
        ours, theirs = memory_streams()
        network.nursery.start_soon(network.diallers[SMALLER].handlers[PROTOCOL], LARGER, ours)
        await theirs.write(encode(Hello(0, True, b"session1")))
        await trio.sleep(1)
        asked.clear()
        await theirs.write(b"".join(encode(Keep(number % 2 == 0)) for number in range(20_000)))
        await trio.sleep(1)
        assert len(asked) <= 10
        assert a.is_linked(LARGER)


async def test_beyond_the_high_mark_free_links_are_closed_sooner(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        network.settings = OverlaySettings(links=LinkLimits(low_water=4, high_water=6, max_members=10))
        hub = await network.links(SMALLER, keeps=Keeping())
        for number in range(9):
            other = await network.links(f"{LARGER}{number}", keeps=Keeping())
            await other.ensure_link(SMALLER, timeout=5)
            await trio.sleep(0.1)  # so they may go one after the other, and those beyond the mark do
        await trio.sleep(5)
        assert set(hub.linked_peers()) == {f"{LARGER}{number}" for number in range(3, 9)}


# Places


def full_network(network: MemoryNetwork, **limits: int) -> None:
    network.settings = OverlaySettings(links=LinkLimits(**{"max_members": 2, "max_light_clients": 1, **limits}))


async def test_peer_for_whom_there_is_no_place_is_told_others(autojump_clock: MockClock) -> None:
    members = [Identity.generate().peer_id for _ in range(4)]
    async with memory_network() as network:
        full_network(network)
        hub = await network.links(members[0], keeps=Keeping())
        for member in members[1:3]:
            other = await network.links(member, keeps=Keeping(members[0]))
            await other.ensure_link(members[0], timeout=5)
            network.diallers[members[0]].add_addresses(member, [f"/ip4/127.0.0.1/tcp/{len(member)}"])
        events = events_of(hub)
        last = await network.links(members[3], keeps=Keeping(members[0]))
        last_events = events_of(last)
        with pytest.raises(PeerFull) as refused:
            await last.call(members[0], "echo", 1, timeout=5)
        assert set(refused.value.others) == set(members[1:3])
        assert network.diallers[members[3]].addresses.keys() == set(members[1:3])
        await trio.sleep(2)
        assert (events, last_events) == ([], []), "it was never up, and it isn't unreachable"
        assert hub.statistics().turned_away == 1


async def test_member_that_we_keep_always_has_a_place(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        full_network(network)
        hub = await network.links(SMALLER, keeps=Keeping(f"{LARGER}9"))
        for number in (1, 2, 9):
            other = await network.links(f"{LARGER}{number}")
            await other.ensure_link(SMALLER, timeout=5)
        assert len(hub.linked_peers()) == 3


async def test_light_clients_have_places_of_their_own(autojump_clock: MockClock) -> None:
    async with memory_network() as network:
        full_network(network)
        hub = await network.links(SMALLER, keeps=Keeping())
        light, another = [await network.links(f"{LARGER}{name}", member=False) for name in ("light", "another")]
        await light.ensure_link(SMALLER, timeout=5)
        with pytest.raises(PeerFull):
            await another.ensure_link(SMALLER, timeout=5)
        for number in range(2):
            await (await network.links(f"{LARGER}{number}")).ensure_link(SMALLER, timeout=5)
        assert hub.statistics().links == 3
        await light.ensure_link(SMALLER, timeout=5)


async def test_places_that_are_being_taken_count(autojump_clock: MockClock) -> None:
    """Many that come at once don't all find the last place."""
    async with memory_network() as network:
        full_network(network)
        hub = await network.links(SMALLER, keeps=Keeping())
        newcomers = [await network.links(f"{LARGER}{number}") for number in range(20)]
        outcomes: list[bool] = []

        async def come(links: Links) -> None:
            try:
                outcomes.append(await links.ensure_link(SMALLER, timeout=5))
            except PeerFull:
                outcomes.append(False)

        async with trio.open_nursery() as nursery:
            for links in newcomers:
                nursery.start_soon(come, links)
        assert outcomes.count(True) == 2 == hub.statistics().members
