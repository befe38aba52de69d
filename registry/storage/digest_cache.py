"""Digests of resources as of the last commit, so that comparing what didn't change costs next to nothing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from registry.model.expiry import ExpiryHorizon, oldest_of
from registry.model.merge import ResourceState

CACHED_DIGESTS: Final = 65_536


class DigestCache:
    """Forgets what was used longest ago. A digest holds until the oldest signature in the resource is too old."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[bytes, ExpiryHorizon]] = OrderedDict()

    def get(self, key_id: str, horizon: ExpiryHorizon) -> bytes | None:
        """The digest of what lives under `horizon`, if it is known."""
        digest, oldest = self._entries.get(key_id, (None, horizon))
        if digest is None or not oldest.all_after(horizon):
            return None
        self._entries.move_to_end(key_id)
        return digest

    def remember(self, key_id: str, resource: ResourceState) -> bytes:
        """The digest of a resource of which everything lives."""
        digest = resource.digest()
        self._entries[key_id] = digest, oldest_of(resource)
        if len(self._entries) > CACHED_DIGESTS:
            self._entries.popitem(last=False)
        return digest

    def forget(self, key_id: str) -> None:
        """The resource changed."""
        self._entries.pop(key_id, None)
