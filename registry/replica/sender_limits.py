"""What one sender may bring, whoever signed it: signers are made up as easily as tombstones for unknown records."""

from __future__ import annotations

from typing import Final

from overlay.limits.token_bucket import TokenBuckets
from registry.errors import RateExceeded
from registry.model.values import KeyOrTombstone, State, Tombstone, encode
from registry.settings import RegistrySettings
from registry.storage.migrations import ROW_BYTES
from registry.storage.transaction import Transaction

_DAY: Final = 86_400.0  # seconds


class SenderLimits:
    """One per node, whichever way things come; the node itself isn't limited."""

    def __init__(self, host_peer_id: str, settings: RegistrySettings) -> None:
        self._host_peer_id = host_peer_id
        self._half = settings.max_disk_bytes // 2
        self._tombstones = TokenBuckets(settings.tombstone_rate, settings.tombstone_burst)
        share = settings.max_disk_bytes * settings.sender_share
        self._bytes = TokenBuckets(share / _DAY, share)

    def check(self, transaction: Transaction, value: KeyOrTombstone | State, source: str, now: float) -> None:
        """`source` brought the value; `now` by Trio's clock. Raises RateExceeded."""
        if source == self._host_peer_id:
            return
        known = transaction.size_of(value)
        if isinstance(value, Tombstone) and not known and not self._tombstones.take(source, now):
            raise RateExceeded(f"too many tombstones for unknown records by {source}; try again in a moment")
        if transaction.space.used < self._half:
            return
        grown = len(encode(value)) - known if known else len(encode(value)) + ROW_BYTES
        if grown > 0 and not self._bytes.take(source, now, grown):
            raise RateExceeded(f"{source} brought as much today as one sender may bring while the disk is half full")
