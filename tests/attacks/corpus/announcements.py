"""Attacks through gossip: messages, subscriptions and control messages, more than anybody needs."""

from __future__ import annotations

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.utils import encode_varint_prefixed

from overlay.identity import Identity
from overlay.libp2p.addresses import libp2p_id
from tests.attacks.corpus.target import Target
from tests.attacks.corpus.wire import open_wire

_GOSSIP = "/meshsub/1.1.0"
_AT_ONCE = 20  # messages of one RPC


async def gossip_flood(target: Target) -> None:
    """Sends signed messages on topics that nobody is in, subscribes to thousands, and grafts and prunes."""
    identity = Identity.generate()
    keys = create_new_key_pair(identity.seed)
    async with open_wire(target) as wire:
        stream = await wire.open(_GOSSIP)
        async for _ in target.paced(30):
            rpc = rpc_pb2.RPC()
            for _ in range(_AT_ONCE):
                topic = target.random.randbytes(16).hex()
                message = rpc_pb2.Message(
                    data=target.random.randbytes(200),
                    topicIDs=[topic],
                    from_id=_id_of(identity),
                    seqno=target.random.randbytes(8),
                )
                message.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
                rpc.publish.append(message)
                rpc.subscriptions.append(rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic))
                rpc.control.graft.append(rpc_pb2.ControlGraft(topicID=topic))
                rpc.control.prune.append(rpc_pb2.ControlPrune(topicID=topic * 4, backoff=2**40))
                rpc.control.ihave.append(rpc_pb2.ControlIHave(topicID=topic, messageIDs=[topic.encode()] * 10))
            await wire.send(stream, encode_varint_prefixed(rpc.SerializeToString()))
            target.done["messages"] += _AT_ONCE


async def forged_gossip(target: Target) -> None:
    """Sends messages under others' names, and what is no message, as new peers again and again."""
    async with open_wire(target) as wire:
        stream = await wire.open(_GOSSIP)
        async for _ in target.paced(40):
            rpc = rpc_pb2.RPC()
            rpc.publish.add(
                data=bytes(1000),
                topicIDs=["forged"],
                from_id=_id_of(Identity.generate()),
                seqno=target.random.randbytes(8),
                signature=bytes(64),
                key=target.random.randbytes(36),
            )
            await wire.send(stream, encode_varint_prefixed(rpc.SerializeToString()))
            target.done["messages"] += 1
            if target.random.random() < 0.1:
                await wire.send(stream, encode_varint_prefixed(target.random.randbytes(50_000)))


def _id_of(identity: Identity) -> bytes:
    return bytes(libp2p_id(identity.peer_id).to_bytes())
