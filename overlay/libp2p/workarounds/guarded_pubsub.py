"""Faults of gossip in libp2p, of which each stops it, loses messages or takes memory, and what avoids them.

- A message with a bad key, or a validator that raises, ends Pubsub, and with it the host (`validators.py:62`).
- More than 10 messages a second per (neighbour, topic) are dropped silently, own ones too.
- The 1 s heartbeat turns into 30 to 60 s when peers join (adaptive gossip).
- Scoring with all weights zero grafts and prunes without end; so does the protection from eclipses.
- What is published is queued for peers that don't subscribe to it.
- More than 100 topics of a peer are ignored by the others, and topics of any length are remembered.
- The results of validators aren't told to anybody, so nobody learns who sends bad messages (`Pubsub.push_msg`). So
  admission is a function given from outside; nothing is validated, cached or handed to subscriptions here.
- The ids of seen messages, and the times of deliveries per topic, are kept without a bound
  (`GossipSub.recent_message_deliveries`).
- Sequence numbers begin at the time in seconds: a restarted peer that had sent more than one message a second repeats
  some, which others drop as equivocation.
- Each message carries its sender's signed addresses, which each receiver verifies again; we tell them otherwise.
- Neither messages nor subscriptions nor control messages are counted, except for some: all are here.
- What a PRUNE says of any topic, of any length and for any time, is kept for ever, and the peers that it names are
  dialled. A GRAFT of a topic that we aren't in is answered, after a millisecond for our signed addresses. Here what is
  said of such topics is dropped.
- A peer that connects is told all topics at once. In a private network it has to be let in first.
- Each subscription starts three tasks, which do nothing for a topic that we aren't in, and all that a peer may have are
  kept, however many peers there are.

Remove each with its fix upstream.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

import structlog
import trio
from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from overlay.pubsub.gossip import LONGEST_TOPIC
from overlay.tasks import TaskStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GOSSIP_PROTOCOLS = (TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0"))
TOPICS_PER_PEER: Final = 4096
"""Subscriptions of one peer that are remembered."""

MOST_TOPICS: Final = 16_384
"""Topics that are remembered of all peers, but for `ASSURED_TOPICS` of each; 0.5 kB each."""

ASSURED_TOPICS: Final = 64
"""Subscriptions of one peer that are remembered however many others have."""

LONGEST_BACK_OFF: Final = 60
"""Seconds for which a peer may tell us to stay out of its mesh."""

_NAMES_AS_ONE: Final = 8  # control messages that only name messages and count as one
_IDS_AS_ONE: Final = 64  # ids in them that count as one message

Admit = Callable[[str, rpc_pb2.Message], Awaitable[bool]]
"""Whether a message by this forwarder (base58) is new and good, so that it goes on to others."""

MessageId = Callable[[rpc_pb2.Message], bytes]
"""The id under which a message is remembered."""

Charge = Callable[[str], bool]
"""Counts one thing that a peer (base58) has sent against what it may; False when it was too much."""


WaitUntilIn = Callable[[str], Awaitable[bool]]
"""Waits until anything may be said to a connected peer (base58); False if it left before."""


class Seen(Protocol):
    """The ids of the latest messages, in place of libp2p's cache, which has no bound."""

    def has(self, message_id: bytes) -> bool:
        """Whether a message was seen lately."""
        ...

    def add(self, message_id: bytes) -> None:
        """Remember a message as seen."""
        ...


class _NoTimes:
    """In place of lists of times per topic, which nothing reads in our configuration and nothing shortens."""

    def __getitem__(self, topic: str) -> list[float]:
        return []


class GuardedRouter(GossipSub):
    """A router that sends messages without their sender's addresses, and forgets topics that it left."""

    async def leave(self, topic: str) -> None:
        """Leave a topic, and keep nothing of it."""
        await super().leave(topic)
        self.time_since_last_publish.pop(topic, None)

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Handle control messages of topics that we are in, of a peer that hasn't sent more than it may."""
        charge = cast("GuardedPubsub", self.pubsub).charge
        if all(charge(str(sender_peer_id)) for _ in range(_weight(rpc.control))):
            self._leave_out_unknown_topics(rpc.control)
            await super().handle_rpc(rpc, sender_peer_id)

    async def emit_control_message(self, control_msg: rpc_pb2.ControlMessage, to_peer: ID) -> None:
        """Send a control message without looking up our signed addresses."""
        rpc = rpc_pb2.RPC()
        rpc.control.CopyFrom(control_msg)
        self.send_rpc(to_peer, rpc, priority=True)

    def remove_peer(self, peer_id: ID) -> None:
        """Forget a peer that has left, and what it said of topics."""
        super().remove_peer(peer_id)
        for topic, peers in list(self.back_off.items()):
            peers.pop(peer_id, None)
            if not peers:
                del self.back_off[topic]

    def _leave_out_unknown_topics(self, control: rpc_pb2.ControlMessage) -> None:
        for named in (control.graft, control.prune, control.ihave):
            for number in range(len(named) - 1, -1, -1):
                if named[number].topicID not in self.mesh:
                    del named[number]
        for prune in control.prune:
            prune.ClearField("peers")
            prune.backoff = min(prune.backoff, LONGEST_BACK_OFF)

    def send_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, priority: bool = False) -> None:
        """Send without our signed addresses."""
        rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)


class GuardedPubsub(Pubsub):
    """A Pubsub that no message can end, and whose messages others validate."""

    def __init__(
        self,
        host: IHost,
        router: GuardedRouter,
        message_id: MessageId,
        admit: Admit,
        charge: Charge,
        seen: Seen,
        wait_until_in: WaitUntilIn | None,
    ) -> None:
        super().__init__(
            host, router, msg_id_constructor=message_id, max_subscriptions_per_peer=TOPICS_PER_PEER, strict_signing=True
        )
        self.seen_messages = cast("Any", seen)
        self.counter = time.time_ns()
        self.charge = charge
        self._admit = admit
        self._wait_until_in = wait_until_in

    async def _handle_new_peer(self, peer_id: ID) -> None:
        """Open the stream to a peer that connected, whose first message names our topics, once it may know them."""
        if self._wait_until_in is None or await self._wait_until_in(str(peer_id)):
            await super()._handle_new_peer(peer_id)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Forward a message that is admitted, or is our own."""
        try:
            message_id = self.get_message_id(msg)
            if msg_forwarder != self.my_id and not await self._admit(str(msg_forwarder), msg):
                return
            if self.seen_messages.has(message_id):
                return  # this peer announced the same itself while it was validated
            self.seen_messages.add(message_id)
            await self.router.publish(msg_forwarder, msg)
        except Exception as error:  # whatever a message raises is the fault under remedy
            log.info("a gossip message was dropped", forwarder=str(msg_forwarder), error=repr(error)[:200])

    def handle_subscription(self, origin_id: ID, sub_message: rpc_pb2.RPC.SubOpts) -> None:
        """Note that a peer subscribed or unsubscribed, unless it sent more than it may."""
        topic = sub_message.topicid
        if len(topic) > LONGEST_TOPIC or not self.charge(str(origin_id)):
            return
        router = cast("GuardedRouter", self.router)
        if not sub_message.subscribe or topic in router.mesh or topic in router.fanout:
            super().handle_subscription(origin_id, sub_message)
        elif origin_id not in self.peer_topics.get(topic, ()) and self._remembers_another(origin_id):
            self.peer_topics.setdefault(topic, set()).add(origin_id)
            self._peer_subscription_count[origin_id] = self._peer_subscription_count.get(origin_id, 0) + 1

    def _remembers_another(self, peer_id: ID) -> bool:
        count = self._peer_subscription_count.get(peer_id, 0)
        return count < (TOPICS_PER_PEER if len(self.peer_topics) < MOST_TOPICS else ASSURED_TOPICS)


def _weight(control: rpc_pb2.ControlMessage) -> int:
    """As how many messages it counts."""
    kinds = (control.ihave, control.iwant, control.idontwant)
    naming = sum(len(kind) for kind in kinds)
    ids = sum(len(one.messageIDs) for kind in kinds for one in kind)
    return 1 + len(control.graft) + len(control.prune) + naming // _NAMES_AS_ONE + ids // _IDS_AS_ONE


def guarded_pubsub(
    host: IHost,
    *,
    message_id: MessageId,
    admit: Admit,
    charge: Charge,
    seen: Seen,
    wait_until_in: WaitUntilIn | None = None,
) -> GuardedPubsub:
    """Gossip on `host`, subscribed to nothing; it runs once `run_pubsub` does."""
    router = GuardedRouter(
        protocols=GOSSIP_PROTOCOLS,
        degree=4,
        degree_low=3,
        # A topic is a star around the replicas that lead it: a peer cut off from them gets messages a heartbeat late.
        degree_high=128,
        heartbeat_interval=1,
        prune_back_off=2,
        unsubscribe_back_off=1,
        spam_protection_enabled=False,
        adaptive_gossip_enabled=False,
        eclipse_protection_enabled=False,
        pending_messages_ttl=0.0,
    )
    router.scorer = None
    router.recent_message_deliveries = cast("Any", _NoTimes())
    return GuardedPubsub(host, router, message_id, admit, charge, seen, wait_until_in)


async def run_pubsub(pubsub: GuardedPubsub, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Run gossip until cancelled. An error in it ends gossip, with a log entry, and not the node."""
    started = False
    try:
        assert isinstance(pubsub.router, GossipSub)
        async with background_trio_service(pubsub), background_trio_service(pubsub.router):
            await pubsub.wait_until_ready()
            task_status.started()
            started = True
            await trio.sleep_forever()
    except Exception as error:
        log.exception("gossip ended with an error; announcements are off until a restart", error=repr(error)[:200])
        if not started:
            raise
