"""yamux (`/yamux/1.0.0`) without I/O: what comes from the peer goes in, what changed and what is to be sent comes out.

Rules:
1. A peer may send 256 KiB on a stream before we read; more ends the session. What was read is told with what is sent
   anyway, from a quarter of the window on, and by itself from three eighths of it on. Each time that a whole window was
   read, and nothing waits, the window doubles, so that long ways don't slow down what is read as it comes; all streams
   together have at most `MOST_GROWTH` more that way.
2. What nobody read costs at most `MOST_UNREAD` in a session: beyond it the stream with most of it is reset.
3. A peer has at most `MOST_INBOUND` streams open; further ones are reset. Of ours at most `MOST_UNANSWERED` wait for
   its first word: whoever drives the session opens none until then.
4. What a peer makes us say, and doesn't read, is bounded by `MOST_ANSWERS`: then the session ends.
5. At most `MOST_FRAMES` are taken in at once, whatever their size: the rest when its driver comes back.
6. Answers, pings and windows go before data. What is said on one stream keeps its order.
7. A stream that ended both ways, or that was closed here, lives until its bytes are read and the peer ended its
   direction, but for at most two sweeps.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from overlay.libp2p.muxer.session_end import EndCode, SessionEnded
from overlay.libp2p.muxer.stream_state import WINDOW, StreamState

PROTOCOL_ID: Final = "/yamux/1.0.0"
MOST_GROWTH: Final = 2 * 1024 * 1024
"""Bytes by which the windows of all streams of a session may grow together."""

MOST_PAYLOAD: Final = 64 * 1024 - 12
"""Bytes of data in a frame of ours."""

MOST_INBOUND: Final = 256
MOST_UNANSWERED: Final = 256
MOST_UNREAD: Final = 4 * 1024 * 1024
MOST_ANSWERS: Final = 64 * 1024
MOST_FRAMES: Final = 512

_HEADER: Final = struct.Struct("!BBHII")
_HEADER_BYTES: Final = 12
_DATA, _WINDOW, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_ENDS: Final = _FIN | _RST
_LARGEST_WINDOW: Final = 0xFFFFFFFF
_NOTHING: Final = b""


class YamuxSession:
    """One side of a connection's streams. Nothing that the peer sends raises anything but `SessionEnded`."""

    def __init__(self, *, initiator: bool) -> None:
        """`initiator`: whether we made the connection; this side's streams have odd numbers."""
        self._next_id = 1 if initiator else 2
        self._peers_parity = 0 if initiator else 1
        self.streams: dict[int, StreamState] = {}
        self.inbound = 0
        """Streams that the peer opened."""
        self.unanswered = 0
        """Streams of ours on which the peer hasn't said anything."""
        self.unread = 0
        """Bytes of all streams that came and weren't read."""
        self.waiting = 0
        """Bytes that are to be sent."""
        self.behind = False
        """Whether more came than was taken in: `receive(b"")` goes on."""
        self._opened: list[StreamState] = []
        self._answers = bytearray()
        self._frames: deque[bytes | memoryview] = deque()
        self._headers = 0  # bytes of frames without data among `_frames`
        self._owing: dict[int, StreamState] = {}
        self._must_tell = False  # a window that is told by itself
        self._growth = 0  # of all windows
        self._partial = _NOTHING
        self._body: StreamState | None = None
        self._body_left = 0
        self._body_ends = 0
        self._pings = 0

    @property
    def has_output(self) -> bool:
        """Whether there is anything to send: then `take_output` gives some bytes."""
        return self.waiting > 0 or self._must_tell

    # What we do

    def open(self) -> StreamState:
        """A stream of ours."""
        stream = StreamState(self._next_id, inbound=False)
        self._next_id += 2
        self.streams[stream.id] = stream
        self.unanswered += 1
        self._answer(_WINDOW, _SYN, stream.id, 0)
        return stream

    def send(self, stream: StreamState, data: bytes | memoryview) -> int:
        """Send as much of `data` as a frame holds and the stream's window allows; how much that is."""
        count = min(len(data), stream.send_window, MOST_PAYLOAD)
        if count == 0 or stream.finished:
            return 0
        stream.send_window -= count
        self._frames.append(_HEADER.pack(0, _DATA, 0, stream.id, count))
        self._frames.append(data if count == len(data) else data[:count])
        self.waiting += count + _HEADER_BYTES
        return count

    def read(self, stream: StreamState, most: int) -> bytes:
        """Take up to `most` bytes (at least one) of what came; there must be any."""
        data = stream._unread.take(most)
        count = len(data)
        self.unread -= count
        if not stream.peer_finished:
            stream._credit += count
            stream._read += count
            told_along = (WINDOW + stream._growth) // 4
            if stream._credit >= told_along:
                self._owing[stream.id] = stream
                self._must_tell = self._must_tell or 2 * stream._credit >= 3 * told_along
        elif stream.finished and not stream.unread:
            self._forget(stream)
        return data

    def finish(self, stream: StreamState) -> None:
        """Send nothing more on a stream, after what was sent."""
        if not stream.finished:
            stream.finished = True
            self._say(_FIN, stream.id)
            if stream.peer_finished and not stream.unread:
                self._forget(stream)

    def leave(self, stream: StreamState) -> None:
        """Finish a stream of which nobody may read any more either: it lasts for two sweeps at most."""
        stream._left = True
        self.finish(stream)

    def reset(self, stream: StreamState) -> None:
        """Drop a stream both ways, with what is unread of it."""
        if not stream.forgotten:
            if not (stream.finished and stream.peer_finished):
                self._say(_RST, stream.id)
            self._drop(stream)

    def ping(self) -> None:
        """Ask for a sign of life, which nobody waits for: it keeps the connection in use."""
        self._pings = (self._pings + 1) & 0xFFFFFFFF
        self._answer(_PING, _SYN, 0, self._pings)

    def go_away(self, *, fault: bool) -> None:
        """Say goodbye, after all that was said. `fault`: because the peer broke the protocol."""
        self._frames.append(_HEADER.pack(0, _GO_AWAY, 0, 0, int(fault)))
        self.waiting += _HEADER_BYTES

    def sweep(self) -> list[StreamState]:
        """Drop the streams that have been over, for us, since the last sweep; those that were."""
        over = [one for one in self.streams.values() if one._left or (one.finished and one.peer_finished)]
        for stream in over:
            if stream._swept:
                self.reset(stream)
            stream._swept = True
        return [stream for stream in over if stream.forgotten]

    def drop_unread(self) -> None:
        """Drop what came and wasn't read, of all streams: nobody wants it."""
        for stream in self.streams.values():
            stream._unread.clear()
        self.unread = 0

    def take_output(self, most: int) -> bytes:
        """What is to be sent now: about `most` bytes of data at most, after all that goes before them."""
        for stream in self._owing.values():
            if stream._read >= WINDOW + stream._growth and not stream.unread:
                self._grow(stream)
            self._answer(_WINDOW, 0, stream.id, stream._credit)
            stream.window += stream._credit
            stream._credit = 0
        self._owing.clear()
        self._must_tell = False
        frames = self._frames
        taken: list[bytes | bytearray | memoryview] = []
        size = 0
        if self._answers:
            taken.append(self._answers)
            size = len(self._answers)
            self._answers = bytearray()
        if self.waiting - size <= most:
            taken.extend(frames)
            frames.clear()
            self.waiting = self._headers = 0
            return b"".join(taken)
        limit = size + most
        while frames and size < limit:
            frame = frames.popleft()
            taken.append(frame)
            size += len(frame)
            if frame[1] == _DATA:
                payload = frames.popleft()
                taken.append(payload)
                size += len(payload)
            elif frame[1] == _WINDOW:
                self._headers -= _HEADER_BYTES
        self.waiting -= size
        return b"".join(taken)

    def take_opened(self) -> list[StreamState]:
        """The streams that the peer opened since the last time."""
        opened, self._opened = self._opened, []
        return opened

    # What the peer does

    def receive(self, data: bytes) -> list[StreamState]:
        """Take in what came; the streams of which something changed. Raises `SessionEnded`."""
        changed: list[StreamState] = []
        try:
            self._receive(data, changed)
        except SessionEnded as end:
            end.changed = changed
            raise
        return changed

    def _receive(self, data: bytes, changed: list[StreamState]) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = _NOTHING
            self.behind = False
        position, end, frames = 0, len(data), 0
        while position < end:
            if self._body_left:
                position = self._receive_body(data, position, end, changed)
                continue
            if end - position < _HEADER_BYTES or frames == MOST_FRAMES:
                self._partial = data[position:]
                self.behind = frames == MOST_FRAMES
                break
            frames += 1
            version, kind, flags, stream_id, value = _HEADER.unpack_from(data, position)
            position += _HEADER_BYTES
            self._receive_frame(version, kind, flags, stream_id, value, changed)
        if len(self._answers) + self._headers > MOST_ANSWERS:
            raise SessionEnded(EndCode.UNREAD_ANSWERS, "the peer doesn't read what it makes us say")

    def _receive_frame(
        self, version: int, kind: int, flags: int, stream_id: int, value: int, changed: list[StreamState]
    ) -> None:
        """Take in a header. `value`: of data their length, of a window the credit."""
        if version or kind > _GO_AWAY:
            raise SessionEnded(EndCode.BAD_FRAME, f"a frame of version {version} and kind {kind}")
        if kind <= _WINDOW:
            stream = self.streams.get(stream_id)
            if flags & _SYN:
                stream = self._receive_syn(stream_id, stream)
            if stream is not None and not stream.answered:
                self._note_answered(stream)
            if kind == _DATA:
                self._receive_data(stream, flags, value, changed)
            elif stream is not None:
                self._receive_window(stream, flags, value, changed)
        elif kind == _PING:
            if flags & _SYN:
                self._answer(_PING, _ACK, 0, value)
        elif value:
            raise SessionEnded(EndCode.REFUSED, f"the peer went away with code {value}")
        else:
            raise SessionEnded(EndCode.LEFT, "the peer closed the connection")

    def _receive_body(self, data: bytes, position: int, end: int, changed: list[StreamState]) -> int:
        count = min(end - position, self._body_left)
        self._body_left -= count
        stream = self._body
        if stream is not None and not stream.forgotten:
            stream._unread.append(data if count == len(data) else data[position : position + count])
            self.unread += count
            changed.append(stream)
            if self.unread > MOST_UNREAD:
                self._make_room(changed)
            if not self._body_left and self._body_ends:
                self._receive_end(stream, self._body_ends, changed)
        return position + count

    def _receive_data(self, stream: StreamState | None, flags: int, length: int, changed: list[StreamState]) -> None:
        if length > (WINDOW + MOST_GROWTH if stream is None else stream.window):
            raise SessionEnded(EndCode.WINDOW_EXCEEDED, "the peer sent more than it may")
        if stream is None or stream.peer_finished:  # it was on its way when the stream ended here
            self._body, self._body_left, self._body_ends = None, length, 0
            return
        stream.window -= length
        if length:
            self._body, self._body_left, self._body_ends = stream, length, flags & _ENDS
        elif flags & _ENDS:
            self._receive_end(stream, flags, changed)

    def _receive_window(self, stream: StreamState, flags: int, credit: int, changed: list[StreamState]) -> None:
        if credit:
            stream.send_window += credit
            if stream.send_window > _LARGEST_WINDOW:
                raise SessionEnded(EndCode.WINDOW_OVERFLOW, "the peer gave more credit than a window can have")
            changed.append(stream)
        if flags & _ENDS:
            self._receive_end(stream, flags, changed)

    def _receive_syn(self, stream_id: int, known: StreamState | None) -> StreamState | None:
        if stream_id % 2 != self._peers_parity or not stream_id or known is not None:
            raise SessionEnded(EndCode.BAD_STREAM, f"the peer opened the stream {stream_id}")
        if self.inbound >= MOST_INBOUND:
            self._answer(_WINDOW, _RST, stream_id, 0)
            return None
        stream = self.streams[stream_id] = StreamState(stream_id, inbound=True)
        self.inbound += 1
        self._opened.append(stream)
        self._answer(_WINDOW, _ACK, stream_id, 0)
        return stream

    def _receive_end(self, stream: StreamState, flags: int, changed: list[StreamState]) -> None:
        stream.peer_finished = True
        self._owe_nothing(stream)
        if flags & _RST:
            self._drop(stream)
        elif stream.finished and not stream.unread:
            self._forget(stream)
        changed.append(stream)

    def _make_room(self, changed: list[StreamState]) -> None:
        fullest = max(self.streams.values(), key=lambda stream: stream.unread)
        self._answer(_WINDOW, _RST, fullest.id, 0)
        self._drop(fullest)
        changed.append(fullest)

    # What both need

    def _answer(self, kind: int, flags: int, stream_id: int, value: int) -> None:
        self._answers += _HEADER.pack(0, kind, flags, stream_id, value)
        self.waiting += _HEADER_BYTES

    def _say(self, flags: int, stream_id: int) -> None:
        self._frames.append(_HEADER.pack(0, _WINDOW, flags, stream_id, 0))
        self._headers += _HEADER_BYTES
        self.waiting += _HEADER_BYTES

    def _grow(self, stream: StreamState) -> None:
        growth = min(WINDOW + stream._growth, MOST_GROWTH - self._growth)
        stream._growth += growth
        stream._credit += growth
        stream._read = 0
        self._growth += growth

    def _owe_nothing(self, stream: StreamState) -> None:
        """Tell a stream's window no more: its peer sends nothing that needs it."""
        self._owing.pop(stream.id, None)
        self._must_tell = self._must_tell and bool(self._owing)

    def _note_answered(self, stream: StreamState) -> None:
        stream.answered = True
        self.unanswered -= 1

    def _drop(self, stream: StreamState) -> None:
        stream.was_reset = stream.finished = stream.peer_finished = True
        self.unread -= stream.unread
        stream._unread.clear()
        self._forget(stream)

    def _forget(self, stream: StreamState) -> None:
        if not stream.forgotten:
            stream.forgotten = True
            del self.streams[stream.id]
            self._owe_nothing(stream)
            self._growth -= stream._growth
            if stream.inbound:
                self.inbound -= 1
            elif not stream.answered:
                self._note_answered(stream)
