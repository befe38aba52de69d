"""Digests of the resources of which some part is too old to be compared, so that each is computed once.

Of others the database has the digest. A node keeps what is too old until it is collected, for a day at most.
"""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from registry.model.expiry_horizon import ExpiryHorizon, oldest_of
from registry.model.merge import ResourceState

CACHED_DIGESTS: Final = 65_536


class DigestCache:
    """Forgets what was used longest ago. A digest holds until the oldest signature that it counts is too old itself."""

    def __init__(self) -> None:
        self._entries: LRUCache[str, tuple[bytes, ExpiryHorizon, ExpiryHorizon]] = LRUCache(CACHED_DIGESTS)

    def get(self, key_id: str, horizon: ExpiryHorizon) -> bytes | None:
        """The digest of what lives under `horizon`, if it is known."""
        entry = self._entries.get(key_id)
        if entry is None:
            return None
        digest, since, oldest = entry
        return digest if horizon.stricter(since) == horizon and oldest.all_after(horizon) else None

    def remember(self, key_id: str, horizon: ExpiryHorizon, alive: ResourceState, digest: bytes) -> None:
        """Keeps the digest of what lives of a resource under `horizon`."""
        self._entries[key_id] = digest, horizon, oldest_of(alive)

    def forget(self, key_id: str) -> None:
        """Forgets the digest of a resource, since it changed."""
        self._entries.pop(key_id, None)
