"""Digests of resources as of the last commit, so that comparing what didn't change costs next to nothing."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from registry.model.expiry_horizon import ExpiryHorizon, oldest_of
from registry.model.merge import ResourceState

CACHED_DIGESTS: Final = 65_536


class DigestCache:
    """Forgets what was used longest ago. A digest holds until the oldest signature in the resource is too old."""

    def __init__(self) -> None:
        self._entries: LRUCache[str, tuple[bytes, ExpiryHorizon]] = LRUCache(CACHED_DIGESTS)

    def get(self, key_id: str, horizon: ExpiryHorizon) -> bytes | None:
        """The digest of what lives under `horizon`, if it is known."""
        entry = self._entries.get(key_id)
        if entry is None:
            return None
        digest, oldest = entry
        return digest if oldest.all_after(horizon) else None

    def remember(self, key_id: str, resource: ResourceState) -> bytes:
        """The digest of a resource of which everything lives."""
        digest = resource.digest()
        self._entries[key_id] = digest, oldest_of(resource)
        return digest

    def forget(self, key_id: str) -> None:
        """The resource changed."""
        self._entries.pop(key_id, None)
