"""Peers that speak a newer minor version of the protocol than this one: what they say more is passed over."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from overlay.errors import CallFailed, CallRefused, ConnectionLost
from overlay.rpc.framing import encode_frame, encode_item
from overlay.rpc.link_state import Cause
from overlay.rpc.product import PeerVersion
from overlay.rpc.protocol import Failed, Hello, Reason, Refused, Request, Response, Unknown, parse
from overlay.rpc.server import Handler
from overlay.settings import OverlaySettings
from tests.unit.overlay.memory_network import LARGER, SMALLER, MemoryStream, memory_network
from tests.unit.overlay.rpc.test_link import Remote, echo, linked

PROTOCOL = OverlaySettings().protocol_id
NEWER_HELLO = [0, 7, True, b"session1", b"", 0, "aqua-registry/9.9", ["a certificate"], {"expired_age": 86400}]


@pytest.mark.parametrize(
    "known",
    [
        [0, 0, True, b"session1", b"", 0, "aqua-registry/0.1.0"],
        [1, 5, "echo", b"\xf6", 1000, b""],
        [2, 5, b"\xf6"],
        [3, 5, "full", "no more", 500],
        [4, 5],
        [5],
        [6, 8],
        [7, 3, [], ""],
        [7, 4, [["12D3KooWA", ["/ip4/127.0.0.1/tcp/1"]]], ""],
        [8, 5, 1, 500],
        [9, True],
        [10],
    ],
)
def test_fields_after_the_known_ones_are_ignored(known: list[object]) -> None:
    assert parse([*known, "new", [1, 2]]) == parse(known) != Unknown()


@pytest.mark.parametrize("trace", ["new", 7, [1, 2], None, b"short", b"long" * 100])
def test_a_request_with_something_else_in_place_of_a_trace_is_served(trace: object) -> None:
    request = parse([1, 5, "echo", b"\xf6", 1000, trace])
    assert isinstance(request, Request)
    assert request.method == "echo"


def test_fields_of_a_referral_after_the_known_ones_are_ignored() -> None:
    assert parse([7, 4, [["12D3KooWA", ["/a"], "new"]]]) == parse([7, 4, [["12D3KooWA", ["/a"]]]])


def test_bye_of_a_peer_that_gives_no_reason_has_none() -> None:
    assert parse([7]) == parse([7, 0, []]) == parse([7, 0, [], ""])


def test_hello_of_a_peer_that_knows_no_private_networks_shows_nothing() -> None:
    assert parse([0, 0, True, b"session1"]) == Hello(0, True, b"session1", b"", 0)


@pytest.mark.parametrize("code", [7, 99, 2**60])
def test_unknown_reasons_are_taken_as_other(code: int) -> None:
    bye = parse([7, code])
    assert getattr(bye, "reason", None) is Reason.OTHER


def test_longer_waits_than_a_day_are_taken_as_a_day() -> None:
    request = parse([1, 5, "echo", b"", 10**15])
    assert isinstance(request, Request)
    assert request.timeout_seconds == 24 * 3600


async def test_hello_with_new_fields_is_a_hello() -> None:
    async with linked(handlers={"echo": echo}, hello=False) as pair:
        await pair.remote.stream.write(encode_frame(NEWER_HELLO))
        await pair.remote.say(Request(1, "echo", encode_item(None), 1000))
        assert isinstance(await pair.remote.hear(), Hello)
        assert await pair.remote.hear() == Response(1, encode_item([LARGER, None]))


@pytest.mark.parametrize(("theirs", "expected"), [(0, 0), (1, 1), (7, 1)])
async def test_the_lower_minor_version_is_used(theirs: int, expected: int) -> None:
    async with linked(hello=False) as pair:
        await pair.remote.stream.write(encode_frame([0, theirs, True, b"session1"]))
        await wait_all_tasks_blocked()
        assert pair.link.minor == expected, "our own hello in these tests says 1"


async def test_frames_of_unknown_kinds_are_ignored() -> None:
    async with linked(handlers={"echo": echo}) as pair:
        await pair.remote.stream.write(encode_frame([60, "new"]) + encode_frame([2**40]))
        await pair.remote.say(Request(1, "echo", encode_item(None), 1000))
        assert await pair.remote.hear() == Response(1, encode_item([LARGER, None]))
        assert not pair.link.loss


async def test_frame_of_an_unknown_kind_is_no_greeting() -> None:
    async with linked(hello=False) as pair:
        await pair.remote.stream.write(encode_frame([60, "new"]))
        await pair.link.wait_ended()
        assert pair.link.cause is Cause.BROKE_PROTOCOL


@pytest.mark.parametrize("fault", [7, 99, 2**60])
async def test_unknown_faults_are_taken_as_failed(fault: int) -> None:
    async with linked() as pair:
        pair.nursery.start_soon(pair.call)
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        await pair.remote.say(Failed(asked.id, fault))
        await wait_all_tasks_blocked()
        assert [type(error) for error in pair.outcomes] == [CallFailed]
        assert not pair.link.loss


async def test_longer_texts_of_refusals_are_cut() -> None:
    async with linked() as pair:
        pair.nursery.start_soon(pair.call)
        asked = await pair.remote.hear()
        assert isinstance(asked, Request)
        await pair.remote.say(Refused(asked.id, "full", "x" * 5000))
        await wait_all_tasks_blocked()
        [error] = pair.outcomes
        assert isinstance(error, CallRefused)
        assert (error.code, len(error.message)) == ("full", 1024)


async def test_links_of_different_minor_versions_carry_calls_both_ways() -> None:
    """A whole peer of today, and one of an invented tomorrow, over a stream in memory."""
    answers: list[object] = []

    async def newer(peer_id: str, stream: MemoryStream) -> None:
        remote = Remote(stream)
        await stream.write(encode_frame(NEWER_HELLO) + encode_frame([42, "a kind of tomorrow"]))
        assert isinstance(await remote.hear(), Hello)
        asked = await remote.hear()
        assert isinstance(asked, Request)
        await stream.write(encode_frame([2, asked.id, asked.body, "took", 3]))
        await stream.write(encode_frame([1, 9, "echo", encode_item("theirs"), 1000, "a trace"]))
        answers.append(await remote.hear())

    async with memory_network() as network:
        ours = await network.links(SMALLER)
        ours.serve("echo", echo)
        network.dialler(LARGER).set_stream_handler(PROTOCOL, newer)  # type: ignore[arg-type]
        assert await ours.call(LARGER, "echo", "ours", timeout=5) == "ours"
        assert ours.minor_version(LARGER) == 0
        assert ours.version_of(LARGER) == PeerVersion("aqua-registry/9.9", "3.7"), "what it said, for people"
        await wait_all_tasks_blocked()
        assert answers == [Response(9, encode_item([LARGER, "theirs"]))]
        assert ours.minor_version("12D3KooWC") is None
        assert ours.version_of("12D3KooWC") is None


# A link that ends says why


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (2, "the peer is stopping"),
        (4, "the peer has no place for another link"),
        (5, "the peer says that we broke the protocol"),
    ],
)
async def test_call_that_a_bye_ends_says_why(code: int, why: str) -> None:
    async with linked() as pair:
        pair.nursery.start_soon(pair.call)
        await wait_all_tasks_blocked()
        await pair.remote.stream.write(encode_frame([7, code]))
        await wait_all_tasks_blocked()
        [error] = pair.outcomes
        assert isinstance(error, ConnectionLost)
        assert why in str(error)


async def test_peer_that_stops_says_so() -> None:
    async def hang(caller: str, body: object) -> object:
        await trio.sleep_forever()

    handlers: dict[str, Handler] = {"echo": hang}
    async with linked(handlers=handlers) as pair:
        await pair.remote.say(Request(1, "echo", encode_item(None), 1000))
        await wait_all_tasks_blocked()
        pair.nursery.start_soon(pair.remote.say_goodbye)
        pair.link_scope.cancel()
        await pair.link.wait_ended()
        await wait_all_tasks_blocked()
        assert pair.remote.received[-1] == parse([7, 2, []])
        assert not pair.stream.was_reset, "a reset might overtake what was said"


async def test_peer_that_does_not_read_its_goodbye_does_not_hold_up_the_end(autojump_clock: object) -> None:
    async with linked() as pair:
        pair.stream.stall()
        started = trio.current_time()
        pair.link_scope.cancel()
        await pair.ended.wait()
        assert trio.current_time() - started == pytest.approx(1.0)
        assert pair.stream.was_reset
