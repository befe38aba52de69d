"""Gossip over libp2p's gossipsub, as `overlay.pubsub.gossip` describes it, with every message passing admission."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from libp2p.abc import IHost
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator

from overlay.libp2p.workarounds.guarded_pubsub import GuardedPubsub, WaitUntilIn, guarded_pubsub, run_pubsub
from overlay.pubsub.admission import Admission, message_id
from overlay.tasks import TaskStatus


class Libp2pMessage:
    """A message of libp2p's as a `GossipMessage`."""

    def __init__(self, message: rpc_pb2.Message) -> None:
        self._message = message

    @property
    def topics(self) -> Sequence[str]:
        """The topics that the message names."""
        return self._message.topicIDs

    @property
    def payload(self) -> bytes:
        """What was announced."""
        return self._message.data

    def is_authentic(self) -> bool:
        """Whether it is signed by the peer that it names as its author."""
        try:
            return bool(signature_validator(self._message))
        except Exception:  # it raises for keys that are none
            return False


class Libp2pGossip:
    """The gossip of one host; satisfies `overlay.pubsub.gossip.Gossip`."""

    def __init__(self, host: IHost, admission: Admission, wait_until_in: WaitUntilIn) -> None:
        """`wait_until_in(peer_id)`: waits until anything may be said to a peer; False if it left before."""
        self._admission = admission
        self.pubsub: GuardedPubsub = guarded_pubsub(
            host,
            message_id=lambda message: message_id(message.topicIDs, message.data),
            admit=self._admit,
            charge=admission.charge,
            seen=admission.seen,
            wait_until_in=wait_until_in,
        )

    async def subscribe(self, topic: str) -> None:
        """Take part in a topic."""
        await self.pubsub.subscribe(topic)

    async def unsubscribe(self, topic: str) -> None:
        """Take part in a topic no more."""
        await self.pubsub.unsubscribe(topic)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send a message, signed by this peer, to the neighbours in a topic."""
        await self.pubsub.publish(topic, payload)

    def peers_in(self, topic: str) -> Collection[str]:
        """Ids of the connected peers that are known to have subscribed to a topic."""
        return {str(peer) for peer in self.pubsub.peer_topics.get(topic, ())}

    def backlogged(self, length: int) -> set[str]:
        """Ids of the peers for which at least `length` messages wait to be sent."""
        return {str(peer) for peer, queue in self.pubsub.peer_queues.items() if len(queue) >= length}

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled. An error ends gossip, with a log entry, and not the node."""
        await run_pubsub(self.pubsub, task_status=task_status)

    async def _admit(self, forwarder: str, message: rpc_pb2.Message) -> bool:
        return await self._admission.admit(forwarder, Libp2pMessage(message))
