"""Topics: announcements to every peer that joined one. `overlay.pubsub.admission` decides on messages of others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog
import trio
from msgspec import Struct

from overlay.pubsub.admission import Admission, Validator, Verdict
from overlay.pubsub.gossip import LONGEST_TOPIC, Gossip
from overlay.settings import TopicLimits
from overlay.tasks import Broadcast, TaskStatus, Wakeup

__all__ = ["TopicStatistics", "Topics", "Validator", "Verdict"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LONGEST_BACKLOG: Final = 24  # messages that may wait for one peer; libp2p drops those beyond 32
_BACKLOG_TIMEOUT: Final = 0.1  # seconds for a peer's backlog to get shorter


class TopicStatistics(Struct, frozen=True, kw_only=True):
    """Topics now, and messages since the start."""

    topics: int
    """Topics that this peer is in."""
    published: int
    """Messages of its own."""
    forwarded: int
    """Messages of others that were news."""
    ignored: int
    """Messages that were true, but not news."""
    invalid: int
    """Messages that can't be true."""
    over_rate: int
    """Messages dropped unread, because their sender sent more than it may."""
    banned: int
    """Times that a peer was banned."""


class Topics:
    """Joins and leaves topics, and announces in them."""

    def __init__(self, gossip: Gossip, admission: Admission, limits: TopicLimits) -> None:
        self._gossip = gossip
        self._admission = admission
        self._limits = limits
        self._uses: dict[str, int] = {}
        self._validators: dict[str, Validator] = {}  # of all topics that are used or were lately
        self._unused_since: dict[str, float] = {}
        self._joined: set[str] = set()
        self._changed = Wakeup()
        self._settled = Broadcast()
        self._slow: set[str] = set()
        self._published = 0

    async def join(self, topic: str, validate: Validator) -> bool:
        """Use a topic once more. False when this peer is in as many others as it may be, or gossip has ended.

        `validate` decides on the topic's messages, until the topic is left; whoever joins it later uses it as it is.
        """
        if not 0 < len(topic) <= LONGEST_TOPIC or not self._has_room_for(topic):
            return False
        self._uses[topic] = self._uses.get(topic, 0) + 1
        self._validators.setdefault(topic, validate)
        self._unused_since.pop(topic, None)
        with trio.move_on_after(self._limits.join_timeout):
            while topic not in self._joined:
                self._changed.set()
                await self._settled.wait()
        if topic not in self._joined:
            self.leave(topic)
        return topic in self._joined

    def leave(self, topic: str) -> None:
        """Use a topic once less; the topic itself is left a while after its last use."""
        if topic not in self._uses:
            return
        self._uses[topic] -= 1
        if self._uses[topic] <= 0:
            del self._uses[topic]
            self._unused_since[topic] = trio.current_time()
            self._changed.set()

    def peers_in(self, topic: str) -> Collection[str]:
        """The connected peers that are known to be in a topic, be this one in it or not."""
        return self._gossip.peers_in(topic)

    async def announce(self, topic: str, payload: bytes) -> None:
        """Send a message to every peer in a topic. A peer that doesn't take it in time goes without."""
        self._published += 1
        await trio.lowlevel.checkpoint()  # libp2p has none on this path, and many announcements would block the loop
        await self._wait_for_backlogs(topic)
        await self._gossip.publish(topic, payload)

    def statistics(self) -> TopicStatistics:
        """Counts as of now."""
        admission = self._admission
        return TopicStatistics(
            topics=len(self._joined),
            published=self._published,
            forwarded=admission.forwarded,
            ignored=admission.ignored,
            invalid=admission.invalid,
            over_rate=admission.over_rate,
            banned=admission.banned,
        )

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join and leave until cancelled. One task does it all: interrupted, libp2p would leave a topic half joined."""
        task_status.started()
        while True:
            for topic in [topic for topic in self._uses if topic not in self._joined]:
                await self._gossip.subscribe(topic)
                self._joined.add(topic)
                self._admission.open_topic(topic, self._validators[topic])
            for topic in self._due():
                if topic in self._uses:  # again, while another was left
                    continue
                self._joined.discard(topic)
                self._admission.close_topic(topic)
                del self._unused_since[topic], self._validators[topic]
                await self._gossip.unsubscribe(topic)
            self._settled.send()
            with trio.move_on_at(
                min(self._unused_since.values(), default=trio.current_time() + 3600) + self._limits.linger
            ):
                await self._changed.wait()

    def _has_room_for(self, topic: str) -> bool:
        return topic in self._uses or len(self._uses) < self._limits.max_topics

    def _due(self) -> list[str]:
        """Topics to leave: those not used for a while, and those that take the place of others."""
        now = trio.current_time()
        by_age = sorted(self._unused_since, key=lambda topic: self._unused_since[topic])
        surplus = len(self._uses) + len(by_age) - self._limits.max_topics
        return [
            topic
            for number, topic in enumerate(by_age)
            if number < surplus or self._unused_since[topic] + self._limits.linger <= now  # as `run` waits
        ]

    async def _wait_for_backlogs(self, topic: str) -> None:
        """Let the backlogs of peers in the topic get shorter: libp2p drops what is too much, silently.

        A peer that takes nothing is waited for once, until it has caught up.
        """
        backlogged = self._gossip.backlogged(_LONGEST_BACKLOG)
        self._slow &= backlogged
        waited_for = backlogged.intersection(self.peers_in(topic)) - self._slow if backlogged else set()
        if not waited_for:
            return
        with trio.move_on_after(_BACKLOG_TIMEOUT):
            while waited_for & self._gossip.backlogged(_LONGEST_BACKLOG):  # noqa: ASYNC110 - libp2p's queue tells nobody
                await trio.sleep(_BACKLOG_TIMEOUT / 20)
        self._slow |= waited_for & self._gossip.backlogged(_LONGEST_BACKLOG)
