"""Topics: announcements that reach everybody who joined, over gossip.

What a message means is its users' business. They judge it: a message that can't be true by its own content alone counts
against who sent it, and a peer that sends many of those is banned for a while. Messages that are true but old, or too
many, are dropped without blame: their forwarders may be honest.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import Final

import structlog
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator
from msgspec import Struct

from overlay.libp2p.workarounds.guarded_pubsub import MAX_TOPIC, GuardedPubsub
from overlay.limits.token_bucket import TokenBuckets
from overlay.settings import TopicLimits
from overlay.tasks import TaskStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_BAD_REMEMBERED: Final = 4096  # ids of bad messages
_ROOM_FOR: Final = 24  # messages that may wait for one peer; libp2p drops what comes after 32
_PATIENCE: Final = 0.1  # seconds for a peer's queue to get shorter


class Verdict(enum.Enum):
    """What becomes of a message."""

    ACCEPT = "accept"
    """It was news: to others, too."""
    IGNORE = "ignore"
    """True, but not news, or more than its slot or sender may have."""
    REJECT = "reject"
    """Can't be true, whoever sees it and whenever: a function of topic and payload alone."""


Validator = Callable[[str, bytes, str], Awaitable[Verdict]]
"""(topic, payload, peer id of who forwarded it) -> what becomes of it. What it raises counts as IGNORE."""

Ban = Callable[[str, float], Awaitable[None]]
"""Ends all connections to a peer and takes none for so many seconds."""


class TopicStatistics(Struct, frozen=True, kw_only=True):
    """Topics now, and messages since the start."""

    topics: int
    published: int
    forwarded: int
    ignored: int
    """True, but not news."""
    invalid: int
    over_rate: int
    """Dropped unread, because their sender sent more than it may."""
    banned: int
    """Times that a peer was banned."""


def message_id(message: rpc_pb2.Message) -> bytes:
    """Covers everything that is judged, so no twin of a message has its id, and all who announce the same are one."""
    summary = sha256()
    for topic in message.topicIDs:
        name = topic.encode()
        summary.update(len(name).to_bytes(4, "big") + name)
    summary.update(b"\xff" + message.data)
    return summary.digest()


class Topics:
    """Joining, leaving, announcing and judging on one peer."""

    def __init__(self, pubsub: GuardedPubsub, limits: TopicLimits, ban: Ban) -> None:
        self._pubsub = pubsub
        self._limits = limits
        self._ban = ban
        self._validator: Validator | None = None
        self._uses: dict[str, int] = {}
        self._unused_since: dict[str, float] = {}
        self._joined: set[str] = set()
        self._changed = trio.Event()
        self._settled = trio.Event()
        self._bad: OrderedDict[bytes, None] = OrderedDict()
        self._received = TokenBuckets(limits.rate, limits.burst, debt=limits.burst)
        self._faults = TokenBuckets(limits.invalid_rate, limits.invalid_burst, debt=limits.invalid_burst)
        self._slow: set[str] = set()
        self._published = self._forwarded = self._ignored = self._invalid = self._over_rate = self._banned = 0
        pubsub.admit = self._admit
        pubsub.charge = self._charge

    def _charge(self, peer_id: str) -> bool:
        return self._received.take(peer_id, trio.current_time())

    def pause(self, peer_id: str) -> float:
        """Seconds for which nothing more should be read of a peer that sent more than it may."""
        return self._received.debt(peer_id, trio.current_time())

    def validate_with(self, validate: Validator) -> None:
        """Have `validate` decide on messages of topics joined here."""
        self._validator = validate

    async def join(self, topic: str) -> bool:
        """One more use of a topic here. False when this peer is in as many others as it may be, or gossip is off."""
        if not 0 < len(topic) <= MAX_TOPIC or not self._make_room_for(topic):
            return False
        self._uses[topic] = self._uses.get(topic, 0) + 1
        self._unused_since.pop(topic, None)
        with trio.move_on_after(self._limits.join_timeout):
            while topic not in self._joined:
                self._changed.set()
                await self._settled.wait()
        if topic not in self._joined:
            self.leave(topic)
        return topic in self._joined

    def leave(self, topic: str) -> None:
        """One use less; the topic itself is left a while after its last use."""
        if topic not in self._uses:
            return
        self._uses[topic] -= 1
        if self._uses[topic] <= 0:
            del self._uses[topic]
            self._unused_since[topic] = trio.current_time()
            self._changed.set()

    def peers_in(self, topic: str) -> Collection[str]:
        """The connected peers that are known to be in a topic, be this one in it or not."""
        return {str(peer) for peer in self._pubsub.peer_topics.get(topic, ())}

    async def announce(self, topic: str, payload: bytes) -> None:
        """Send to everybody in a topic. Who doesn't take it in time goes without."""
        self._published += 1
        await trio.lowlevel.checkpoint()  # libp2p has none on this way, and whoever announces much would block the loop
        await self._wait_for_room(topic)
        await self._pubsub.publish(topic, payload)

    def statistics(self) -> TopicStatistics:
        """Counts as of now."""
        return TopicStatistics(
            topics=len(self._joined),
            published=self._published,
            forwarded=self._forwarded,
            ignored=self._ignored,
            invalid=self._invalid,
            over_rate=self._over_rate,
            banned=self._banned,
        )

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join and leave until cancelled. One task does it all: interrupted, libp2p would leave a topic half joined."""
        task_status.started()
        while True:
            self._changed = trio.Event()
            for topic in [topic for topic in self._uses if topic not in self._joined]:
                await self._pubsub.subscribe(topic)
                self._joined.add(topic)
            for topic in self._due():
                self._joined.discard(topic)
                del self._unused_since[topic]
                await self._pubsub.unsubscribe(topic)
            settled, self._settled = self._settled, trio.Event()
            settled.set()
            with trio.move_on_at(
                min(self._unused_since.values(), default=trio.current_time() + 3600) + self._limits.linger
            ):
                await self._changed.wait()

    def _make_room_for(self, topic: str) -> bool:
        return topic in self._uses or len(self._uses) < self._limits.max_topics

    def _due(self) -> list[str]:
        """Topics to leave: not used for a while, or in the way of others."""
        now = trio.current_time()
        by_age = sorted(self._unused_since, key=lambda topic: self._unused_since[topic])
        surplus = len(self._uses) + len(by_age) - self._limits.max_topics
        return [
            topic
            for number, topic in enumerate(by_age)
            if number < surplus or now - self._unused_since[topic] >= self._limits.linger
        ]

    async def _admit(self, forwarder: str, message: rpc_pb2.Message) -> bool:
        if not self._received.take(forwarder, trio.current_time()):
            self._over_rate += 1
            return False
        identity = message_id(message)
        if self._pubsub.seen_messages.has(identity):
            return False
        verdict = (
            Verdict.REJECT
            if identity in self._bad or not _is_sound(message)
            else await self._validated(message, forwarder)
        )
        if verdict is Verdict.REJECT:
            await self._blame(forwarder, message, identity)
            return False
        if verdict is Verdict.IGNORE:
            self._ignored += 1
            self._pubsub.seen_messages.add(identity)
            return False
        self._forwarded += 1
        return True

    async def _validated(self, message: rpc_pb2.Message, forwarder: str) -> Verdict:
        topic = message.topicIDs[0]
        if self._validator is None or topic not in self._joined:
            return Verdict.IGNORE
        try:
            return await self._validator(topic, message.data, forwarder)
        except Exception as error:
            log.exception("judging a message failed", topic=topic, forwarder=forwarder, error=repr(error)[:200])
            return Verdict.IGNORE

    async def _blame(self, forwarder: str, message: rpc_pb2.Message, identity: bytes) -> None:
        self._invalid += 1
        log.debug("an invalid message", forwarder=forwarder, bytes=len(message.data))
        if _is_sound(message):
            # By its content: under another signature it would be just as bad.
            self._bad[identity] = None
            if len(self._bad) > _BAD_REMEMBERED:
                self._bad.popitem(last=False)
        if not self._faults.take(forwarder, trio.current_time()):
            self._banned += 1
            log.warning("a peer is banned: it sends invalid messages", peer_id=forwarder, seconds=self._limits.ban)
            await self._ban(forwarder, self._limits.ban)

    async def _wait_for_room(self, topic: str) -> None:
        """Let queues to peers in the topic get shorter: libp2p drops what is too much, silently.

        A peer that takes nothing is waited for once, until it has caught up.
        """
        queues = {str(peer): queue for peer, queue in self._pubsub.peer_queues.items() if len(queue) >= _ROOM_FOR}
        self._slow &= queues.keys()
        subscribed = {str(peer) for peer in self._pubsub.peer_topics.get(topic, ())}
        waited_for = [peer for peer in queues if peer in subscribed and peer not in self._slow]
        with trio.move_on_after(_PATIENCE):
            for peer in waited_for:
                while len(queues[peer]) >= _ROOM_FOR:  # noqa: ASYNC110 - libp2p's queue tells nobody
                    await trio.sleep(_PATIENCE / 20)
        self._slow.update(peer for peer in waited_for if len(queues[peer]) >= _ROOM_FOR)


def _is_sound(message: rpc_pb2.Message) -> bool:
    """Of one topic, and signed by whom it names as its author."""
    try:
        return len(message.topicIDs) == 1 and bool(signature_validator(message))
    except Exception:  # it raises for keys that are none
        return False
