"""What a write does to the storage: the rules that need to see what is stored.

Each function runs inside a transaction, on verified values, and either refuses (ServiceError) before it writes anything
or applies its write. Rules (DESIGN: state and merging; reference: order of checks, faults 4, 5, 11, 12):

- a key replaces an older one; a state replaces a smaller one of its slot; an identical one is a success;
- an update of a stored record never counts against the limits of its key; a new one does, unless this host serves it;
- at the limit, only a greater weight evicts the lightest record.
"""

from __future__ import annotations

from registry.errors import (
    KeyAlreadyExistsNewerTimestamp,
    KeyNotExists,
    NewerRecordOrTombstoneExists,
    ValuesLimitExceeded,
)
from registry.results import ClearExpiredResult, EvictStaleItem
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction
from registry.values import Key, Record, Slot, State, digest_of
from registry.verification import is_expired


def register_key(transaction: Transaction, key: Key, weight: int, now: int) -> bool:
    """Stores a key; False when it is there already. Raises KeyAlreadyExistsNewerTimestamp."""
    stored = transaction.key(key.id)
    if stored is not None and stored.key.order() > key.order():
        raise KeyAlreadyExistsNewerTimestamp(key.label, key.owner_peer_id)
    return republish_key(transaction, key, weight, now)


def republish_key(transaction: Transaction, key: Key, weight: int, now: int) -> bool:
    """Stores a key unless a greater or the same one is there; whether it did. Weights are kept (fault 5)."""
    stored = transaction.key(key.id)
    if stored is not None and stored.key.order() >= key.order():
        return False
    transaction.put_key(key, now, weight)
    return True


def put_state(
    transaction: Transaction, state: State, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Stores a record or tombstone; False when it is there already.

    Raises KeyNotExists, ValuesLimitExceeded, NewerRecordOrTombstoneExists, in that order.
    """
    slot = state.slot
    if not transaction.has_key(slot.key_id):
        raise KeyNotExists(slot.key_id)
    stored = transaction.state(slot)
    if stored is not None and digest_of(stored.state) == digest_of(state):
        return False
    adds_record = isinstance(state, Record) and not (stored is not None and isinstance(stored.state, Record))
    evicted = None
    if adds_record and slot.peer_id != host_peer_id:
        evicted = _room_for(transaction, state, weight, host_peer_id, settings, now)
    if stored is not None and stored.state.order() > state.order():
        raise NewerRecordOrTombstoneExists(*slot)
    if evicted is not None:
        transaction.remove_state(evicted)
    transaction.put_state(state, weight)
    return True


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
        present, by_issuer = transaction.foreign_records(key_id, host_peer_id, issuer)
    if by_issuer >= settings.records_per_issuer:
        raise ValuesLimitExceeded(key_id)
    if present < settings.records_per_key:
        return None
    if present == 0:  # an operator's limit of none
        raise ValuesLimitExceeded(key_id)
    lightest_weight, lightest = transaction.lightest_foreign_record(key_id, host_peer_id)
    if lightest_weight >= weight:
        raise ValuesLimitExceeded(key_id)
    return lightest


def clear_expired(transaction: Transaction, now: int, settings: RegistrySettings) -> ClearExpiredResult:
    """Deletes expired records, tombstones and the keys that nothing lives under any more.

    A record or tombstone goes when nobody would accept it any more (one boundary, fault 10; no underflow, fault 9;
    tombstones by timestamp_issued, fault 3); a key when it is expired and empty (fault 15).
    """
    records = transaction.expired_slots(_before(now, settings.expired_age), _before(now, settings.record_lifetime))
    tombstones = transaction.expired_tombstones(_before(now, settings.tombstone_lifetime))
    for slot in (*records, *tombstones):
        transaction.remove_state(slot)
    keys = transaction.empty_keys(_before(now, settings.expired_age))
    for key_id in keys:
        transaction.remove_key(key_id)
    transaction.forget_issued(_before(now, settings.tombstone_lifetime))
    return ClearExpiredResult(
        success=True, count_keys=len(keys), count_records=len(records), count_tombstones=len(tombstones)
    )


def evict_stale(
    transaction: Transaction, now: int, host_peer_id: str, settings: RegistrySettings
) -> list[EvictStaleItem]:
    """Everything under keys that weren't published for the stale age; what this host neither owns nor serves is
    deleted, as the original does: whoever calls this offers it to the neighbourhood next."""
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
    return items


def stale_local_records(
    transaction: Transaction, now: int, host_peer_id: str, settings: RegistrySettings
) -> list[Record]:
    """Records that this host serves and should renew: their signature has reached half of the expired age (fault 7).

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
    """The time that is `age` seconds old at `now`; before all times where there is none (fault 9)."""
    return max(now - age, -1)
