"""What links need of the network below: streams of bytes, and somebody who opens them.

The host over py-libp2p is one implementation; pairs of in-memory streams in the tests are the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol


class ByteStream(Protocol):
    """An ordered stream of bytes to one authenticated peer. One task reads and one task writes at a time."""

    async def read_some(self, max_bytes: int) -> bytes:
        """At least one byte and at most `max_bytes`, as soon as there are any; `b""` at the stream's end.

        Raises `StreamBroken` when the stream was reset or its connection ended.
        """
        ...

    async def write(self, payload: bytes) -> None:
        """Pass all of `payload` on; waits while the other side doesn't read.

        Raises `StreamBroken`. When cancelled, an unknown part was passed on and the stream is only good for `reset`.
        """
        ...

    def hold(self, amount: int) -> bool:
        """Say how many bytes its user holds on the peer's account: what it read and hasn't used up, or waits to write.

        They count like what nobody has read yet. False where that is too much: then what was said before still counts.
        What counts is given back with 0, at the latest when the stream isn't used any more.
        """
        ...

    async def close(self) -> None:
        """End our direction; what was written still arrives. Never raises for what the network did."""
        ...

    async def reset(self) -> None:
        """Drop the stream in both directions at once; a reader that waits gets `StreamBroken`. Never raises."""
        ...


StreamHandler = Callable[[str, ByteStream], Awaitable[None]]
"""What is called with the remote peer's id for each inbound stream; the stream lives until it returns."""


class Transport(Protocol):
    """Opens streams to peers, takes theirs, and remembers where peers are."""

    @property
    def peer_id(self) -> str:
        """Our own peer id (base58)."""
        ...

    async def open_stream(self, peer_id: str, protocol_id: str) -> ByteStream:
        """A new stream to `peer_id`, over a connection that is made when there is none.

        Raises `Unreachable`, or `ProtocolNotSupported` when the peer doesn't speak `protocol_id`.
        """
        ...

    def set_stream_handler(self, protocol_id: str, handler: StreamHandler) -> None:
        """Have `handler` called for every inbound stream of `protocol_id`."""
        ...

    def add_addresses(self, peer_id: str, addresses: Sequence[str], *, teller: str = "") -> None:
        """Remember multiaddrs of a peer; bounded, and bad ones are dropped silently.

        `teller`: the peer that says so, whose word is worth a few vain dials; empty: our operator or user.
        """
        ...

    def addresses_of(self, peer_id: str) -> list[str]:
        """Multiaddrs known of a peer, empty when there are none."""
        ...

    def is_connected(self, peer_id: str) -> bool:
        """Whether a connection to the peer is open, with or without a link on it."""
        ...

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to the peer."""
        ...
