"""libp2p's Kad-DHT under our own protocol id: a routing table of members, and FIND_NODE with other peers.

Members enter the table when their link comes up and leave it when they can't be reached any more; nobody else does.
Peers of other implementations may ask us who is near a position, and be asked. The table's order is that of
`overlay.discovery.keyspace`: sha256 of peer ids under XOR.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import trio
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.peerinfo import PeerInfo

from overlay.discovery.keyspace import nearest
from overlay.errors import BadFrame, CallTimeout, PeerIdError, StreamBroken, Unreachable
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.kad_messages import LONGEST_ANSWER, KnownPeer, MessageReader, encoded, told
from overlay.libp2p.kad_server import KadServer
from overlay.libp2p.workarounds.kademlia_table import KademliaTable
from overlay.rpc.transport import Transport
from overlay.settings import OverlaySettings


class KadHost(Transport, Protocol):
    """What routing needs of the host: satisfied by `overlay.libp2p.host.Host`."""

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        """Connect to the peer at a multiaddr, and return its id. Raises `Unreachable` or `AddressError`."""
        ...


class KadRouting:
    """The routing table of one host; satisfies `overlay.discovery.routing_table.RoutingTable`."""

    def __init__(self, host: KadHost, settings: OverlaySettings, *, serve: bool) -> None:
        """`serve`: whether others may ask it, as they may ask members but not light clients."""
        self._host = host
        self._settings = settings
        self._table = KademliaTable(libp2p_id(host.peer_id))
        if serve:
            host.set_stream_handler(settings.kad_protocol_id, KadServer(self._live_nearest).handle)

    def __len__(self) -> int:
        return self._table.size()

    def peers(self) -> list[str]:
        """Ids of all peers in the table."""
        return [str(peer) for peer in self._table.get_peer_ids()]

    def nearest(self, position: int, count: int) -> list[KnownPeer]:
        """The `count` known peers nearest to `position`, nearest first, with addresses."""
        return self._with_addresses(nearest(position, self.peers(), count))

    async def add(self, peer_id: str) -> None:
        """Enter a member that is linked, or refresh its entry. A full bucket keeps its older peers while they live.

        Leaves a member out whose addresses aren't known: others couldn't be sent there.
        """
        await trio.lowlevel.checkpoint()
        if self._host.addresses_of(peer_id):
            self._table.enter(PeerInfo(libp2p_id(peer_id), []))  # its addresses are in the book

    def remove(self, peer_id: str) -> None:
        """Take a peer out, as one that can't be reached."""
        with suppress(PeerIdError):  # what is none was never in it
            self._table.remove_peer(libp2p_id(peer_id))

    def note_failure(self, peer_id: str) -> None:
        """A peer couldn't be reached just now: others aren't sent to it, and a newcomer may take its place."""
        with suppress(PeerIdError):
            self._table.note_failure(libp2p_id(peer_id))

    async def find_node(self, peer_id: str, key: bytes, *, timeout: float) -> list[KnownPeer]:
        """What `peer_id` knows near `key`, asked over Kad's own protocol; `key` is hashed to its position.

        For peers that aren't members; members are asked over their link. Raises `CallFailed` of the fitting kind.
        """
        request = Message(type=Message.MessageType.FIND_NODE, key=key)
        answer: Message | None = None
        with trio.move_on_after(timeout) as scope:
            stream = await self._host.open_stream(peer_id, self._settings.kad_protocol_id)
            try:
                await stream.write(encoded(request))
                answer = await MessageReader(stream, LONGEST_ANSWER).next()
            except StreamBroken as error:
                raise Unreachable(peer_id, "FIND_NODE", str(error)) from error
            except (DecodeError, ValueError) as error:
                raise BadFrame(peer_id, "FIND_NODE", str(error)[:200]) from error
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(0.5):
                    await stream.reset()
        if scope.cancelled_caught:
            raise CallTimeout(peer_id, "FIND_NODE")
        if answer is None:
            raise BadFrame(peer_id, "FIND_NODE", "no answer")
        found: list[KnownPeer] = []
        for known in told(answer):
            if known.peer_id != self._host.peer_id:
                found.append(known)
            await trio.lowlevel.checkpoint()
        return found

    async def find_members_at(self, multiaddr: str, *, timeout: float) -> list[str]:
        """Ask the peer at a multiaddr, a member or not, for peers near us; remembers their addresses.

        Returns who they are, nearest to us first; linking to them shows whether they are members. So a peer joins
        through any peer of the Kad protocol that knows members. Raises `CallFailed`, `AddressError`.
        """
        deadline = trio.current_time() + timeout
        peer_id = await self._host.connect(multiaddr, timeout=timeout)
        own_key = libp2p_id(self._host.peer_id).to_bytes()
        known = await self.find_node(peer_id, own_key, timeout=max(deadline - trio.current_time(), 0.0))
        for peer in known:
            self._host.add_addresses(peer.peer_id, peer.addresses, teller=peer_id)
            await trio.lowlevel.checkpoint()  # parsing those of one takes milliseconds
        return [peer.peer_id for peer in known]

    def known_near(self, position: int, count: int) -> list[str]:
        """The `count` peers in it nearest to a position that didn't fail lately, nearest first."""
        live = (str(peer) for peer in self._table.get_peer_ids() if not self._table.has_failed(peer))
        return nearest(position, live, count)

    def _live_nearest(self, position: int, count: int) -> list[KnownPeer]:
        return self._with_addresses(self.known_near(position, count))

    def _with_addresses(self, peer_ids: list[str]) -> list[KnownPeer]:
        return [KnownPeer(peer_id, tuple(self._host.addresses_of(peer_id))) for peer_id in peer_ids]
