"""One stream of a connection, as libp2p wants it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from overlay.libp2p.muxer.stream_state import StreamState

if TYPE_CHECKING:
    from overlay.libp2p.muxer.connection import MuxedConnection

_AT_A_STRETCH: Final = 16  # reads and writes of a stream after which other tasks run at last


class MuxedStream(IMuxedStream):
    """A stream whose reads and writes wait for the peer, and are told apart when they fail: ended, reset, cut off."""

    def __init__(self, connection: MuxedConnection, state: StreamState) -> None:
        self.muxed_conn = connection
        self.stream_id = state.id
        self.is_initiator = not state.inbound
        self._connection = connection
        self._session = connection.session
        self._state = state
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._writing = False
        self._uses = 0
        self._held = 0
        state.on_change = self._wake

    async def read(self, n: int | None = None) -> bytes:
        """Read from one to `n` bytes, as soon as there are any; by default all that are there.

        Raises `MuxedStreamEOF` at the end, `MuxedStreamReset` when the stream was reset or the connection ended. What
        came before the connection ended can still be read.
        """
        await self._take_part()
        if n == 0:
            return b""
        state = self._state
        while not state.unread:
            if state.was_reset:
                raise MuxedStreamReset("the stream was reset")
            if state.peer_finished:
                raise MuxedStreamEOF("the peer ended the stream")
            if self._connection.ended is not None:
                raise MuxedStreamReset(self._connection.ended.text)
            await self._readers.park()
        data = self._session.read(state, sys.maxsize if n is None or n < 0 else n)
        self._connection.note_read()
        return data

    async def write(self, data: bytes) -> None:
        """Pass `data` on; waits while the peer doesn't read.

        Raises `MuxedStreamReset`, `MuxedStreamClosed` after `close_write`, and `MuxedStreamError` when the peer lets
        us write nothing for the connection's `write_timeout`. When cancelled, a part of it was passed on.
        """
        await self._take_part()
        while self._writing:  # one after the other, so that nobody's bytes are cut in two
            await self._writers.park()
        self._check_writable()
        if type(data) is not bytes:
            data = bytes(data)  # it may be sent later
        connection = self._connection
        if not connection.crowded:
            sent = self._session.send(self._state, data)
            connection.flush()
            if sent == len(data):
                return
            data = data[sent:]
        self._writing = True
        try:
            await self._write_slowly(memoryview(data))
        finally:
            self._writing = False
            self._writers.unpark_all()
            connection.pass_turn()

    async def close(self) -> None:
        """End our direction, in order, and say that nobody may read: the stream lasts for a minute at most."""
        if self._connection.ended is None:
            self._session.leave(self._state)
            self._connection.flush()
        self._wake()

    async def close_write(self) -> None:
        """End our direction, in order, and go on reading."""
        if self._connection.ended is None:
            self._session.finish(self._state)
            self._connection.flush()
        self._wake()

    async def reset(self) -> None:
        """Drop the stream both ways; once the connection ended, nothing is left to drop."""
        if self._connection.ended is None:
            self._session.reset(self._state)
            self._connection.note_read()
            self._connection.flush()
        self._wake()

    def is_closed(self) -> bool:
        """Whether it ended both ways."""
        return self._state.forgotten or self._connection.ended is not None

    def hold(self, amount: int) -> bool:
        """Count `amount` bytes, from now on, as those of this stream that nobody has read; False where that's too much.

        Whoever has read them, or waits to write them, says 0 in the end.
        """
        if not self._connection.hold(amount - self._held):
            return False
        self._held = amount
        return True

    def set_deadline(self, ttl: int) -> None:
        """Not offered: deadlines are Trio's cancel scopes."""
        raise NotImplementedError

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address and port of the peer."""
        return self._connection.get_remote_address()

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _take_part(self) -> None:
        """Let other tasks run now and then: neither a read nor a write has to wait where the peer is quick."""
        self._uses += 1
        if self._uses % _AT_A_STRETCH:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def _write_slowly(self, rest: memoryview) -> None:
        connection, state = self._connection, self._state
        deadline = trio.current_time() + connection.write_timeout
        while rest:
            if not state.send_window:
                with trio.move_on_at(deadline) as waiting:
                    await self._writers.park()
                if waiting.cancelled_caught and not state.send_window:
                    raise MuxedStreamError(f"the peer read nothing for {connection.write_timeout:g} s")
            elif connection.crowded:
                await connection.wait_for_turn()
            self._check_writable()
            if not connection.full and (sent := self._session.send(state, rest)):
                rest = rest[sent:]
                deadline = trio.current_time() + connection.write_timeout
                connection.flush()
                connection.pass_turn()

    def _check_writable(self) -> None:
        if self._state.was_reset:
            raise MuxedStreamReset("the stream was reset")
        if self._connection.ended is not None:
            raise MuxedStreamReset(self._connection.ended.text)
        if self._state.finished:
            raise MuxedStreamClosed("the stream is closed for writing")

    def _wake(self) -> None:
        self._readers.unpark_all()
        self._writers.unpark_all()
