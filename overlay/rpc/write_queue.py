"""Frames that wait for being written to one peer: joined into large writes, and bounded in case it doesn't read."""

from __future__ import annotations

from collections import deque

import trio

BATCH_BYTES = 64 * 1024 - 12  # one frame of yamux: a byte more would make a frame of its own


class WriteQueueFull(Exception):
    """Even the reserve is used up: the peer reads nothing, and makes us say more and more."""


class WriteQueueClosed(Exception):
    """The link has ended, so nothing was appended."""


class WriteQueue:
    """Holds the frames that wait for being written to one peer."""

    def __init__(self, limit: int, reserve: int) -> None:
        """`limit`: bytes above which `send` waits; `reserve`: bytes above it, kept for what can't wait."""
        self._limit = limit
        self._hard_limit = limit + reserve
        self._frames: deque[bytes] = deque()
        self._waiting_for_room = trio.lowlevel.ParkingLot()
        self._waiting_for_frames = trio.lowlevel.ParkingLot()
        self._closed = False
        self.buffered = 0
        """Bytes that aren't written yet, those that are just being written included."""
        self.waiting = 0
        """Bytes that wait for room."""

    async def send(self, frame: bytes) -> None:
        """Append a frame as soon as there is room. When cancelled, nothing was appended. Raises `WriteQueueClosed`."""
        self.waiting += len(frame)
        try:
            while self.buffered >= self._limit and not self._closed:
                await self._waiting_for_room.park()
        finally:
            self.waiting -= len(frame)
        if self._closed:
            raise WriteQueueClosed
        self.put(frame)

    def put(self, frame: bytes) -> None:
        """Append a frame now. Raises `WriteQueueFull` when even the reserve is used up."""
        if self.buffered + len(frame) > self._hard_limit:
            raise WriteQueueFull
        self._frames.append(frame)
        self.buffered += len(frame)
        self._waiting_for_frames.unpark()
        self._wake_next()

    async def take(self) -> bytes:
        """Take all waiting frames up to about 64 KiB, joined. Waits until there is one."""
        while not self._frames:
            await self._waiting_for_frames.park()
        if len(self._frames) == 1:
            return self._frames.popleft()
        batch = [self._frames.popleft()]
        size = len(batch[0])
        while self._frames and size + len(self._frames[0]) <= BATCH_BYTES:
            batch.append(self._frames.popleft())
            size += len(batch[-1])
        return b"".join(batch)

    def close(self) -> None:
        """Turn away all who wait for room, now and later, and drop what wasn't taken."""
        self._closed = True
        self._frames.clear()
        self._waiting_for_room.unpark_all()

    def written(self, count: int) -> None:
        """Make room: `count` bytes were written."""
        self.buffered -= count
        self._wake_next()

    def _wake_next(self) -> None:
        # One at a time: each that is woken appends at once, and wakes the next when there still is room.
        if self._waiting_for_room and self.buffered < self._limit:
            self._waiting_for_room.unpark()
