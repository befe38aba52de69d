"""One connection and its streams, as libp2p wants it: the tasks that read, write and keep time around a session."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog
import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.libp2p.kernel_silence import silence, watch
from overlay.libp2p.muxer.pipe import Pipe
from overlay.libp2p.muxer.session import MOST_UNANSWERED, YamuxSession
from overlay.libp2p.muxer.session_end import EndCode, SessionEnded
from overlay.libp2p.muxer.stream import MuxedStream
from overlay.libp2p.muxer.stream_state import StreamState
from overlay.libp2p.muxer.turns import AT_ONCE, own_turn, wake_for_good, wake_in_turns
from overlay.limits.fair_quota import FairQuota

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Pause = Callable[[str], float]
"""Seconds to wait before more is read of a peer (base58)."""

_HIGH_WATER: Final = 128 * 1024  # bytes that wait for being sent, beyond which writers wait
_AT_ONCE: Final = 64 * 1024  # bytes of data that are sent as one, so what goes before data waits for no more
_TICK: Final = 15.0  # seconds between looks at whether a write stands still; every second one, a ping and a sweep
_FAREWELL: Final = 0.3  # seconds for what is still to be sent when we close
_CLOSING: Final = 1.0  # seconds for closing what is beneath
_UNCOUNTED: Final = 16 * 1024  # unread bytes of a connection that cost the budget nothing
_STEP: Final = 64 * 1024  # in which the budget is taken
_FREE_STREAMS: Final = 8  # streams that the peer opened and that cost the budget nothing
_STREAM: Final = 8 * 1024  # bytes that each of the others counts as: tasks wait on it

_BLAMED: Final = {
    EndCode.BAD_FRAME,
    EndCode.BAD_STREAM,
    EndCode.WINDOW_EXCEEDED,
    EndCode.WINDOW_OVERFLOW,
    EndCode.UNREAD_ANSWERS,
}


class ConnectionEnd(NamedTuple):
    """Why a connection ended."""

    code: EndCode
    text: str


class MuxedConnection(IMuxedConn):
    """A connection to one peer that carries many streams. `start` runs it until it ends, and closes it then."""

    def __init__(
        self,
        conn: ISecureConn,
        peer_id: ID,
        *,
        pipe: Pipe,
        pause: Pause,
        budget: FairQuota,
        write_timeout: float,
        when_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """`pipe`: how `conn` is read and written.

        `budget`: bytes that all connections of this process may hold, which count by peer: what nobody has read, what
        users of streams say that they hold, and streams that the peer opened, beyond a few.
        `write_timeout`: seconds that a stream's write waits for a peer that reads nothing.
        `when_closed` is called once all is over.
        """
        self.peer_id = peer_id
        self.secured_conn = conn
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.on_close: Callable[[], Awaitable[object]] | None = None
        """What libp2p wants to be called in the end; it sets it after the construction."""
        self.negotiated_muxer_protocol: str | None = None
        self.negotiated_security_protocol: str | None = None
        self.session = YamuxSession(initiator=conn.is_initiator)
        self.write_timeout = write_timeout
        self.ended: ConnectionEnd | None = None
        """Why it ended; None while it lives."""
        self._pipe = pipe
        self._is_watched = False
        self._pause = pause
        self._when_closed = when_closed
        self._peer = str(peer_id)
        self._held = budget.open(self._peer, self._give_way)
        self._used = 0  # bytes that users of streams hold
        self._running = False
        self._to_write = False
        self._writing_since: float | None = None
        self._writer = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._accepting = trio.lowlevel.ParkingLot()
        self._opening = trio.lowlevel.ParkingLot()
        self._backlog: deque[StreamState] = deque()
        self._asleep: list[StreamState] = []  # whose users are to be told in turns that it ended
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        self._timing = trio.CancelScope()

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and self.ended is None

    @property
    def is_closed(self) -> bool:
        """Whether all is over, the socket too."""
        return self.event_closed.is_set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Where the peer is."""
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Whether the connection is direct."""
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address and port of the peer."""
        return self.secured_conn.get_remote_address()

    def silence(self) -> float | None:
        """Seconds since the peer's machine sent anything, from the second time on that this is asked; None: unknown."""
        socket = self._pipe.socket
        if socket is None or self.is_closed:
            return None
        if not self._is_watched:
            self._is_watched = True
            watch(socket)
            return None
        return silence(socket)

    async def start(self) -> None:
        """Read and write until the connection ends, then close it. Never raises for what the peer does."""
        self.event_started.set()
        if self.ended is not None:
            return
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._keep_time)
                await self._read()
        finally:
            self._end(EndCode.CLOSED, "this side is stopping")
            await wake_in_turns(list(dict.fromkeys(self._asleep)))
            await self._finish()

    async def open_stream(self) -> MuxedStream:
        """A new stream. Waits while too many have no answer yet. Raises `MuxedConnUnavailable`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.move_on_after(self.write_timeout):
            while self.ended is None and self.session.unanswered >= MOST_UNANSWERED:
                await self._opening.park()
        if self.ended is not None:
            raise MuxedConnUnavailable(self.ended.text)
        if self.session.unanswered >= MOST_UNANSWERED:
            raise MuxedConnUnavailable("the peer answers no streams")
        stream = MuxedStream(self, self.session.open())
        self._wake_writer()  # a turn later: what is written at once goes along
        return stream

    async def accept_stream(self) -> MuxedStream:
        """The next stream that the peer opened. Raises `MuxedConnUnavailable` once the connection ended."""
        await trio.lowlevel.checkpoint()
        while self.ended is None:
            while self._backlog:
                state = self._backlog.popleft()
                if not state.was_reset:
                    return MuxedStream(self, state)
            await self._accepting.park()
        raise MuxedConnUnavailable(self.ended.text)

    async def close(self) -> None:
        """Say goodbye and close. Takes two seconds at most, and isn't cut short by being cancelled."""
        self._end(EndCode.CLOSED, "this side closed the connection")
        if self._running:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL + _CLOSING):
                await self.event_closed.wait()
        elif not self.event_closed.is_set():
            await self._finish()

    # What its streams need

    @property
    def full(self) -> bool:
        """Whether so much waits for being sent that nothing should be added."""
        return self.session.waiting >= _HIGH_WATER

    @property
    def crowded(self) -> bool:
        """Whether whoever wants to write has to wait for its turn."""
        return self.session.waiting >= _HIGH_WATER or bool(self._room)

    async def wait_for_turn(self) -> None:
        """Wait until there is room, and those who came before have written."""
        await self._room.park()

    def pass_turn(self) -> None:
        """Let the next one write, where there is room."""
        if self._room and not self.full:
            self._room.unpark()

    def flush(self) -> None:
        """Send what there is, now or soon."""
        if self.ended is not None or not self.session.has_output:
            return
        if not self._pipe.immediate or self._writing_since is not None or not self._pipe.is_clear:
            self._wake_writer()
            return
        try:
            while output := self.session.take_output(_AT_ONCE):
                if not self._pipe.send(output):
                    self._wake_writer()
                    return
        except Exception as error:
            self._end(EndCode.LOST, f"writing failed: {error!r}"[:200])
        else:
            self.pass_turn()

    def note_read(self) -> None:
        """Tell the peer, and the budget, that a stream was read."""
        if self._held.amount and self._in_hand + _STEP <= self._held.amount:
            self._count()
        if self.session.has_output:
            self.flush()

    def hold(self, change: int) -> bool:
        """Count so many bytes more, or less, that users of streams hold; False, and nothing, where that is too much."""
        self._used += change
        if self._count() or self.ended is not None:
            return True
        self._used -= change
        return False

    # Its tasks

    async def _read(self) -> None:
        session, pipe = self.session, self._pipe
        try:
            with self._reading:
                while True:
                    if (seconds := self._pause(self._peer)) > 0:
                        await trio.sleep(seconds)
                    if session.behind:
                        await trio.lowlevel.checkpoint()
                        data = b""
                    elif not (data := await pipe.receive()):
                        self._end(EndCode.LOST, "the peer closed the connection")
                        return
                    changed = list(dict.fromkeys(session.receive(data)))
                    if len(changed) <= AT_ONCE:
                        self._take_in(changed)
                    else:
                        self._asleep = changed  # should it end meanwhile: the session has forgotten some of them
                        async with own_turn():
                            self._take_in(changed)
                        if self.ended is None:
                            self._asleep = []
                    if session.has_output:
                        self.flush()
                    elif not pipe.is_clear:
                        self._wake_writer()
        except SessionEnded as error:
            self._end(error.code, error.text)
            self._asleep += error.changed  # of which some are in the session no more
        except Exception as error:  # whatever libp2p raises, it ended the connection
            self._end(EndCode.LOST, f"reading failed: {error!r}"[:200])

    def _take_in(self, changed: list[StreamState]) -> None:
        session = self.session
        for state in changed:
            state.on_change()
        if opened := session.take_opened():
            self._backlog.extend(opened)
            self._accepting.unpark_all()
        if self._opening and session.unanswered < MOST_UNANSWERED:
            self._opening.unpark(count=MOST_UNANSWERED - session.unanswered)
        if not self._count():
            self._give_way()

    async def _write(self) -> None:
        session, pipe = self.session, self._pipe
        with self._writing:
            try:
                while True:
                    while not self._to_write and self.ended is None:
                        await self._writer.park()
                    self._to_write = False
                    while session.has_output or not pipe.is_clear:
                        self._writing_since = trio.current_time()
                        if not pipe.is_clear or not pipe.send(session.take_output(_AT_ONCE)):
                            await pipe.drain()
                        self.pass_turn()
                    self._writing_since = None
                    if self.ended is not None:
                        return
            except Exception as error:
                self._end(EndCode.LOST, f"writing failed: {error!r}"[:200])

    async def _keep_time(self) -> None:
        with self._timing:
            ticks = 0
            while True:
                # A write that begins meanwhile can't have stood still for a tick by the one that is left out.
                skipped = ticks % 2 == 0 and self._writing_since is None
                await trio.sleep(2 * _TICK if skipped else _TICK)
                ticks += 2 if skipped else 1
                if self._writing_since is not None and self._writing_since + _TICK <= trio.current_time():
                    self._end(EndCode.STALLED, f"the peer reads nothing for {_TICK:g} s")
                elif ticks % 2 == 0:
                    for state in self.session.sweep():
                        state.on_change()
                    self.session.ping()
                    self.flush()

    # How it ends

    def _end(self, code: EndCode, text: str) -> None:
        """End it: wake all who wait, let the writer say goodbye, stop the other tasks."""
        if self.ended is not None:
            return
        self.ended = ConnectionEnd(code, text)
        if code in _BLAMED or code is EndCode.CLOSED or code is EndCode.MEMORY:
            self.session.go_away(fault=code in _BLAMED)
            self.session.drop_unread()
        tell = log.info if code in _BLAMED or code is EndCode.MEMORY or code is EndCode.STALLED else log.debug
        tell("a connection ended", peer_id=self._peer, code=code.value, text=text)
        streams = list(self.session.streams.values())
        for state in streams[:AT_ONCE] if self._running else streams:
            wake_for_good(state)
        if self._running:
            self._asleep += streams[AT_ONCE:]
        self._held.close()
        for waiting in (self._accepting, self._opening, self._room):
            waiting.unpark_all()
        self._reading.cancel()
        self._timing.cancel()
        self._writing.deadline = trio.current_time() + _FAREWELL
        self._writer.unpark_all()

    async def _finish(self) -> None:
        """Close what is beneath, also when cancelled, and tell libp2p."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING):
            try:
                await self._pipe.close()
            except Exception as error:
                log.debug("closing a connection failed", peer_id=self._peer, error=repr(error)[:200])
        self.event_closed.set()
        if self.on_close is not None:
            try:
                await self.on_close()
            except Exception as error:  # of libp2p's, which would end the host
                log.warning("libp2p failed to close a connection", peer_id=self._peer, error=repr(error)[:200])
        self._when_closed()

    def _give_way(self) -> None:
        self._end(EndCode.MEMORY, "memory is short, and most of it is unread of this peer")

    @property
    def _in_hand(self) -> int:
        """Bytes that are unread, or held by users of streams, or taken by streams of the peer's."""
        streams = self.session.inbound - _FREE_STREAMS
        return self.session.unread + self._used + (streams * _STREAM if streams > 0 else 0)

    def _count(self) -> bool:
        """Take from the budget what is in hand, in large steps, or give it back; False where it's refused."""
        in_hand, counted = self._in_hand, self._held.amount
        if in_hand > max(counted, _UNCOUNTED):
            return self._held.take(-(-in_hand // _STEP) * _STEP - counted)
        if counted and in_hand + _STEP <= counted:
            self._held.give_back(counted - (-(-in_hand // _STEP) * _STEP if in_hand > _UNCOUNTED else 0))
        return True

    def _wake_writer(self) -> None:
        self._to_write = True
        self._writer.unpark_all()
