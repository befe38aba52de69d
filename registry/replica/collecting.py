"""Deleting what nobody would accept any more, in small parts."""

from __future__ import annotations

from typing import Final

from registry.errors import ClockOff
from registry.model import history
from registry.model.service_results import ClearExpiredResult
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction

COLLECTED_AT_ONCE: Final = 8  # expired rows, some 3 ms: a write waits for two such parts at most, and for its own


def clear_expired(
    transaction: Transaction, now: int, settings: RegistrySettings, limit: int = COLLECTED_AT_ONCE, *, besides: str = ""
) -> ClearExpiredResult:
    """Deletes expired records, tombstones and the keys that nothing lives under any more, about `limit` rows at most:
    collected in small parts, they keep no other write waiting. When it deletes nothing, nothing is left.

    A record or tombstone goes when nobody would accept it any more, tombstones by their timestamp_issued; a key when it
    is expired and empty (docs/design.md, original's faults 3, 9, 10 and 15), one with a policy only when nobody would
    accept it any more: else an older one, without it, could come back and rule. The key of `besides` stays:
    something is about to be put under it. Nothing goes where the transaction mayn't collect.
    """
    if not transaction.may_collect:
        return ClearExpiredResult(success=True)
    transaction.settle()
    records = transaction.expired.slots(
        long_before(now, settings.expired_age), long_before(now, settings.record_lifetime), limit
    )
    tombstones = transaction.expired.tombstones(long_before(now, settings.tombstone_lifetime), limit - len(records))
    for what, slots in ((history.EXPIRED, records), (history.FORGOTTEN, tombstones)):
        for slot in slots:
            transaction.remove_state(slot)
            transaction.note(history.of_slot(slot, what, now, "by age"))
    left = limit - len(records) - len(tombstones)
    keys = [
        key_id
        for key_id in transaction.expired.empty_keys(
            long_before(now, settings.expired_age), long_before(now, settings.key_lifetime), left
        )
        if key_id != besides
    ]
    for key_id in keys:
        transaction.remove_key(key_id)
        transaction.note(history.HistoryEvent(now, key_id, "", "", history.EXPIRED, "by age, with nothing under it"))
    left -= len(keys)
    tombstones_of_keys = transaction.forget_key_tombstones(long_before(now, settings.key_tombstone_lifetime), left)
    left -= tombstones_of_keys
    listed = transaction.index.forget(
        long_before(now, settings.key_lifetime), long_before(now, settings.key_tombstone_lifetime), max(left, 0)
    )
    transaction.issued.forget(long_before(now, settings.tombstone_lifetime), limit)
    return ClearExpiredResult(
        success=True,
        count_keys=len(keys) + listed,
        count_records=len(records),
        count_tombstones=len(tombstones) + tombstones_of_keys,
    )


def clear_by_hand(transaction: Transaction, now: int, settings: RegistrySettings) -> ClearExpiredResult:
    """`clear_expired`, for whoever wants to know whether it may be done now. Raises ClockOff."""
    if not transaction.may_collect:
        raise ClockOff("wrong, or wasn't compared with peers' yet", "nothing is collected")
    return clear_expired(transaction, now, settings)


def old_until(transaction: Transaction, now: int, age: int) -> int:
    """`long_before`, for what is deleted; before all times while the clock can't be trusted for that."""
    return long_before(now, age) if transaction.may_collect else -1


def long_before(now: int, age: int) -> int:
    """The time that is `age` seconds old at `now`; before all times where there is none (original's fault 9)."""
    return max(now - age, -1)
