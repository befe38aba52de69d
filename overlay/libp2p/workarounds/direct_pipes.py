"""Fault: what is read or written of a secured connection passes five layers of libp2p, each with locks, checkpoints and
texts for its log, and TLS asks the socket for 4 KiB at a time: that takes as long as all else that a small call needs.
A write that is cancelled leaves half a record behind, too, so that the whole connection is lost.

Here the state of TLS or noise is taken over once a connection is set up, and driven on its socket, or on its WebSocket.
That needs attributes which aren't libp2p's public interface: where one is missing, or of another type than expected,
there is no direct pipe, and the connection is used by its public reads and writes.

Remove when `SecureSession.read` and `write` cost as little.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.security.tls.io import TLSReadWriter, TLSStreamReadWriter

if TYPE_CHECKING:
    from libp2p.abc import IRawConnection, ISecureConn

    from overlay.libp2p.muxer.pipe import Pipe

_BULK: Final = 64 * 1024
_NOTHING: Final = b""


def direct_pipe(connection: ISecureConn) -> Pipe | None:
    """A pipe that takes `connection` over, which nobody may read or write any more; None where that isn't possible."""
    try:
        if type(connection) is not SecureSession:
            return None
        secured: Any = connection.conn
        cipher: _Cipher
        raw: Any
        if type(secured) is TLSReadWriter and type(secured.stream_writer) is TLSStreamReadWriter:
            cipher, raw = _Tls(secured.stream_writer), secured.stream_writer.raw_connection
        elif type(secured) is NoiseTransportReadWriter:
            cipher, raw = _Noise(secured), secured.read_writer.read_write_closer
        else:
            return None
        if type(raw) is not RawConnection:
            return None
        stream = raw.stream
        socket = stream.stream.socket if type(stream) is TrioTCPStream else None
        before = connection.buf.getvalue()[connection.low_watermark : connection.high_watermark]
    except AttributeError:
        return None
    before += cipher.take_over()
    if socket is not None:
        return _SocketPipe(connection, cipher, before, socket)
    return _StreamPipe(connection, cipher, before, raw)


class _Cipher(Protocol):
    """The state of a security protocol after its handshake."""

    def take_over(self) -> bytes:
        """What was received before and nobody has read, decrypted."""
        ...

    def seal(self, data: bytes) -> bytes:
        """Encrypt."""
        ...

    def unseal(self, data: bytes) -> bytes:
        """Decrypt what is complete. Raises what the library does for forged bytes."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the peer said that nothing more comes."""
        ...

    def owed(self) -> bytes:
        """What has to be sent because of what was received."""
        ...


class _Tls:
    """TLS's state, between its two buffers."""

    def __init__(self, stream: TLSStreamReadWriter) -> None:
        self.has_ended = False
        self._tls = stream._ssl_socket
        self._received = stream._in_bio
        self._sent = stream._out_bio
        self._before = bytes(stream._read_buffer)

    def take_over(self) -> bytes:
        before, self._before = self._before, _NOTHING
        return before + self._decrypted()

    def seal(self, data: bytes) -> bytes:
        count = self._tls.write(data)
        if count < len(data):
            rest = memoryview(data)
            while count < len(data):
                count += self._tls.write(rest[count:])
        return self._sent.read()

    def unseal(self, data: bytes) -> bytes:
        self._received.write(data)
        return self._decrypted()

    def owed(self) -> bytes:
        return self._sent.read() if self._sent.pending else _NOTHING

    def _decrypted(self) -> bytes:
        parts: list[bytes] = []
        tls, received = self._tls, self._received
        try:
            while received.pending or tls.pending():
                part = tls.read(_BULK)
                if not part:
                    self.has_ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Noise:
    """Noise's state, and the beginning of a message whose end hasn't come."""

    has_ended = False

    def __init__(self, stream: NoiseTransportReadWriter) -> None:
        self._encrypt = stream.noise_state.encrypt
        self._decrypt = stream.noise_state.decrypt
        self._partial = _NOTHING

    def take_over(self) -> bytes:
        return _NOTHING  # it reads exactly one message at a time

    def seal(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        for start in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            sealed = self._encrypt(data[start : start + MAX_PLAINTEXT_LENGTH])
            parts += (len(sealed).to_bytes(2, "big"), sealed)
        return b"".join(parts)

    def unseal(self, data: bytes) -> bytes:
        if self._partial:
            data = self._partial + data
        parts: list[bytes] = []
        position = 0
        while len(data) - position >= 2:
            end = position + 2 + (data[position] << 8 | data[position + 1])
            if end > len(data):
                break
            parts.append(self._decrypt(data[position + 2 : end]))
            position = end
        self._partial = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def owed(self) -> bytes:
        return _NOTHING


class _SocketPipe:
    """On a socket, to which `send` writes at once what it takes."""

    immediate = True

    def __init__(
        self, connection: SecureSession, cipher: _Cipher, before: bytes, socket: trio.socket.SocketType
    ) -> None:
        self._connection = connection
        self._cipher = cipher
        self._before = before
        self._socket = socket
        self.socket: trio.socket.SocketType | None = socket
        self._rest: bytes | memoryview = _NOTHING

    async def receive(self) -> bytes:
        if self._before:
            before, self._before = self._before, _NOTHING
            await trio.lowlevel.checkpoint()
            return before
        cipher, socket = self._cipher, self._socket
        while not cipher.has_ended:
            await trio.lowlevel.wait_readable(socket.fileno())
            try:
                data = os.read(socket.fileno(), _BULK)
            except BlockingIOError:
                continue
            if not data:
                break
            received = cipher.unseal(data)
            if owed := cipher.owed():
                self._rest = bytes(self._rest) + owed
            if received:
                return received
        return _NOTHING

    def send(self, data: bytes) -> bool:
        sealed = self._cipher.seal(data)
        try:
            sent = os.write(self._socket.fileno(), sealed)
        except BlockingIOError:
            sent = 0
        if sent == len(sealed):
            return True
        self._rest = memoryview(sealed)[sent:]
        return False

    @property
    def is_clear(self) -> bool:
        return not self._rest

    async def drain(self) -> None:
        while self._rest:
            await trio.lowlevel.wait_writable(self._socket.fileno())
            try:
                self._rest = self._rest[os.write(self._socket.fileno(), self._rest) :]
            except BlockingIOError:
                continue

    async def close(self) -> None:
        await self._connection.close()


class _StreamPipe:
    """On whatever carries the connection otherwise, as a WebSocket."""

    immediate = False
    socket: trio.socket.SocketType | None = None

    def __init__(self, connection: SecureSession, cipher: _Cipher, before: bytes, raw: IRawConnection) -> None:
        self._connection = connection
        self._cipher = cipher
        self._before = before
        self._raw = raw
        self._sealed = _NOTHING

    async def receive(self) -> bytes:
        if self._before:
            before, self._before = self._before, _NOTHING
            await trio.lowlevel.checkpoint()
            return before
        cipher = self._cipher
        while not cipher.has_ended:
            data = await self._raw.read(_BULK)
            if not data:
                break
            received = cipher.unseal(data)
            self._sealed += cipher.owed()
            if received:
                return received
        return _NOTHING

    def send(self, data: bytes) -> bool:
        self._sealed += self._cipher.seal(data)
        return False

    @property
    def is_clear(self) -> bool:
        return not self._sealed

    async def drain(self) -> None:
        sealed, self._sealed = self._sealed, _NOTHING
        await self._raw.write(sealed)

    async def close(self) -> None:
        await self._connection.close()
