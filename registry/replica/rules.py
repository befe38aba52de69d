"""What a write does to the storage: the rules that need to see what is stored.

Each function runs inside a transaction, on verified values, and either refuses (RegistryRefusal) before it writes
anything or applies its write, in the original's order of checks. Rules (docs/design.md, State and merging; they mend
the original's faults 4, 5, 11 and 12):

- a key replaces an older one; a state replaces a smaller one of its slot; an identical one is a success;
- an update of a stored record never counts against the limits of its key; a new one does, unless this host serves it;
- at the limit, only a greater weight evicts the lightest record;
- a key tombstone ends keys and states up to its second, those that come later too;
- quotas bind what is new to this node: an update of what it stores, and a tombstone that ends a stored record, get in.
"""

from __future__ import annotations

from typing import Final

from registry.errors import (
    KeyAlreadyExistsNewerTimestamp,
    KeyNotExists,
    KeyRemoved,
    NewerRecordOrTombstoneExists,
    QuotaExceeded,
    ValuesLimitExceeded,
)
from registry.model import history
from registry.model.service_results import ClearExpiredResult, EvictStaleItem
from registry.model.values import Key, KeyTombstone, Record, Slot, State, Tombstone, digest_of
from registry.model.verification import is_expired
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction

COLLECTED_AT_ONCE: Final = 32  # expired rows
MAX_SLOTS: Final = 4096  # under one key, ended ones included, of which there is one per record that ever was


def register_key(
    transaction: Transaction, key: Key, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Stores a key; False when it is there already.

    Raises KeyAlreadyExistsNewerTimestamp, KeyRemoved, QuotaExceeded.
    """
    stored = transaction.key(key.id)
    if stored is not None and stored.key.order() > key.order():
        raise KeyAlreadyExistsNewerTimestamp(key.label, key.owner_peer_id)
    key_tombstone = transaction.key_tombstone(key.id)
    if key_tombstone is not None and key_tombstone.kills_key(key):
        raise KeyRemoved(key.id)
    return republish_key(transaction, key, weight, host_peer_id, settings, now)


def republish_key(
    transaction: Transaction, key: Key, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Stores a key unless a greater or the same one is there, or it was removed; whether it did.

    Weights are kept (docs/design.md, original's fault 5). Raises QuotaExceeded.
    """
    stored = transaction.key(key.id)
    if stored is not None and stored.key.order() >= key.order():
        return False
    key_tombstone = transaction.key_tombstone(key.id)
    if key_tombstone is not None and key_tombstone.kills_key(key):
        return False
    if stored is None and key_tombstone is None:
        _check_owner_quota(transaction, key.owner_peer_id, host_peer_id, settings)
        _check_space(transaction, settings)
    transaction.put_key(key, now, weight)
    transaction.note(history.of_key(key, history.RENEWED if stored else history.STORED, now))
    return True


def put_key_tombstone(
    transaction: Transaction, key_tombstone: KeyTombstone, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Stores a key tombstone, and deletes what it kills; False when that has been done. Raises QuotaExceeded."""
    key_id = key_tombstone.key_id
    known = transaction.key_tombstone(key_id)
    if known is not None and known.order() >= key_tombstone.order():
        return False
    stored = transaction.key(key_id)
    if stored is None and known is None:
        _check_owner_quota(transaction, key_tombstone.owner_peer_id, host_peer_id, settings)
        _check_space(transaction, settings)
    transaction.put_key_tombstone(key_tombstone)
    if stored is not None and key_tombstone.kills_key(stored.key):
        transaction.remove_key(key_id)
        transaction.note(
            history.of_key(stored.key, history.REMOVED, now, f"by its owner {key_tombstone.owner_peer_id}")
        )
    for state in [item.state for item in transaction.states(key_id)]:
        if key_tombstone.kills(state):
            transaction.remove_state(state.slot)
            if isinstance(state, Record):
                transaction.note(history.of_slot(state.slot, history.REMOVED, now, "with its resource, by the owner"))
    return True


def put_state(
    transaction: Transaction,
    state: State,
    weight: int,
    host_peer_id: str,
    settings: RegistrySettings,
    now: int,
    *,
    keyless: bool = False,
) -> bool:
    """Stores a record or tombstone; False when it is there already.

    `keyless` lets a state in whose key was removed before the state was issued: replicas keep those alike, a new key
    may follow. Raises KeyNotExists, KeyRemoved, ValuesLimitExceeded, NewerRecordOrTombstoneExists, QuotaExceeded, in
    that order.
    """
    slot = state.slot
    key_tombstone = transaction.key_tombstone(slot.key_id)
    if not transaction.has_key(slot.key_id) and not (keyless and key_tombstone is not None):
        raise KeyNotExists(slot.key_id) if key_tombstone is None else KeyRemoved(slot.key_id)
    if key_tombstone is not None and key_tombstone.kills(state):
        raise KeyRemoved(slot.key_id)
    stored = transaction.state(slot)
    known = stored.state if stored is not None else None
    if known is not None and digest_of(known) == digest_of(state):
        return False
    evicted = None
    if isinstance(state, Record) and not isinstance(known, Record) and slot.peer_id != host_peer_id:
        evicted = _room_for(transaction, state, weight, host_peer_id, settings, now)
    if known is not None and known.order() > state.order():
        raise NewerRecordOrTombstoneExists(*slot)
    if known is None:
        if isinstance(state, Tombstone):
            _check_tombstone_quota(transaction, slot.key_id, settings)
        _check_space(transaction, settings)
    if evicted is not None:
        transaction.remove_state(evicted)
        transaction.note(
            history.of_slot(evicted, history.PUSHED_OUT, now, f"by a heavier one issued by {slot.issued_by}")
        )
    transaction.put_state(state, weight)
    _note_change(transaction, known, state, now)
    return True


def _note_change(transaction: Transaction, known: State | None, state: State, now: int) -> None:
    what = history.change_of(known, state)
    if what != history.TOMBSTONED:
        transaction.note(history.of_slot(state.slot, what, now))
    elif isinstance(known, Record):
        transaction.note(history.of_slot(state.slot, what, now, f"by its issuer {state.slot.issued_by}"))


def _check_owner_quota(
    transaction: Transaction, owner_peer_id: str, host_peer_id: str, settings: RegistrySettings
) -> None:
    if owner_peer_id != host_peer_id and transaction.keys_or_tombstones_of(owner_peer_id) >= settings.keys_per_owner:
        raise QuotaExceeded(f"{settings.keys_per_owner} keys of the owner {owner_peer_id} are stored here already")


def _check_tombstone_quota(transaction: Transaction, key_id: str, settings: RegistrySettings) -> None:
    if transaction.tombstones_under(key_id) >= settings.tombstones_per_key:
        raise QuotaExceeded(f"{settings.tombstones_per_key} tombstones are stored under key {key_id} already")


def _check_space(transaction: Transaction, settings: RegistrySettings) -> None:
    if transaction.used_bytes() >= settings.max_disk_bytes:
        raise QuotaExceeded(f"this peer stores {settings.max_disk_bytes} bytes already and takes nothing new")


def _room_for(
    transaction: Transaction, state: State, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> Slot | None:
    """The slot of the record that must go for `state` to come; None when there is room. Raises ValuesLimitExceeded."""
    key_id, issuer, _ = state.slot
    present, by_issuer = transaction.foreign_records(key_id, host_peer_id, issuer)
    if by_issuer >= settings.records_per_issuer or present >= settings.records_per_key:
        # What is expired but not collected yet takes nobody's place.
        for slot in transaction.expired_foreign_slots(
            key_id, host_peer_id, _before(now, settings.expired_age), _before(now, settings.record_lifetime)
        ):
            transaction.remove_state(slot)
            transaction.note(history.of_slot(slot, history.EXPIRED, now, "to make room"))
        present, by_issuer = transaction.foreign_records(key_id, host_peer_id, issuer)
    if by_issuer >= settings.records_per_issuer or transaction.slots_under(key_id) >= MAX_SLOTS:
        raise ValuesLimitExceeded(key_id)
    if present < settings.records_per_key:
        return None
    if present == 0:  # an operator's limit of none
        raise ValuesLimitExceeded(key_id)
    lightest_weight, lightest = transaction.lightest_foreign_record(key_id, host_peer_id)
    if lightest_weight >= weight:
        raise ValuesLimitExceeded(key_id)
    return lightest


def clear_expired(
    transaction: Transaction, now: int, settings: RegistrySettings, limit: int = COLLECTED_AT_ONCE
) -> ClearExpiredResult:
    """Deletes expired records, tombstones and the keys that nothing lives under any more, about `limit` rows at most:
    collected in small parts, they keep no other write waiting. When it deletes nothing, nothing is left.

    A record or tombstone goes when nobody would accept it any more, tombstones by their timestamp_issued; a key when it
    is expired and empty (docs/design.md, original's faults 3, 9, 10 and 15).
    """
    transaction.settle()
    records = transaction.expired_slots(
        _before(now, settings.expired_age), _before(now, settings.record_lifetime), limit
    )
    tombstones = transaction.expired_tombstones(_before(now, settings.tombstone_lifetime), limit - len(records))
    for what, slots in ((history.EXPIRED, records), (history.FORGOTTEN, tombstones)):
        for slot in slots:
            transaction.remove_state(slot)
            transaction.note(history.of_slot(slot, what, now, "by age"))
    left = limit - len(records) - len(tombstones)
    keys = transaction.empty_keys(_before(now, settings.expired_age), left)
    for key_id in keys:
        transaction.remove_key(key_id)
        transaction.note(history.HistoryEvent(now, key_id, "", "", history.EXPIRED, "by age, with nothing under it"))
    left -= len(keys)
    tombstones_of_keys = transaction.forget_key_tombstones(_before(now, settings.key_tombstone_lifetime), left)
    transaction.forget_issued(_before(now, settings.tombstone_lifetime), limit)
    return ClearExpiredResult(
        success=True,
        count_keys=len(keys),
        count_records=len(records),
        count_tombstones=len(tombstones) + tombstones_of_keys,
    )


def evict_stale(
    transaction: Transaction, now: int, host_peer_id: str, settings: RegistrySettings
) -> list[EvictStaleItem]:
    """Everything under keys that weren't published for the stale age; what this host neither owns nor serves is
    deleted, as the original does: whoever calls this sends it to the neighbourhood next."""
    items: list[EvictStaleItem] = []
    for stored in transaction.stale_keys(_before(now, settings.stale_age)):
        state = transaction.resource(stored.key.id)
        items.append(
            EvictStaleItem(
                key=stored.key,
                records=tuple(state.records(now, settings)),
                tombstones=tuple(state.tombstones()),
            )
        )
        kept_here = stored.key.owner_peer_id == host_peer_id or any(
            slot.peer_id == host_peer_id for slot in state.slots
        )
        if not kept_here:
            for slot in state.slots:
                transaction.remove_state(slot)
            transaction.remove_key(stored.key.id)
            transaction.note(history.of_key(stored.key, history.HANDED_OVER, now, "evicted by the operator"))
    return items


def stale_local_records(
    transaction: Transaction, now: int, host_peer_id: str, settings: RegistrySettings
) -> list[Record]:
    """Records that this host serves and should renew: their signature has reached half of the expired age
    (docs/design.md, original's fault 7).

    Left out are those that can't be renewed: expired, or with an issuer's signature that is too old.
    """
    due = transaction.hosted_records(host_peer_id, _before(now, settings.expired_age // 2))
    return [
        record
        for record in due
        if not is_expired(record.timestamp_created, settings.expired_age, now)
        and not is_expired(record.timestamp_issued, settings.record_lifetime, now)
    ]


def _before(now: int, age: int) -> int:
    """The time that is `age` seconds old at `now`; before all times where there is none (original's fault 9)."""
    return max(now - age, -1)
