"""Which messages of others are let in, and which peers are banned for what they sent.

Rules:
1. A peer may send so many messages per second; what is more is dropped unread, and its connection is read more slowly.
2. A message that was seen before is dropped.
3. A validator decides on the others. REJECT means that the message is false by its own content alone, whoever sees it
   and whenever: it counts against the peer that forwarded it, and a peer that forwards many of those is banned.
4. Messages that are true but old, or too many, are dropped without blame: whoever forwarded them may be honest.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final

import structlog
import trio
from cachetools import FIFOCache

from overlay.limits.token_bucket import TokenBuckets
from overlay.pubsub.gossip import GossipMessage
from overlay.settings import TopicLimits

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SEEN_REMEMBERED: Final = 16_384  # ids of messages
_REJECTED_REMEMBERED: Final = 4096  # ids of messages


class Verdict(enum.Enum):
    """What becomes of a message."""

    ACCEPT = "accept"
    """It was news: it is forwarded."""
    IGNORE = "ignore"
    """It is true, but not news, or more than its slot or sender may have: it is dropped."""
    REJECT = "reject"
    """It can't be true, whoever sees it and whenever: a function of topic and payload alone."""


Validator = Callable[[str, bytes, str], Awaitable[Verdict]]
"""(topic, payload, peer id of the forwarder) -> what becomes of the message. What it raises counts as IGNORE."""

Ban = Callable[[str, float], Awaitable[None]]
"""Ends all connections to a peer (base58) and takes none for so many seconds."""


class SeenMessages:
    """The ids of the latest messages, with the methods that libp2p calls on its own cache of them."""

    def __init__(self) -> None:
        self._ids: FIFOCache[bytes, None] = FIFOCache(_SEEN_REMEMBERED)

    def has(self, message_id: bytes) -> bool:
        """Whether the message was seen lately."""
        return message_id in self._ids

    def add(self, message_id: bytes) -> None:
        """Remember a message as seen."""
        self._ids[message_id] = None


def message_id(topics: Sequence[str], payload: bytes) -> bytes:
    """The id of a message, 32 bytes.

    It covers all that is validated, so no other message has it, and what several peers announce alike is one message.
    """
    summary = sha256()
    for topic in topics:
        name = topic.encode()
        summary.update(len(name).to_bytes(4, "big") + name)
    summary.update(b"\xff" + payload)
    return summary.digest()


class Admission:
    """Decides on each message of others, and keeps count of what each peer sent."""

    def __init__(self, limits: TopicLimits, ban: Ban) -> None:
        self._limits = limits
        self._ban = ban
        self._validators: dict[str, Validator] = {}  # of the topics that are open
        self._rejected: FIFOCache[bytes, None] = FIFOCache(_REJECTED_REMEMBERED)
        self._received = TokenBuckets(limits.rate, limits.burst, debt=limits.burst)
        self._faults = TokenBuckets(limits.invalid_rate, limits.invalid_burst, debt=limits.invalid_burst)
        self.seen = SeenMessages()
        """Messages that were forwarded, announced or ignored here."""
        self.forwarded = 0
        self.ignored = 0
        self.invalid = 0
        self.over_rate = 0
        """Messages dropped unread, because their sender sent more than it may."""
        self.banned = 0
        """Times that a peer was banned."""

    def open_topic(self, topic: str, validate: Validator) -> None:
        """Let messages of a topic in from now on, as `validate` decides."""
        self._validators[topic] = validate

    def close_topic(self, topic: str) -> None:
        """Ignore messages of a topic from now on."""
        self._validators.pop(topic, None)

    def charge(self, peer_id: str) -> bool:
        """Count one thing that a peer has sent, of whatever kind; False when it was more than it may send."""
        return self._received.take(peer_id, trio.current_time())

    def pause(self, peer_id: str) -> float:
        """Seconds for which nothing more should be read of a peer that sent more than it may."""
        return self._received.debt(peer_id, trio.current_time())

    async def admit(self, forwarder: str, message: GossipMessage) -> bool:
        """Whether a message of a neighbour is good and news, so that it goes on to others."""
        if not self.charge(forwarder):
            self.over_rate += 1
            return False
        identity = message_id(message.topics, message.payload)
        if self.seen.has(identity):
            return False
        if identity in self._rejected or not _is_sound(message):
            verdict = Verdict.REJECT
        else:
            verdict = await self._validated(message.topics[0], message.payload, forwarder)
        if verdict is Verdict.REJECT:
            await self._blame(forwarder, message, identity)
            return False
        if verdict is Verdict.IGNORE:
            self.ignored += 1
            self.seen.add(identity)
            return False
        self.forwarded += 1
        return True

    async def _validated(self, topic: str, payload: bytes, forwarder: str) -> Verdict:
        validate = self._validators.get(topic)
        if validate is None:
            return Verdict.IGNORE
        try:
            return await validate(topic, payload, forwarder)
        except Exception as error:
            log.exception("validating a message failed", topic=topic, forwarder=forwarder, error=repr(error)[:200])
            return Verdict.IGNORE

    async def _blame(self, forwarder: str, message: GossipMessage, identity: bytes) -> None:
        self.invalid += 1
        log.debug("an invalid message", forwarder=forwarder, bytes=len(message.payload))
        if _is_sound(message):
            self._rejected[identity] = None  # for its content: it would be as bad under another signature
        if not self._faults.take(forwarder, trio.current_time()):
            self.banned += 1
            log.warning("a peer is banned: it sends invalid messages", peer_id=forwarder, seconds=self._limits.ban_time)
            await self._ban(forwarder, self._limits.ban_time)


def _is_sound(message: GossipMessage) -> bool:
    """Whether it is of one topic, and signed by the peer that it names as its author."""
    return len(message.topics) == 1 and message.is_authentic()
