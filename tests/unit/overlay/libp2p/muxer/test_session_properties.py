"""Two sessions over a pipe, in any order, against what was written; and peers that keep no rule."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from overlay.libp2p.muxer.session import MOST_ANSWERS, MOST_GROWTH, MOST_INBOUND, MOST_UNREAD, YamuxSession
from overlay.libp2p.muxer.session_end import SessionEnded
from overlay.libp2p.muxer.stream_state import WINDOW, StreamState
from tests.unit.overlay.libp2p.muxer.frames import frame

BOTH = (0, 1)
PIECE = 64 * 1024
PATTERN = bytes(range(251)) * 2000


@dataclass(eq=False)
class End:
    """One side's end of a stream, and what it wrote and read."""

    side: int
    state: StreamState
    written: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    finished: bool = False


class TwoSessions(RuleBasedStateMachine):
    """Whatever is written on a stream that nobody resets arrives whole and in order, and then its end."""

    ends = Bundle("ends")

    def __init__(self) -> None:
        super().__init__()
        self.sessions = [YamuxSession(initiator=True), YamuxSession(initiator=False)]
        self.wires = [bytearray(), bytearray()]  # to each side
        self.pairs: dict[int, list[End | None]] = {}
        self.reset: set[int] = set()

    @rule(target=ends, side=st.sampled_from(BOTH))
    def open(self, side: int) -> End:
        end = End(side, self.sessions[side].open())
        self.pairs[end.state.id] = [None, None]
        self.pairs[end.state.id][side] = end
        return end

    @rule(end=ends, size=st.integers(1, WINDOW + PIECE), salt=st.integers(0, 250))
    def write(self, end: End, size: int, salt: int) -> None:
        payload = PATTERN[salt : salt + size]
        while sent := self.sessions[end.side].send(end.state, payload):
            end.written += payload[:sent]
            payload = payload[sent:]

    @rule(end=ends, most=st.integers(1, 2 * WINDOW))
    def read(self, end: End, most: int) -> None:
        if end.state.unread:
            piece = self.sessions[end.side].read(end.state, most)
            assert 0 < len(piece) <= most
            other = self.pairs[end.state.id][1 - end.side]
            assert other is not None
            assert other.written[len(end.read) : len(end.read) + len(piece)] == piece
            end.read += piece

    @rule(end=ends)
    def finish(self, end: End) -> None:
        self.sessions[end.side].finish(end.state)
        end.finished = True

    @rule(end=consumes(ends))
    def drop(self, end: End) -> None:
        self.sessions[end.side].reset(end.state)
        self.reset.add(end.state.id)

    @rule(side=st.sampled_from(BOTH))
    def ping(self, side: int) -> None:
        self.sessions[side].ping()

    @rule(side=st.sampled_from(BOTH), most=st.integers(1, 4 * PIECE))
    def send(self, side: int, most: int) -> None:
        self._send(side, most)

    @rule(target=ends, side=st.sampled_from(BOTH), count=st.integers(1, 4 * PIECE))
    def deliver(self, side: int, count: int) -> object:
        return multiple(*self._deliver(side, count))

    @invariant()
    def bounds_hold(self) -> None:
        for session in self.sessions:
            assert session.unread == sum(stream.unread for stream in session.streams.values()) <= MOST_UNREAD
            for stream in session.streams.values():
                assert stream.unread + stream.window <= WINDOW + MOST_GROWTH
                assert stream.send_window >= 0
            windows = sum(max(stream.unread + stream.window - WINDOW, 0) for stream in session.streams.values())
            assert windows <= MOST_GROWTH
            assert session.unanswered == sum(not stream.answered for stream in session.streams.values())

    def teardown(self) -> None:
        """Deliver and read all that is under way; then what was written was read."""
        while any(self.wires) or any(session.has_output for session in self.sessions):
            for side in BOTH:
                self._send(side, PIECE)
                self._deliver(side, PIECE)
            for end in [end for pair in self.pairs.values() for end in pair if end is not None]:
                while end.state.unread:
                    self.read(end, PIECE)
        for first, second in self.pairs.values():
            if first is None or second is None or first.state.id in self.reset:
                continue
            for writer, reader in ((first, second), (second, first)):
                assert reader.read == writer.written
                assert reader.state.peer_finished == writer.finished
                assert not reader.state.was_reset
            assert first.state.forgotten == (first.finished and second.finished)
        assert all(session.unanswered == 0 for session in self.sessions)

    def _send(self, side: int, most: int) -> None:
        had_output = self.sessions[side].has_output
        output = self.sessions[side].take_output(most)
        assert output or not had_output, "an empty message ends a connection over a WebSocket"
        self.wires[1 - side] += output

    def _deliver(self, side: int, count: int) -> list[End]:
        wire = self.wires[side]
        piece = bytes(wire[:count])
        del wire[:count]
        self.sessions[side].receive(piece)
        opened = [End(side, state) for state in self.sessions[side].take_opened()]
        for end in opened:
            self.pairs[end.state.id][side] = end
        return opened


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(stateful_step_count=30)

hostile_frames = st.builds(
    frame,
    kind=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4]),
    flags=st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5, 8, 9, 15, 0xFFFF]),
    stream=st.sampled_from([0, 1, 1, 2, 3, 5, 7, 0xFFFFFFFF]),
    value=st.sampled_from([0, 1, 12, 500, 5000, 70_000, WINDOW, WINDOW + 1, 0xFFFFFFFF]),
    version=st.sampled_from([0] * 30 + [1]),
)
hostile_bytes = st.lists(st.one_of(hostile_frames, st.binary(max_size=40), st.just(bytes(20_000))), max_size=60)


@pytest.mark.parametrize("initiator", [True, False])
@given(pieces=hostile_bytes, cut=st.integers(1, 50_000), acts=st.lists(st.integers(0, 6), max_size=60))
def test_whatever_a_peer_sends_ends_the_session_or_stays_within_its_bounds(
    initiator: bool, pieces: list[bytes], cut: int, acts: list[int]
) -> None:
    session = YamuxSession(initiator=initiator)
    streams = [session.open()]
    were_read: list[StreamState] = []
    received = b"".join(pieces)
    with suppress(SessionEnded):
        for start in range(0, len(received), cut):
            session.receive(received[start : start + cut])
            while session.behind:
                session.receive(b"")
            streams += session.take_opened()
            if acts:
                stream = streams[acts[0] % len(streams)]
                were_read.append(stream)
                act(session, stream, acts.pop())
            assert session.unread == sum(stream.unread for stream in session.streams.values()) <= MOST_UNREAD
            assert session.inbound <= MOST_INBOUND
            assert session.waiting <= MOST_ANSWERS + 2 * PIECE
            assert all(stream.unread <= WINDOW for stream in streams if stream not in were_read)
            assert all(stream.unread <= WINDOW + MOST_GROWTH for stream in streams)


def act(session: YamuxSession, stream: StreamState, what: int) -> None:
    """Something that this side does meanwhile."""
    match what:
        case 0 if stream.unread:
            assert session.read(stream, 1000)
        case 1:
            session.finish(stream)
        case 2:
            session.leave(stream)
        case 3:
            session.reset(stream)
        case 4:
            session.sweep()
        case 5:
            session.send(stream, bytes(100))
        case _:
            had_output = session.has_output
            assert session.take_output(1000) or not had_output
