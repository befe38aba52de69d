"""Decides whether an announcement is true and news, and hands it to those who take it: for topics and calls alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
import trio

from overlay.limits.token_bucket import TokenBuckets
from overlay.pubsub.topics import Verdict
from registry.errors import InvalidValue, RegistryError, UnknownKind
from registry.model.verification import check_field_limits, check_key_or_tombstone, check_state
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.settings import RegistrySettings
from registry.watch.announcement import announced

SLOT_RATE: Final = 2.0  # updates of one slot per second on average; its issuer can make one
SLOT_BURST: Final = 40  # what an issuer whose clock is ahead can make at once

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Taker = Callable[[Item, str], Awaitable[bool]]
"""(update, who brought it) -> whether it changed anything here. Gets only what verifies now."""


class AnnouncementValidator:
    """Decides with pure functions of the payload first, then with this peer's clock, rates and knowledge."""

    def __init__(self, settings: RegistrySettings, clock: Clock, takers: Sequence[Taker]) -> None:
        """Every good update is offered to all `takers`, in their order."""
        self._settings = settings
        self._clock = clock
        self._rates = TokenBuckets(SLOT_RATE, SLOT_BURST)
        self._takers = tuple(takers)

    async def validate(self, topic: str, payload: bytes, forwarder: str) -> Verdict:
        """See `overlay.pubsub.topics.Validator`."""
        try:
            item, is_whole = announced(topic, payload)
        except UnknownKind:
            return Verdict.IGNORE  # whoever forwarded it may be of a later version
        except InvalidValue as error:
            _log.debug("an invalid announcement", forwarder=forwarder, topic=topic, error=str(error)[:200])
            return Verdict.REJECT
        if not self._is_acceptable(item):
            return Verdict.IGNORE
        news = False
        for taker in self._takers:
            news = await taker(item, forwarder) or news
        # Only news uses the rate up: else replays of old states would keep the next one from travelling.
        return Verdict.ACCEPT if news and is_whole and self._is_within_rate(item) else Verdict.IGNORE

    def _is_acceptable(self, item: Item) -> bool:
        """As for what comes by calls: within limits, neither from the future nor too old."""
        now = int(self._clock())
        try:
            check_field_limits(item.key_or_tombstone, self._settings)
            check_key_or_tombstone(item.key_or_tombstone, now, self._settings)
            if item.state is not None:
                check_field_limits(item.state, self._settings)
                check_state(item.state, now, self._settings)
        except RegistryError:
            return False
        return True

    def _is_within_rate(self, item: Item) -> bool:
        subject = ":".join(item.state.slot) if item.state else item.key_id
        return self._rates.take(subject, trio.current_time())
