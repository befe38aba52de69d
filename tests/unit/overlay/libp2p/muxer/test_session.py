"""The rules of a yamux session, one by one."""

from __future__ import annotations

import tracemalloc

import pytest

from overlay.libp2p.muxer.session import (
    MOST_ANSWERS,
    MOST_FRAMES,
    MOST_GROWTH,
    MOST_INBOUND,
    MOST_PAYLOAD,
    MOST_UNREAD,
    YamuxSession,
)
from overlay.libp2p.muxer.session_end import EndCode, SessionEnded
from overlay.libp2p.muxer.stream_state import WINDOW, StreamState
from tests.unit.overlay.libp2p.muxer.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Sent,
    data,
    frame,
    parsed,
)

EVERYTHING = 1 << 40


def output(session: YamuxSession) -> list[Sent]:
    return parsed(session.take_output(EVERYTHING))


def listening() -> YamuxSession:
    """The side that was dialled: the peer's streams have odd numbers."""
    return YamuxSession(initiator=False)


def take_in(session: YamuxSession, received: bytes) -> None:
    """Take in any number of frames."""
    session.receive(received)
    while session.behind:
        session.receive(b"")


def opened_by_peer(session: YamuxSession, stream_id: int = 1) -> StreamState:
    session.receive(frame(WINDOW_UPDATE, SYN, stream_id))
    [stream] = session.take_opened()
    return stream


def ended(session: YamuxSession, received: bytes) -> EndCode:
    with pytest.raises(SessionEnded) as caught:
        take_in(session, received)
    return caught.value.code


def test_a_stream_is_opened_answered_written_and_ended_in_order() -> None:
    session = YamuxSession(initiator=True)
    stream = session.open()
    assert session.unanswered == 1
    assert session.send(stream, b"hello") == 5
    session.finish(stream)
    assert output(session) == [
        Sent(WINDOW_UPDATE, SYN, 1, 0),
        Sent(DATA, 0, 1, 5, b"hello"),
        Sent(WINDOW_UPDATE, FIN, 1, 0),
    ]
    assert session.receive(data(1, b"hi", ACK | FIN)) != []
    assert session.unanswered == 0
    assert session.read(stream, 100) == b"hi"
    assert stream.peer_finished
    assert stream.forgotten
    assert session.streams == {}


def test_any_word_of_the_peer_answers_a_stream() -> None:
    session = YamuxSession(initiator=True)
    session.open()
    session.receive(frame(WINDOW_UPDATE, 0, 1, 100))
    assert session.unanswered == 0


@pytest.mark.parametrize("first", [WINDOW, WINDOW - 1])
def test_more_than_a_window_ends_the_session(first: int) -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.receive(data(1, bytes(first)))
    assert (stream.unread, stream.window) == (first, WINDOW - first)
    assert ended(session, data(1, bytes(WINDOW - first + 1))) is EndCode.WINDOW_EXCEEDED


def test_a_frame_larger_than_any_window_is_refused_before_it_came() -> None:
    session = listening()
    opened_by_peer(session)
    assert ended(session, frame(DATA, 0, 1, WINDOW + 1)) is EndCode.WINDOW_EXCEEDED
    assert ended(listening(), frame(DATA, 0, 77, WINDOW + MOST_GROWTH + 1)) is EndCode.WINDOW_EXCEEDED


def test_what_was_read_is_told_along_from_a_quarter_on_and_alone_from_three_eighths_on() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.take_output(EVERYTHING)
    session.receive(data(1, bytes(WINDOW)))
    session.read(stream, WINDOW // 4 - 1)
    session.ping()
    assert [sent.kind for sent in output(session)] == [PING]
    session.read(stream, 1)
    assert not session.has_output
    session.ping()
    assert output(session) == [Sent(PING, SYN, 0, 2), Sent(WINDOW_UPDATE, 0, 1, WINDOW // 4)]
    assert session.read(stream, WINDOW * 3 // 8) == bytes(WINDOW * 3 // 8)
    assert session.has_output
    assert output(session) == [Sent(WINDOW_UPDATE, 0, 1, WINDOW * 3 // 8)]
    assert stream.window == WINDOW * 5 // 8


@pytest.mark.parametrize(("end", "others_reads"), [(FIN, 0), (RST, 0), (FIN, WINDOW // 4)])
def test_the_window_of_a_stream_that_its_peer_ended_is_no_output(end: int, others_reads: int) -> None:
    """There may be nothing else: an empty message of a WebSocket ends the connection on the other side."""
    session = listening()
    stream, other = opened_by_peer(session, 1), opened_by_peer(session, 3)
    session.receive(data(1, bytes(WINDOW)) + data(3, bytes(WINDOW)))
    session.take_output(EVERYTHING)
    session.read(stream, WINDOW)
    if others_reads:
        session.read(other, others_reads)
    assert session.has_output
    session.receive(frame(WINDOW_UPDATE, end, 1))
    assert session.has_output == bool(others_reads)
    assert output(session) == [Sent(WINDOW_UPDATE, 0, 3, others_reads)][: others_reads > 0]


def fill_and_read(session: YamuxSession, stream: StreamState, *, leave: int = 0) -> None:
    """Have the peer use its whole window, and read it but for some bytes."""
    session.receive(data(stream.id, bytes(stream.window)))
    session.read(stream, stream.unread - leave)
    session.take_output(EVERYTHING)


def test_the_window_of_what_is_read_as_it_comes_grows_up_to_a_bound_for_all_streams() -> None:
    session = listening()
    one, other = opened_by_peer(session, 1), opened_by_peer(session, 3)
    windows = []
    for _ in range(5):
        fill_and_read(session, one)
        windows.append(one.window // WINDOW)
    assert windows == [2, 4, 8, 9, 9]
    fill_and_read(session, other)
    assert other.window == WINDOW
    session.receive(frame(WINDOW_UPDATE, RST, 1))
    fill_and_read(session, other)
    assert other.window == 2 * WINDOW


def test_the_window_of_what_waits_to_be_read_stays() -> None:
    session = listening()
    stream = opened_by_peer(session)
    for _ in range(5):
        fill_and_read(session, stream, leave=1)
        assert stream.unread + stream.window == WINDOW


def test_the_peers_window_is_kept_and_frames_are_bounded() -> None:
    session = YamuxSession(initiator=True)
    stream = session.open()
    payload = bytes(WINDOW + 1)
    sizes = []
    while sent := session.send(stream, payload):
        payload = payload[sent:]
        sizes.append(sent)
    assert sum(sizes) == WINDOW
    assert max(sizes) == MOST_PAYLOAD
    session.receive(frame(WINDOW_UPDATE, ACK, 1, 5))
    assert session.send(stream, bytes(10)) == 5


def test_a_window_that_overflows_ends_the_session() -> None:
    session = listening()
    opened_by_peer(session)
    assert ended(session, frame(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF)) is EndCode.WINDOW_OVERFLOW


def test_a_stream_in_frames_of_one_byte_costs_little_more_than_it_holds() -> None:
    session = listening()
    opened_by_peer(session)
    received = data(1, b"x") * 5000
    for _ in range(40):
        take_in(session, received)
    tracemalloc.start()
    try:
        for _ in range(10):
            take_in(session, received)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert session.unread == 250_000
    assert held < 100_000


def test_of_too_much_unread_the_fullest_stream_is_reset() -> None:
    session = listening()
    full = WINDOW - 1000
    numbers = range(1, 2 * (MOST_UNREAD // full) + 1, 2)
    for number in numbers:
        session.receive(frame(WINDOW_UPDATE, SYN, number) + data(number, bytes(full)))
    assert session.unread <= MOST_UNREAD
    fullest = session.streams[5]
    session.receive(data(5, bytes(1000)))
    session.take_output(EVERYTHING)
    session.receive(frame(WINDOW_UPDATE, SYN, 1001) + data(1001, bytes(WINDOW)))
    assert fullest.was_reset
    assert session.unread <= MOST_UNREAD
    assert Sent(WINDOW_UPDATE, RST, 5, 0) in output(session)
    assert len(session.streams) == len(numbers)


def test_streams_beyond_the_bound_are_reset_and_their_data_dropped() -> None:
    session = listening()
    numbers = range(1, 2 * MOST_INBOUND, 2)
    session.receive(b"".join(frame(WINDOW_UPDATE, SYN, number) for number in numbers))
    assert len(session.take_opened()) == MOST_INBOUND
    session.take_output(EVERYTHING)
    session.receive(data(1001, b"too much", SYN) + data(1001, b"more"))
    assert output(session) == [Sent(WINDOW_UPDATE, RST, 1001, 0)]
    assert (session.take_opened(), session.unread) == ([], 0)
    session.receive(frame(WINDOW_UPDATE, RST, 1) + frame(WINDOW_UPDATE, SYN, 1003))
    assert [stream.id for stream in session.take_opened()] == [1003]


@pytest.mark.parametrize("stream_id", [0, 1, 2, 8])
def test_a_number_that_is_taken_or_ours_cannot_be_opened(stream_id: int) -> None:
    session = listening()
    opened_by_peer(session)
    assert ended(session, frame(DATA, SYN, stream_id)) is EndCode.BAD_STREAM


@pytest.mark.parametrize("received", [frame(4), frame(255), frame(DATA, version=1), b"GET / HTTP/1.1\r\n"])
def test_frames_that_do_not_exist_end_the_session(received: bytes) -> None:
    assert ended(listening(), received) is EndCode.BAD_FRAME


@pytest.mark.parametrize(("code", "end"), [(0, EndCode.LEFT), (1, EndCode.REFUSED), (4101, EndCode.REFUSED)])
def test_a_peer_that_goes_away_ends_the_session(code: int, end: EndCode) -> None:
    assert ended(listening(), frame(GO_AWAY, 0, 0, code)) is end


def test_pings_are_answered_before_data() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.take_output(EVERYTHING)
    session.send(stream, bytes(50_000))
    session.send(stream, b"rest")
    session.receive(frame(PING, SYN, 0, 7))
    assert parsed(session.take_output(1000)) == [Sent(PING, ACK, 0, 7), Sent(DATA, 0, 1, 50_000, bytes(50_000))]
    session.receive(frame(PING, SYN, 0, 8))
    assert output(session) == [Sent(PING, ACK, 0, 8), Sent(DATA, 0, 1, 4, b"rest")]
    assert not session.has_output
    session.receive(frame(PING, ACK, 0, 7))
    assert not session.has_output


def test_many_frames_are_taken_in_bit_by_bit() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.receive(data(1, b"x") * (2 * MOST_FRAMES + 1) + frame(PING)[:5])
    assert (stream.unread, session.behind) == (MOST_FRAMES, True)
    session.receive(b"")
    assert (stream.unread, session.behind) == (2 * MOST_FRAMES, True)
    session.receive(frame(PING)[5:] + data(1, b"y"))
    assert session.read(stream, EVERYTHING) == b"x" * (2 * MOST_FRAMES + 1) + b"y"
    assert not session.behind


def test_a_peer_that_reads_no_answers_is_left() -> None:
    session = listening()
    pings = frame(PING, SYN) * 1000
    for _ in range(MOST_ANSWERS // len(pings)):
        take_in(session, pings)
    assert ended(session, pings) is EndCode.UNREAD_ANSWERS


def test_a_peer_that_has_its_streams_reset_and_reads_nothing_is_left() -> None:
    session = listening()

    def have_streams_reset() -> None:
        for number in range(1, 20_001, 2):
            session.reset(opened_by_peer(session, number))

    with pytest.raises(SessionEnded, match="doesn't read"):
        have_streams_reset()
    assert session.waiting < 2 * MOST_ANSWERS


def test_what_is_under_way_to_a_stream_that_was_reset_is_dropped() -> None:
    session = listening()
    stream = opened_by_peer(session)
    whole = data(1, b"under way")
    session.receive(whole[:15])
    assert session.unread == 3
    session.reset(stream)
    assert (stream.was_reset, stream.unread, session.unread) == (True, 0, 0)
    session.receive(whole[15:] + data(1, b"more") + frame(WINDOW_UPDATE, RST, 1))
    assert (session.unread, session.streams) == (0, {})
    assert [sent for sent in output(session) if sent.flags == RST] == [Sent(WINDOW_UPDATE, RST, 1, 0)]


def test_a_reset_by_the_peer_is_told_and_what_came_is_dropped() -> None:
    session = listening()
    stream = opened_by_peer(session)
    assert session.receive(data(1, b"half of it", RST))[-1] is stream
    assert (stream.was_reset, stream.unread, session.unread) == (True, 0, 0)
    assert session.send(stream, b"too late") == 0


def test_a_half_closed_stream_still_takes_and_gives() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.receive(data(1, b"question", FIN))
    session.take_output(EVERYTHING)
    assert session.read(stream, 100) == b"question"
    assert session.send(stream, b"answer") == 6
    session.finish(stream)
    session.finish(stream)
    assert output(session) == [Sent(DATA, 0, 1, 6, b"answer"), Sent(WINDOW_UPDATE, FIN, 1, 0)]
    assert stream.forgotten


def test_data_after_the_end_are_dropped() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.receive(data(1, b"all", FIN) + data(1, b"and more"))
    assert session.read(stream, 100) == b"all"
    assert session.unread == 0


def test_a_stream_that_was_left_is_reset_at_the_second_sweep_unless_its_peer_ends_it() -> None:
    session = listening()
    lingering, ending, used = (opened_by_peer(session, number) for number in (1, 3, 5))
    session.leave(lingering)
    session.leave(ending)
    session.finish(used)
    assert session.sweep() == []
    session.receive(frame(WINDOW_UPDATE, FIN, 3))
    assert session.sweep() == [lingering]
    assert lingering.was_reset
    assert ending.forgotten
    assert not ending.was_reset
    assert list(session.streams.values()) == [used]


def test_bytes_of_an_ended_stream_that_nobody_reads_are_dropped_at_the_second_sweep() -> None:
    session = listening()
    stream = opened_by_peer(session)
    session.receive(data(1, b"unread", FIN))
    session.finish(stream)
    session.take_output(EVERYTHING)
    session.sweep()
    assert session.unread == 6
    assert session.sweep() == [stream]
    assert (session.unread, session.streams, session.has_output) == (0, {}, False)


def test_goodbye_comes_last() -> None:
    session = YamuxSession(initiator=True)
    stream = session.open()
    session.send(stream, b"bye")
    session.go_away(fault=False)
    assert [sent.kind for sent in output(session)] == [WINDOW_UPDATE, DATA, GO_AWAY]
