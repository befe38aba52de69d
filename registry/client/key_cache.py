"""Keys seen a moment ago, so that a client which writes to a resource again needn't read its key again."""

from __future__ import annotations

from typing import Final

import trio
from cachetools import TTLCache

from registry.model.merge import greater_key
from registry.model.values import Key

REMEMBERED_FOR: Final = 60.0  # seconds; after that the network is asked whether the resource still exists
REMEMBERED: Final = 1024
CONFIRMED_FOR: Final = 2.0  # seconds in which a key without a policy isn't doubted


class KeyCache:
    """At most `REMEMBERED` keys, each for `REMEMBERED_FOR` seconds after the network told it."""

    def __init__(self) -> None:
        self._keys: TTLCache[str, Key] = TTLCache(REMEMBERED, REMEMBERED_FOR, timer=trio.current_time)
        self._confirmed: TTLCache[str, None] = TTLCache(REMEMBERED, CONFIRMED_FOR, timer=trio.current_time)

    def remember(self, key: Key) -> None:
        """A key that the network has just told, or that its owner made; a later one that is known stays."""
        self._keys[key.id] = greater_key(self._keys.get(key.id), key) or key
        self._confirmed[key.id] = None

    def get(self, resource_id: str) -> Key | None:
        """The key if it was seen lately."""
        return self._keys.get(resource_id)

    def is_doubted(self, key: Key) -> bool:
        """Whether a remembered key is to be read while something is written with it, since a policy may have come or
        changed: replicas take an update of a known slot, and withhold it without a word."""
        return key.revision > 0 or key.id not in self._confirmed

    def forget(self, resource_id: str) -> None:
        """A write with the remembered key failed, whatever the reason."""
        self._keys.pop(resource_id, None)
