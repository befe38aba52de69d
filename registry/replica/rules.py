"""What a write does to the storage: the rules that need to see what is stored.

Each function runs inside a transaction, on verified values, and either refuses (RegistryRefusal) before it writes
anything or applies its write, in the original's order of checks. Rules (docs/design.md, State and merging; they mend
the original's faults 4, 5, 11 and 12):

- a key replaces a smaller one, and others of its revision are kept beside it; a state replaces a smaller one of its
  slot; an identical one is a success;
- an update of a stored record never counts against the limits of its key; a new one does, unless this host serves it;
- places under a key are shared between issuers (`registry.replica.key_places`);
- what the policy of the key doesn't permit is refused in an unknown slot, and over what it withholds already
  (`registry.model.policy_withholding`); tombstones it never refuses;
- a key tombstone ends keys and states up to its second, those that come later too;
- what makes the database grow, updates too, needs room (`registry.replica.disk`); what shrinks it always gets in, such
  as a tombstone that ends a stored record.
"""

from __future__ import annotations

from registry.errors import (
    KeyAlreadyExistsNewerTimestamp,
    KeyNotExists,
    KeyRemoved,
    NewerRecordOrTombstoneExists,
    QuotaExceeded,
)
from registry.model import history
from registry.model.merge import kept_key_tombstones, kept_keys
from registry.model.policy_withholding import why_not_stored
from registry.model.service_results import EvictStaleItem
from registry.model.values import Key, KeyTombstone, Record, State, digest_of, encode
from registry.model.verification import is_expired
from registry.permission.errors import RefusedByPolicy
from registry.replica.collecting import long_before, old_until
from registry.replica.disk import Growth, take_room
from registry.replica.key_places import KeyPlaces
from registry.settings import RegistrySettings
from registry.storage.checked_rows import NOTHING_ENDED, StoredState
from registry.storage.migrations import ROW_BYTES
from registry.storage.transaction import Transaction


def register_key(
    transaction: Transaction, key: Key, weight: int, host_peer_id: str, settings: RegistrySettings, now: int
) -> bool:
    """Stores a key; False when it is there already, or when it has no policy and the one that is there has: owners who
    know nothing of policies create their resources anew as ever, and that changes nothing.

    Raises KeyAlreadyExistsNewerTimestamp, KeyRemoved, QuotaExceeded, DiskFull.
    """
    stored = transaction.key(key.id)
    if stored is not None and stored.key.order() > key.order() and key.revision != (stored.key.revision or -1):
        if key.revision == 0 < stored.key.revision:
            return False
        raise KeyAlreadyExistsNewerTimestamp(key.label, key.owner_peer_id)
    if any(key_tombstone.kills_key(key) for key_tombstone in transaction.key_tombstones(key.id)):
        raise KeyRemoved(key.id)
    return republish_key(transaction, key, weight, host_peer_id, settings, now)


def republish_key(
    transaction: Transaction,
    key: Key,
    weight: int,
    host_peer_id: str,
    settings: RegistrySettings,
    now: int,
    needed_by: tuple[str, int] = ("", 0),
) -> bool:
    """Stores a key unless a greater or the same one is there, or it was removed; whether it did. One of the winner's
    revision that loses is kept beside it (`registry.model.merge.kept_keys`), and the winner that loses to it likewise.

    `needed_by`: the issuer of a state that comes with it, and its weight: for those that have a right to room, the key
    has it too. Weights are kept (docs/design.md, original's fault 5). Raises QuotaExceeded, DiskFull.
    """
    stored = transaction.key(key.id)
    siblings = transaction.siblings(key.id) if stored is not None and stored.key.revision else ()
    known = () if stored is None else (stored.key, *siblings)
    kept = kept_keys((*known, key))
    if kept == known:
        return False
    key_tombstones = transaction.key_tombstones(key.id)
    if any(key_tombstone.kills_key(key) for key_tombstone in key_tombstones):
        return False
    if stored is None and not key_tombstones:
        _check_owner_quota(transaction, key.owner_peer_id, host_peer_id, settings)
    grown = _size(kept[0]) - (_size(stored.key) if stored else 0) + _size_of_siblings(kept[1:])
    growth = Growth(
        key.owner_peer_id,
        max(weight, needed_by[1]),
        key.id,
        grown - _size_of_siblings(siblings),
        is_own=host_peer_id in (key.owner_peer_id, needed_by[0]),
        is_named=kept[0].revision > 0,
    )
    take_room(transaction, growth, host_peer_id, settings, now)
    transaction.put_siblings(key, kept[1:], weight)
    if stored is not None and kept[0] == stored.key:
        return True
    transaction.put_key(key, now, weight)
    transaction.note(history.of_key(key, history.change_of_key(stored.key if stored else None, key), now))
    return True


def put_key_tombstone(
    transaction: Transaction,
    key_tombstone: KeyTombstone,
    host_peer_id: str,
    settings: RegistrySettings,
    now: int,
    weight: int = 0,
) -> bool:
    """Stores a key tombstone, and deletes what it kills; False when that has been done. `weight`: its owner's.

    Raises QuotaExceeded, DiskFull.
    """
    key_id = key_tombstone.key_id
    known = transaction.key_tombstones(key_id)
    kept = kept_key_tombstones([*known, key_tombstone])
    if kept == known:
        return False
    stored = transaction.key(key_id)
    killed = [item for item in transaction.states(key_id) if key_tombstone.kills(item.state)]
    kills_key = stored is not None and key_tombstone.kills_key(stored.key)
    victims = [transaction.victim_of_key_tombstone(key_id), *(_last_ended(item) for item in killed)]
    grown = _size(*kept) - (_size(*known) if known else 0) - sum(_size(item.state) for item in killed)
    if stored is not None and kills_key:
        victims.append(stored.key.timestamp_created)
        grown -= _size(stored.key)
    if stored is None and not known:
        _check_owner_quota(transaction, key_tombstone.owner_peer_id, host_peer_id, settings)
    victim = max(victims)
    owner = key_tombstone.owner_peer_id
    growth = Growth(owner, weight, key_id, grown, is_own=owner == host_peer_id, may_push=victim != NOTHING_ENDED)
    take_room(transaction, growth, host_peer_id, settings, now)
    transaction.put_key_tombstones(kept, weight, victim)
    if stored is not None and kills_key:
        transaction.remove_key(key_id)
        transaction.note(
            history.of_key(stored.key, history.REMOVED, now, f"by its owner {key_tombstone.owner_peer_id}")
        )
    for item in killed:
        transaction.remove_state(item.state.slot)
        if isinstance(item.state, Record):
            transaction.note(history.of_slot(item.state.slot, history.REMOVED, now, "with its resource, by the owner"))
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
    may follow. Raises KeyNotExists, KeyRemoved, ValuesLimitExceeded, NewerRecordOrTombstoneExists, QuotaExceeded,
    DiskFull, in that order; RefusedByPolicy before the limits, which don't count what is refused.
    """
    slot = state.slot
    key_tombstones = transaction.key_tombstones(slot.key_id)
    if not transaction.has_key(slot.key_id) and not (keyless and key_tombstones):
        raise KeyRemoved(slot.key_id) if key_tombstones else KeyNotExists(slot.key_id)
    if any(key_tombstone.kills(state) for key_tombstone in key_tombstones):
        raise KeyRemoved(slot.key_id)
    stored = transaction.state(slot)
    known = stored.state if stored is not None else None
    if known is not None and digest_of(known) == digest_of(state):
        return False
    if known is None or known.order() < state.order():
        check_policy(transaction, known, state, now)
    places = KeyPlaces(transaction, state, weight, host_peer_id, settings, now)
    makes_way = places.for_record() if isinstance(state, Record) and not isinstance(known, Record) else []
    if known is not None and known.order() > state.order():
        raise NewerRecordOrTombstoneExists(*slot)
    if known is None:
        makes_way += places.for_slot()
    is_named = places.is_named
    growth = Growth(
        slot.issued_by,
        weight,
        slot.key_id,
        _size(state) - (_size(known) if known else 0),
        is_own=slot.issued_by == host_peer_id,
        is_named=is_named,
        may_push=known is not None or isinstance(state, Record) or is_named,
    )
    take_room(transaction, growth, host_peer_id, settings, now)
    for going in makes_way:
        transaction.remove_state(going)
        transaction.note(history.of_slot(going, history.PUSHED_OUT, now, f"by one issued by {slot.issued_by}"))
    victim = NOTHING_ENDED if stored is None else stored.victim
    if isinstance(known, Record) and not isinstance(state, Record):
        victim = max(victim, known.timestamp_issued)
    transaction.put_state(state, weight, victim, is_named=is_named)
    _note_change(transaction, known, state, now)
    return True


def check_policy(transaction: Transaction, known: State | None, state: State, now: int) -> None:
    """Raises RefusedByPolicy for a state that the key's policy keeps out of a slot in which `known` is."""
    stored = transaction.key(state.slot.key_id)
    why = why_not_stored(stored.key, known, state, now) if stored is not None else None
    if why is not None:
        raise RefusedByPolicy(state.slot.key_id, why, state.slot.issued_by, state.slot.peer_id)


def _size(*values: Key | KeyTombstone | State) -> int:
    """What storing them in one row is charged for (bytes)."""
    return sum(len(encode(value)) for value in values) + ROW_BYTES


def _size_of_siblings(siblings: tuple[Key, ...]) -> int:
    return _size(*siblings) if siblings else 0


def _last_ended(stored: StoredState) -> int:
    """The latest that is ended with a state: itself, or what tombstones of its slot held down."""
    return max(stored.victim, stored.state.timestamp_issued)


def _note_change(transaction: Transaction, known: State | None, state: State, now: int) -> None:
    what = history.change_of(known, state)
    if what != history.TOMBSTONED:
        transaction.note(history.of_slot(state.slot, what, now))
    elif isinstance(known, Record):
        transaction.note(history.of_slot(state.slot, what, now, f"by its issuer {state.slot.issued_by}"))


def _check_owner_quota(
    transaction: Transaction, owner_peer_id: str, host_peer_id: str, settings: RegistrySettings
) -> None:
    if (
        owner_peer_id != host_peer_id
        and transaction.counts.keys_or_tombstones_of(owner_peer_id) >= settings.keys_per_owner
    ):
        raise QuotaExceeded(f"{settings.keys_per_owner} keys of the owner {owner_peer_id} are stored here already")


def evict_stale(
    transaction: Transaction, now: int, host_peer_id: str, settings: RegistrySettings
) -> list[EvictStaleItem]:
    """Everything under keys that weren't published for the stale age; what this host neither owns nor serves is
    deleted, as the original does: whoever calls this sends it to the neighbourhood next."""
    items: list[EvictStaleItem] = []
    for stored in transaction.stale_keys(old_until(transaction, now, settings.stale_age)):
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
    due = transaction.hosted_records(host_peer_id, long_before(now, settings.expired_age // 2))
    return [
        record
        for record in due
        if not is_expired(record.timestamp_created, settings.expired_age, now)
        and not is_expired(record.timestamp_issued, settings.record_lifetime, now)
    ]
