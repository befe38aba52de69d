"""Messages of libp2p's Kad-DHT: a length, then protobuf. What comes is bounded before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import structlog
import varint  # type: ignore[import-untyped]
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from overlay.libp2p.addresses import libp2p_id, spelled
from overlay.rpc.transport import ByteStream

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LONGEST_ANSWER: Final = 256 * 1024  # bytes
LONGEST_REQUEST: Final = 16 * 1024
_PEERS_PER_ANSWER: Final = 64
_ADDRESSES_READ: Final = 16  # of each peer in an answer
_ADDRESSES_TOLD: Final = 4


class KnownPeer(msgspec.Struct, frozen=True):
    """A peer that was heard of, and where it may be reached; nothing says that it lives."""

    peer_id: str
    addresses: tuple[str, ...]


class MessageReader:
    """Reads messages from a stream, one after the other."""

    def __init__(self, stream: ByteStream, longest: int) -> None:
        """`longest`: bytes of a message that is accepted."""
        self._stream = stream
        self._longest = longest
        self._received = b""

    async def next(self) -> Message | None:
        """The next message, or None at the stream's end.

        Raises ValueError for a message that is cut or too long, `google.protobuf.message.DecodeError`, `StreamBroken`.
        """
        while (bounds := self._bounds()) is None:
            chunk = await self._stream.read_some(64 * 1024)
            if not chunk:
                if self._received:
                    raise ValueError("the message was cut")
                return None
            self._received += chunk
        start, end = bounds
        message = Message()
        message.ParseFromString(self._received[start:end])
        self._received = self._received[end:]
        return message

    def _bounds(self) -> tuple[int, int] | None:
        """Where the next message starts and ends, once all of it is here."""
        header = next((count for count, byte in enumerate(self._received[:10], 1) if byte < 0x80), None)
        if header is None:
            if len(self._received) >= 10:
                raise ValueError("the message has no length")
            return None
        length = int(varint.decode_bytes(self._received[:header]))
        if length > self._longest:
            raise ValueError("the message is too long")
        return (header, header + length) if len(self._received) >= header + length else None


def encoded(message: Message) -> bytes:
    """A message with its length before it."""
    body: bytes = message.SerializeToString()
    return bytes(varint.encode(len(body))) + body


def told(message: Message) -> Iterator[KnownPeer]:
    """The peers that an answer tells of; what is malformed is left out. One may take two milliseconds."""
    for entry in message.closerPeers[:_PEERS_PER_ANSWER]:
        peer_id = str(ID(entry.id))
        try:
            public_key_of(peer_id)
        except PeerIdError:
            continue
        yield KnownPeer(peer_id=peer_id, addresses=tuple(_texts(entry.addrs[:_ADDRESSES_READ])))


def tell(message: Message, peers: Iterable[KnownPeer]) -> None:
    """Have an answer tell of peers, with some addresses of each."""
    for peer in peers:
        entry = message.closerPeers.add()
        entry.id = libp2p_id(peer.peer_id).to_bytes()
        entry.addrs.extend(_bytes(address) for address in peer.addresses[:_ADDRESSES_TOLD])
        entry.connection = Message.ConnectionType.CAN_CONNECT


@lru_cache(maxsize=16384)
def _bytes(address: str) -> bytes:
    """A multiaddr's bytes; parsing one takes 0.15 ms, and answers have 80."""
    return bytes(Multiaddr(address).to_bytes())


def _texts(addresses: Sequence[bytes]) -> list[str]:
    texts: list[str] = []
    for raw in addresses:
        try:
            texts.append(spelled(raw))
        except Exception as error:  # the library raises whatever its codecs do
            log.debug("an address in an answer is invalid", error=repr(error)[:100])
    return texts
