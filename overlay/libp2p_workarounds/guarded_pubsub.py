"""Faults of gossip in libp2p, of which each stops it or loses messages, and the configuration that avoids them.

- A message with a bad key, or a validator that raises, ends Pubsub, and with it the host (`validators.py:62`).
- More than 10 messages a second per (neighbour, topic) are dropped silently, own ones too.
- The 1 s heartbeat turns into 30 to 60 s when peers join (adaptive gossip).
- Scoring with all weights zero grafts and prunes without end; so does the protection from eclipses.
- What is published is queued for peers that don't subscribe to it.
- More than 100 topics of a peer are ignored by the others.

Remove each with its fix upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GOSSIP_PROTOCOLS = (TProtocol("/meshsub/1.1.0"), TProtocol("/meshsub/1.0.0"))
_TOPICS_PER_PEER = 100_000


class GuardedPubsub(Pubsub):
    """A Pubsub that a message can't end."""

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # whatever a message or a validator raises is the fault under remedy
            log.info("a gossip message was dropped", forwarder=str(msg_forwarder), error=repr(error)[:200])


def guarded_pubsub(host: IHost) -> GuardedPubsub:
    """Gossip on `host`, subscribed to nothing; it runs once `run_gossip` does."""
    router = GossipSub(
        protocols=GOSSIP_PROTOCOLS,
        degree=4,
        degree_low=3,
        degree_high=8,
        heartbeat_interval=1,
        spam_protection_enabled=False,
        adaptive_gossip_enabled=False,
        eclipse_protection_enabled=False,
        pending_messages_ttl=0.0,
    )
    router.scorer = None
    return GuardedPubsub(host, router, max_subscriptions_per_peer=_TOPICS_PER_PEER)


async def run_gossip(pubsub: GuardedPubsub, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
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
