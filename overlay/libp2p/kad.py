"""libp2p's Kad-DHT under our own protocol id: its routing table of known peers, and FIND_NODE with other peers.

Members enter the table when their link comes up and leave it when they can't be reached any more. Peers that speak
the Kad protocol but aren't members (other implementations) enter it when they ask us; they are asked over Kad's own
protocol. The table's order is that of `overlay.discovery.keyspace`: sha256 of peer ids under XOR.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog
import trio
import varint  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from overlay.discovery.keyspace import nearest
from overlay.errors import BadFrame, CallTimeout, PeerIdError, StreamBroken, Unreachable
from overlay.identity import public_key_of
from overlay.libp2p.addresses import ADDRESS_LIFETIME, libp2p_id
from overlay.libp2p.host import Host
from overlay.libp2p.workarounds.own_kad_protocol import kad_dht
from overlay.rpc.transport import ByteStream
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LONGEST_ANSWER = 256 * 1024  # bytes
_PEERS_PER_ANSWER = 64


class KnownPeer(msgspec.Struct, frozen=True):
    """A peer that was heard of, and where it may be reached; nothing says that it lives."""

    peer_id: str
    addresses: tuple[str, ...]


class KadRouting:
    """The routing table of one host; satisfies `overlay.discovery.routing_table.RoutingTable`."""

    def __init__(self, host: Host, settings: OverlaySettings, *, serve: bool) -> None:
        """`serve`: whether others may ask it, as they may ask members but not light clients."""
        self._host = host
        self._settings = settings
        self._dht = kad_dht(host.libp2p, settings.kad_protocol_id, serve=serve)

    def __len__(self) -> int:
        return int(self._dht.routing_table.size())

    def peers(self) -> list[str]:
        """Ids of all peers in the table."""
        return [str(peer) for peer in self._dht.routing_table.get_peer_ids()]

    def nearest(self, position: int, count: int) -> list[KnownPeer]:
        """The `count` known peers nearest to `position`, nearest first, with addresses."""
        return [
            KnownPeer(peer_id=peer_id, addresses=tuple(self._host.addresses_of(peer_id)))
            for peer_id in nearest(position, self.peers(), count)
        ]

    async def add(self, peer_id: str) -> None:
        """Enter a member, or refresh its entry; a full bucket first pings its oldest peer.

        Leaves a member out whose addresses aren't known.
        """
        addresses = [Multiaddr(text) for text in self._host.addresses_of(peer_id)]
        if not addresses:
            return  # others couldn't be sent there; its link makes it a member all the same
        peer = libp2p_id(peer_id)
        self._host.libp2p.get_peerstore().add_addrs(peer, addresses, ADDRESS_LIFETIME)
        with trio.move_on_after(self._settings.dial_timeout):
            await self._dht.routing_table.add_peer(PeerInfo(peer, addresses), skip_server_mode_check=True)

    def remove(self, peer_id: str) -> None:
        """Take a peer out, as one that can't be reached."""
        self._dht.routing_table.remove_peer(libp2p_id(peer_id))

    async def find_node(self, peer_id: str, key: bytes, *, timeout: float) -> list[KnownPeer]:
        """What `peer_id` knows near `key`, asked over Kad's own protocol; `key` is hashed to its position.

        For peers that aren't members; members are asked over their link. Raises `CallFailed` of the fitting kind.
        """
        request = Message()
        request.type = Message.MessageType.FIND_NODE
        request.key = key
        encoded = request.SerializeToString()
        answer: list[KnownPeer] | None = None
        with trio.move_on_after(timeout):
            stream = await self._host.open_stream(peer_id, self._settings.kad_protocol_id)
            try:
                await stream.write(varint.encode(len(encoded)) + encoded)
                answer = _known_peers(await _read_delimited(stream))
            except StreamBroken as error:
                raise Unreachable(peer_id, "FIND_NODE", str(error)) from error
            except (DecodeError, ValueError) as error:
                raise BadFrame(peer_id, "FIND_NODE", str(error)[:200]) from error
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                    await stream.reset()
        if answer is None:
            raise CallTimeout(peer_id, "FIND_NODE")
        return [known for known in answer if known.peer_id != self._host.peer_id]


async def _read_delimited(stream: ByteStream) -> bytes:
    """One message with its length before it. Raises ValueError when it's too long or cut."""
    received = b""
    while True:
        chunk = await stream.read_some(64 * 1024)
        if not chunk:
            raise ValueError("the answer was cut")
        received += chunk
        header = next((count for count, byte in enumerate(received[:10], 1) if byte < 0x80), None)
        if header is None:
            if len(received) >= 10:
                raise ValueError("the answer has no length")
            continue
        length = int(varint.decode_bytes(received[:header]))
        if length > _LONGEST_ANSWER:
            raise ValueError("the answer is too long")
        if len(received) >= header + length:
            return received[header : header + length]


def _known_peers(encoded: bytes) -> list[KnownPeer]:
    answer = Message()
    answer.ParseFromString(encoded)
    known: list[KnownPeer] = []
    for entry in answer.closerPeers[:_PEERS_PER_ANSWER]:
        peer_id = str(ID(entry.id))
        try:
            public_key_of(peer_id)
        except PeerIdError:
            continue
        known.append(KnownPeer(peer_id=peer_id, addresses=tuple(_texts(entry.addrs[:16]))))
    return known


def _texts(addresses: Sequence[bytes]) -> list[str]:
    texts: list[str] = []
    for raw in addresses:
        try:
            texts.append(str(Multiaddr(raw)))
        except Exception as error:  # the library raises whatever its codecs do
            log.debug("an address in an answer is invalid", error=repr(error)[:100])
    return texts
