"""What one sender may bring, whoever signed it: signers are made up as easily as tombstones for unknown records.

As much again is reserved for issuers that the policy of their resource names, or that are certified: strangers whose
states a sender passes on don't use that up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.limits.token_bucket import TokenBuckets
from registry.errors import RateExceeded
from registry.model.policy_withholding import is_named_in
from registry.model.values import Key, KeyOrTombstone, KeyTombstone, State, Tombstone, encode
from registry.settings import RegistrySettings
from registry.storage.migrations import ROW_BYTES
from registry.storage.transaction import Transaction

_DAY: Final = 86_400.0  # seconds


class SenderLimits:
    """Bounds what each sender may bring, whichever way it comes; the node itself isn't limited. One per node."""

    def __init__(self, host_peer_id: str, settings: RegistrySettings) -> None:
        self._host_peer_id = host_peer_id
        self._half = settings.max_disk_bytes // 2
        self._tombstones = _SharedRate(settings.tombstone_rate, settings.tombstone_burst)
        share = settings.max_disk_bytes * settings.sender_share
        self._bytes = _SharedRate(share / _DAY, share)

    def check(
        self, transaction: Transaction, value: KeyOrTombstone | State, source: str, now: float, wall_clock: int
    ) -> None:
        """`source` brought the value; `now` by Trio's clock, `wall_clock` in seconds. Raises RateExceeded."""
        if source == self._host_peer_id:
            return
        known = transaction.size_of(value)

        def is_named() -> bool:
            if isinstance(value, Key | KeyTombstone):
                return False
            stored = transaction.key(value.slot.key_id)
            return stored is not None and is_named_in(stored.key, value, wall_clock)

        if isinstance(value, Tombstone) and not known and not self._tombstones.take(source, now, 1.0, is_named):
            raise RateExceeded(f"too many tombstones for unknown records by {source}; try again in a moment")
        if transaction.space.used < self._half:
            return
        grown = len(encode(value)) - known if known else len(encode(value)) + ROW_BYTES
        if grown > 0 and not self._bytes.take(source, now, grown, is_named):
            raise RateExceeded(f"{source} brought as much today as one sender may bring while the disk is half full")


class _SharedRate:
    """Two buckets for each sender: one for all that it brings, and one that is reserved."""

    def __init__(self, rate: float, burst: float) -> None:
        self._open = TokenBuckets(rate, burst)
        self._reserved = TokenBuckets(rate, burst)

    def take(self, source: str, now: float, amount: float, is_named: Callable[[], bool]) -> bool:
        return self._open.take(source, now, amount) or (is_named() and self._reserved.take(source, now, amount))
