"""Who watches which resource by this node, within bounds for each watcher, each resource and all. Pure.

Members and clients have places of their own, so that neither keeps the others out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from registry.settings import WatchSettings

MAX_SUBSCRIPTIONS_OF_PEER: Final = 8192
MAX_SUBSCRIBED_KEYS: Final = 16_384
_NOBODY: Final[Mapping[str, Subscription]] = {}


class Subscription(msgspec.Struct, frozen=True):
    """One watcher of one resource; lasts until the time `until` (seconds)."""

    until: float
    on_topic: bool
    """Whether it hears what is announced on the resource's topic."""
    is_member: bool
    serves: bool
    """Whether it is a node that others can watch by."""


class SubscriptionTable:
    """Live subscriptions by resource and by watcher."""

    def __init__(self, settings: WatchSettings) -> None:
        self._settings = settings
        self._of_key: dict[str, dict[str, Subscription]] = {}
        self._of_peer: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Pairs of a watcher and a resource."""
        return sum(map(len, self._of_key.values()))

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._of_key

    def watched(self, key_ids: Iterable[str]) -> list[str]:
        """The ones among these resources that anybody watches, in their order."""
        return [key_id for key_id in key_ids if key_id in self._of_key]

    def watchers(self, key_id: str) -> Mapping[str, Subscription]:
        """The watchers of a resource."""
        return self._of_key.get(key_id, _NOBODY)

    def keys_of(self, watcher: str) -> list[str]:
        """The resources that somebody watches."""
        return list(self._of_peer.get(watcher, ()))

    def has_place_for(self, watcher: str, key_id: str, *, is_member: bool) -> bool:
        """Whether a subscription can be renewed or begun."""
        watchers = self.watchers(key_id)
        if watcher in watchers:
            return True
        places = self._settings.max_watchers if is_member else self._settings.max_client_watchers
        alike = sum(each.is_member is is_member for each in watchers.values()) if len(watchers) >= places else 0
        return (
            alike < places
            and len(self._of_peer.get(watcher, ())) < MAX_SUBSCRIPTIONS_OF_PEER
            and (bool(watchers) or len(self._of_key) < MAX_SUBSCRIBED_KEYS)
        )

    def put(self, watcher: str, key_id: str, subscription: Subscription) -> None:
        """Begins or renews a subscription."""
        self._of_key.setdefault(key_id, {})[watcher] = subscription
        self._of_peer.setdefault(watcher, set()).add(key_id)

    def end(self, watcher: str, key_id: str) -> bool:
        """Ends a subscription, if there is one; whether nobody watches the resource any more."""
        watchers = self._of_key.get(key_id, {})
        watchers.pop(watcher, None)
        keys = self._of_peer.get(watcher, set())
        keys.discard(key_id)
        if not keys:
            self._of_peer.pop(watcher, None)
        if not watchers:
            self._of_key.pop(key_id, None)
        return not watchers

    def expired(self, now: float) -> list[tuple[str, str]]:
        """(watcher, resource) of what has lasted until now (seconds)."""
        return [
            (watcher, key_id)
            for key_id, watchers in self._of_key.items()
            for watcher, subscription in watchers.items()
            if subscription.until <= now
        ]
