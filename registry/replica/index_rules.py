"""What entering a resource into its owner's index does to the storage. Rules (docs/design.md, Names and lists):

- entries merge as their resources do; one that tells nothing new is a success;
- an owner has as many entries here as keys; beyond, the one that it hasn't signed for longest makes way, if it hasn't
  been renewed for the expired age and is older than what comes. This node's own are exempt;
- an entry is charged to its owner, and needs room, as a key does.
"""

from __future__ import annotations

from registry.errors import QuotaExceeded
from registry.model.owner_index import IndexEntry
from registry.replica.collecting import old_until
from registry.replica.disk import Growth, take_room
from registry.settings import RegistrySettings
from registry.storage.migrations import ROW_BYTES
from registry.storage.transaction import Transaction


def news_of(transaction: Transaction, entry: IndexEntry) -> IndexEntry | None:
    """What an entry comes to with what is listed here already; None when it tells nothing new."""
    known = transaction.index.entry(entry.owner_peer_id, entry.label)
    merged = entry if known is None else known.merged(entry)
    return None if merged == known else merged


def enter(
    transaction: Transaction, entry: IndexEntry, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Lists a resource; False when that has been done. `weight`: the owner's. Raises QuotaExceeded, DiskFull."""
    merged = news_of(transaction, entry)
    if merged is None:
        return False
    owner, index = entry.owner_peer_id, transaction.index
    known = index.entry(owner, entry.label)
    going = None
    if known is None and owner != host_peer_id and index.count(owner) >= settings.keys_per_owner:
        going = _makes_way(transaction, merged, settings, now)
    grown = merged.size() + ROW_BYTES if known is None else merged.size() - known.size()
    growth = Growth(owner, weight, entry.key_id, grown, is_own=owner == host_peer_id)
    take_room(transaction, growth, host_peer_id, settings, now)
    if going is not None:
        index.remove(owner, going)
    index.put(merged, weight, _ended(known, merged))
    return True


def _ended(known: IndexEntry | None, merged: IndexEntry) -> int:
    """When the key was created (seconds) that a removal ends with this; -1 when none does."""
    if known is None or known.key is None or not any(each.kills_key(known.key) for each in merged.key_tombstones):
        return -1
    return known.key.timestamp_created


def _makes_way(transaction: Transaction, entry: IndexEntry, settings: RegistrySettings, now: int) -> str:
    """The label of the entry that goes for another one of its owner's. Raises QuotaExceeded."""
    oldest = transaction.index.oldest(entry.owner_peer_id)
    if oldest is None or oldest[0] > min(old_until(transaction, now, settings.expired_age), entry.newest - 1):
        raise QuotaExceeded(f"{settings.keys_per_owner} resources of {entry.owner_peer_id} are listed here already")
    return oldest[1]
