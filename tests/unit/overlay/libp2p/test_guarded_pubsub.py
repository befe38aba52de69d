"""What gossip keeps, and does, of what a peer says of topics."""

from __future__ import annotations

import pytest
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from overlay.libp2p.workarounds import guarded_pubsub as guarded
from overlay.libp2p.workarounds.guarded_pubsub import GuardedPubsub, GuardedRouter, guarded_pubsub
from overlay.pubsub.admission import SeenMessages

OURS, OTHER = "ours", "other"


class Gossip:
    """The gossip of a host that doesn't run; each peer may send `allowed` things."""

    def __init__(self, allowed: int = 10**9) -> None:
        self.left = allowed
        key_pair = create_new_key_pair(Identity.generate().seed)
        self.pubsub: GuardedPubsub = guarded_pubsub(
            new_host(key_pair=key_pair),
            message_id=lambda message: message.data,
            admit=self._admit,
            charge=self._charge,
            seen=SeenMessages(),
        )
        assert isinstance(self.pubsub.router, GuardedRouter)
        self.router = self.pubsub.router
        self.router.mesh[OURS] = set()

    async def _admit(self, forwarder: str, message: rpc_pb2.Message) -> bool:
        return False

    def _charge(self, peer_id: str) -> bool:
        self.left -= 1
        return self.left >= 0


def a_peer() -> ID:
    return libp2p_id(Identity.generate().peer_id)


def subscription(topic: str, subscribe: bool = True) -> rpc_pb2.RPC.SubOpts:
    return rpc_pb2.RPC.SubOpts(subscribe=subscribe, topicid=topic)


def pruning(topic: str, back_off: int = 10) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    prune = rpc.control.prune.add(topicID=topic, backoff=back_off)
    prune.peers.add(peerID=a_peer().to_bytes())
    return rpc


async def test_prunes_of_topics_that_we_are_not_in_leave_nothing() -> None:
    gossip, peer = Gossip(), a_peer()
    for number in range(100):
        await gossip.router.handle_rpc(pruning(f"{OTHER} {number}"), peer)
    assert not gossip.router.back_off
    assert not gossip.router.graft_flood_tracking


async def test_what_a_prune_says_goes_with_its_peer_and_names_nobody_to_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    gossip, peer = Gossip(), a_peer()
    dialled: list[object] = []

    async def dial(peers: list[object]) -> None:
        dialled.extend(peers)

    monkeypatch.setattr(gossip.router, "_do_px", dial)
    gossip.router.mesh[OURS].add(peer)
    await gossip.router.handle_rpc(pruning(OURS, back_off=2**60), peer)
    assert peer not in gossip.router.mesh[OURS]
    [until] = gossip.router.back_off[OURS].values()
    assert until < 2**32
    assert dialled == []
    gossip.router.remove_peer(peer)
    assert not gossip.router.back_off


async def test_each_part_of_a_control_message_counts() -> None:
    gossip, peer = Gossip(allowed=50), a_peer()
    rpc = rpc_pb2.RPC()
    for _ in range(100):
        rpc.control.graft.add(topicID=OURS)
    await gossip.router.handle_rpc(rpc, peer)
    assert peer not in gossip.router.mesh[OURS]
    assert gossip.left < 0
    few = rpc_pb2.RPC()
    few.control.graft.add(topicID=OURS)
    gossip.left = 50
    await gossip.router.handle_rpc(few, peer)
    assert peer in gossip.router.mesh[OURS]


def test_subscriptions_are_remembered_until_they_end() -> None:
    gossip, peer = Gossip(), a_peer()
    for topic in ("a", "b", "a"):
        gossip.pubsub.handle_subscription(peer, subscription(topic))
    assert gossip.pubsub.peer_topics == {"a": {peer}, "b": {peer}}
    gossip.pubsub.handle_subscription(peer, subscription("a", subscribe=False))
    assert gossip.pubsub.peer_topics == {"b": {peer}}


def test_topics_of_all_peers_are_bounded_and_each_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "MOST_TOPICS", 1000)
    gossip, greedy, modest = Gossip(), a_peer(), a_peer()
    for number in range(2000):
        gossip.pubsub.handle_subscription(greedy, subscription(f"{OTHER} {number}"))
    assert len(gossip.pubsub.peer_topics) == 1000
    for number in range(100):
        gossip.pubsub.handle_subscription(modest, subscription(f"modest {number}"))
    assert len(gossip.pubsub.peer_topics) == 1000 + guarded.ASSURED_TOPICS
    gossip.pubsub.handle_subscription(greedy, subscription(f"{OTHER} 1", subscribe=False))
    gossip.pubsub.handle_subscription(greedy, subscription(f"{OTHER} 2000"))
    assert f"{OTHER} 2000" not in gossip.pubsub.peer_topics
