"""One stream of libp2p's as the rooms above see it."""

from __future__ import annotations

import structlog
from libp2p.abc import INetStream
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from overlay.errors import StreamBroken
from overlay.libp2p.muxer.stream import MuxedStream

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Libp2pStream:
    """One libp2p stream as a `ByteStream`. Whatever libp2p raises on it becomes `StreamBroken`."""

    def __init__(self, stream: INetStream) -> None:
        assert isinstance(stream, NetStream)  # there is no other
        self._stream = stream
        # libp2p's own layer takes a lock, twice, for each read and write, to keep a state that the muxer has anyway.
        muxed = stream.muxed_stream
        assert isinstance(muxed, MuxedStream)  # of `install_muxer`
        self._muxed = muxed

    async def read_some(self, max_bytes: int) -> bytes:
        """At least one byte as soon as there are any; `b""` at the stream's end."""
        try:
            return await self._muxed.read(max_bytes)
        except MuxedStreamEOF:
            return b""
        except Exception as error:
            raise StreamBroken(f"reading failed: {error!r}"[:200]) from error

    async def write(self, payload: bytes) -> None:
        """Pass all of `payload` on; waits while the other side doesn't read."""
        try:
            await self._muxed.write(payload)
        except Exception as error:
            raise StreamBroken(f"writing failed: {error!r}"[:200]) from error

    def hold(self, amount: int) -> bool:
        """Say how many bytes are held on the peer's account; False where that is too much."""
        return self._muxed.hold(amount)

    async def close(self) -> None:
        """End our direction; what was written still arrives."""
        try:
            await self._stream.close()
        except Exception as error:
            log.debug("closing a stream failed", error=repr(error)[:200])

    async def reset(self) -> None:
        """Drop the stream in both directions at once."""
        try:
            await self._stream.reset()
        except Exception as error:
            log.debug("resetting a stream failed", error=repr(error)[:200])
