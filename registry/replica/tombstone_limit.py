"""How many tombstones for slots of which nothing is known somebody may bring: they are cheap to make up."""

from __future__ import annotations

from overlay.limits.token_bucket import TokenBuckets
from registry.errors import RateExceeded
from registry.model.values import State, Tombstone
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction


class TombstoneLimit:
    """One per node, whichever way they come; the node itself isn't limited."""

    def __init__(self, host_peer_id: str, settings: RegistrySettings) -> None:
        self._host_peer_id = host_peer_id
        self._rates = TokenBuckets(settings.tombstone_rate, settings.tombstone_burst)

    def check(self, transaction: Transaction, state: State, source: str, now: float) -> None:
        """`source` brought the state; `now` by Trio's clock. Raises RateExceeded."""
        if not isinstance(state, Tombstone) or source == self._host_peer_id:
            return
        if transaction.state(state.slot) is not None:
            return
        if not self._rates.take(source, now):
            raise RateExceeded(f"too many tombstones for unknown records by {source}; try again in a moment")
