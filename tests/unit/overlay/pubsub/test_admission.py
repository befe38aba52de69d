"""Which messages are let in, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio
import trio.testing

from overlay.pubsub.admission import Admission, Verdict
from overlay.settings import TopicLimits

LIMITS = TopicLimits(rate=1.0, burst=100.0, invalid_rate=0.1, invalid_burst=2.0, ban_time=7.0)


@dataclass
class PlayedMessage:
    payload: bytes
    topics: Sequence[str] = ("topic",)
    is_signed: bool = True

    def is_authentic(self) -> bool:
        return self.is_signed


class Played:
    """An admission whose validator says `verdict`, and the bans that it asked for."""

    def __init__(self, limits: TopicLimits = LIMITS) -> None:
        self.verdict = Verdict.ACCEPT
        self.validated: list[bytes] = []
        self.bans: list[tuple[str, float]] = []
        self.admission = Admission(limits, self.ban)
        self.admission.open_topic("topic", self._validate)

    async def ban(self, peer_id: str, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.bans.append((peer_id, seconds))

    async def _validate(self, topic: str, payload: bytes, forwarder: str) -> Verdict:
        await trio.lowlevel.checkpoint()
        self.validated.append(payload)
        return self.verdict

    async def admit(self, message: PlayedMessage, forwarder: str = "peer") -> bool:
        return await self.admission.admit(forwarder, message)


async def test_news_is_admitted_and_counted() -> None:
    played = Played()
    assert await played.admit(PlayedMessage(b"news"))
    assert played.admission.forwarded == 1


async def test_what_was_ignored_is_not_validated_again() -> None:
    played = Played()
    played.verdict = Verdict.IGNORE
    assert not await played.admit(PlayedMessage(b"old"))
    assert not await played.admit(PlayedMessage(b"old"), "another")
    assert played.validated == [b"old"]
    assert played.admission.ignored == 1


async def test_what_was_rejected_counts_against_every_forwarder_and_is_validated_once() -> None:
    played = Played()
    played.verdict = Verdict.REJECT
    assert not await played.admit(PlayedMessage(b"false"))
    assert not await played.admit(PlayedMessage(b"false"), "another")
    assert played.validated == [b"false"]
    assert played.admission.invalid == 2


async def test_messages_that_are_unsigned_or_of_several_topics_are_rejected_without_being_validated() -> None:
    played = Played()
    assert not await played.admit(PlayedMessage(b"forged", is_signed=False))
    assert not await played.admit(PlayedMessage(b"double", topics=("topic", "other")))
    assert not await played.admit(PlayedMessage(b"none", topics=()), "another")
    assert played.validated == []
    assert played.admission.invalid == 3
    assert await played.admit(PlayedMessage(b"forged")), "the forgery must not block the true message"


async def test_messages_of_topics_that_are_closed_are_ignored() -> None:
    played = Played()
    assert not await played.admit(PlayedMessage(b"foreign", topics=("other",)))
    played.admission.close_topic("topic")
    assert not await played.admit(PlayedMessage(b"late"))
    assert played.admission.ignored == 2
    assert played.bans == []


async def test_too_many_invalid_messages_are_a_ban_and_time_forgives_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    played = Played()
    played.verdict = Verdict.REJECT
    for number in range(2):
        await played.admit(PlayedMessage(b"%d" % number))
    await trio.sleep(10)
    await played.admit(PlayedMessage(b"2"))
    assert played.bans == []
    await played.admit(PlayedMessage(b"3"))
    assert played.bans == [("peer", 7.0)]
    assert played.admission.banned == 1


async def test_what_is_over_the_rate_is_dropped_unread_and_its_sender_read_more_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    played = Played(TopicLimits(rate=1.0, burst=2.0))
    admitted = [await played.admit(PlayedMessage(b"%d" % number)) for number in range(4)]
    assert admitted == [True, True, False, False]
    assert played.admission.over_rate == 2
    assert played.admission.pause("peer") == 2.0
    assert played.admission.pause("another") == 0.0
    await trio.sleep(3)
    assert await played.admit(PlayedMessage(b"later"))
