"""Keys seen a moment ago, so that a client which writes to a resource again needn't read its key again."""

from __future__ import annotations

from typing import Final

import trio
from cachetools import TTLCache

from registry.model.merge import greater_key
from registry.model.values import Key

REMEMBERED_FOR: Final = 60.0  # seconds; after that the network is asked whether the resource still exists
REMEMBERED: Final = 1024


class KeyCache:
    """At most `REMEMBERED` keys, each for `REMEMBERED_FOR` seconds after it was last seen."""

    def __init__(self) -> None:
        self._keys: TTLCache[str, Key] = TTLCache(REMEMBERED, REMEMBERED_FOR, timer=trio.current_time)

    def remember(self, key: Key) -> None:
        """A key that the network has just told or acknowledged; a later one that is known stays."""
        self._keys[key.id] = greater_key(self._keys.get(key.id), key) or key

    def get(self, resource_id: str) -> Key | None:
        """The key if it was seen lately."""
        return self._keys.get(resource_id)

    def forget(self, resource_id: str) -> None:
        """A write with the remembered key failed, whatever the reason."""
        self._keys.pop(resource_id, None)
