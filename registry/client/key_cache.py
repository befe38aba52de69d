"""Keys seen a moment ago, so that a client which writes to a resource again needn't read its key again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from registry.model.values import Key

REMEMBERED_FOR: Final = 60.0  # seconds; after that the network is asked whether the resource still exists
REMEMBERED: Final = 1024


class KeyCache:
    """At most `REMEMBERED` keys, each for `REMEMBERED_FOR` seconds after it was last seen."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, tuple[float, Key]] = OrderedDict()

    def remember(self, key: Key) -> None:
        """A key that the network has just told or acknowledged."""
        self._keys[key.id] = (trio.current_time() + REMEMBERED_FOR, key)
        self._keys.move_to_end(key.id)
        if len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)

    def get(self, resource_id: str) -> Key | None:
        """The key if it was seen lately."""
        until, key = self._keys.get(resource_id, (0.0, None))
        if key is not None and trio.current_time() >= until:
            del self._keys[resource_id]
            return None
        return key

    def forget(self, resource_id: str) -> None:
        """A write with the remembered key failed, whatever the reason."""
        self._keys.pop(resource_id, None)
