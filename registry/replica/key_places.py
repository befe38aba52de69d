"""Whether a state may have a place under its key, and what must go for it, by what is stored; the arithmetic of shares
is in `registry.replica.shares`."""

from __future__ import annotations

from registry.errors import QuotaExceeded, ValuesLimitExceeded
from registry.model import history
from registry.model.fields import U63_MAX
from registry.model.policy_withholding import is_named_in, names_others
from registry.model.values import Record, Slot, State
from registry.replica.collecting import old_until
from registry.replica.shares import Rank, Room, Taken, room_for_record, room_for_slot
from registry.settings import RegistrySettings
from registry.storage.transaction import Transaction


class KeyPlaces:
    """The places under the key of one state, within the transaction that stores it. Times in seconds."""

    def __init__(
        self,
        transaction: Transaction,
        state: State,
        weight: int,
        host_peer_id: str,
        settings: RegistrySettings,
        now: int,
    ) -> None:
        self._transaction = transaction
        self._state = state
        self._weight = weight
        self._host_peer_id = host_peer_id
        self._settings = settings
        self._now = now
        stored = transaction.key(state.slot.key_id)
        self._key = stored.key if stored is not None else None
        self._owner = self._key.owner_peer_id if self._key else transaction.owner_of(state.slot.key_id) or ""
        self._is_hosted_here = isinstance(state, Record) and state.slot.peer_id == host_peer_id
        self._counted: Taken | None = None
        self._withheld: frozenset[Slot] | None = None

    def for_record(self) -> list[Slot]:
        """The slots that go for a record in whose slot none is. Raises ValuesLimitExceeded."""
        room = self._room_for_record()
        if room is not Room.FREE and self._drop_expired():
            room = self._room_for_record()
        if room is not Room.FREE and self._withheld_here():
            room = self._room_for_record()
        if room is Room.FREE:
            return []
        if room is not Room.NONE:
            lighter = self._lighter_record(old_until(self._transaction, self._now, self._settings.record_lifetime))
            if lighter is not None:
                return [lighter]
            if room is Room.RECORD_IF_ANY or self._lighter_record(U63_MAX) is not None:
                return []
        raise ValuesLimitExceeded(self._state.slot.key_id)

    def for_slot(self) -> list[Slot]:
        """The slots that go for one of which nothing is known. Raises ValuesLimitExceeded, QuotaExceeded."""
        is_record = isinstance(self._state, Record)
        room = room_for_slot(self._taken(), self._rank, self._settings, is_record=is_record)
        if room is Room.FREE:
            return []
        going = self._idle_tombstone(self._state.slot.issued_by)
        if going is None and room is not Room.OWN_TOMBSTONE:
            going = self._idle_tombstone()
        if going is not None:
            return [going]
        if room is Room.TOMBSTONE_IF_ANY:
            return []
        if is_record:
            raise ValuesLimitExceeded(self._state.slot.key_id)
        count = self._transaction.counts.tombstones_under(self._state.slot.key_id)
        raise QuotaExceeded(f"{count} tombstones are stored under key {self._state.slot.key_id} already")

    @property
    def is_named(self) -> bool:
        """Whether the policy names the issuer, or it is certified."""
        return is_named_in(self._key, self._state, self._now)

    @property
    def _rank(self) -> Rank:
        issuer = self._state.slot.issued_by
        if issuer == self._host_peer_id:
            return Rank.HOST
        if issuer == self._owner:
            return Rank.OWNER
        if self._weight > 0:
            return Rank.HEAVIER
        if self._is_hosted_here:
            return Rank.HOSTED
        if not names_others(self._key):
            return Rank.STRANGER
        return Rank.NAMED if self.is_named else Rank.UNNAMED

    def _taken(self) -> Taken:
        if self._counted is not None:
            return self._counted
        transaction, (key_id, issuer, _) = self._transaction, self._state.slot
        records, records_by_issuer = transaction.counts.foreign_records(key_id, self._host_peer_id, issuer)
        withheld = self._withheld or frozenset()
        self._counted = Taken(
            slots=transaction.counts.slots_under(key_id),
            slots_by_issuer=transaction.counts.slots_by(key_id, issuer),
            records=records - len(withheld),
            records_by_issuer=records_by_issuer - sum(slot.issued_by == issuer for slot in withheld),
            tombstones=transaction.counts.tombstones_under(key_id),
        )
        return self._counted

    def _room_for_record(self) -> Room:
        return room_for_record(self._taken(), self._rank, self._settings, is_hosted_here=self._is_hosted_here)

    def _lighter_record(self, victims_until: int) -> Slot | None:
        key_id = self._state.slot.key_id
        lightest = self._transaction.accounts.lightest_foreign_record(
            key_id, self._host_peer_id, self._owner, victims_until, self._withheld or ()
        )
        is_lighter = lightest is not None and lightest[0] < max(self._weight, int(self._rank is not Rank.HEAVIER))
        return lightest[1] if lightest is not None and is_lighter else None

    def _withheld_here(self) -> frozenset[Slot]:
        """The slots of other hosts' records that the policy withholds, which count for nothing from now on. Whoever is
        at a limit has them looked through; nobody else."""
        if self._withheld is None:
            self._withheld = frozenset(
                slot
                for slot in self._transaction.resource(self._state.slot.key_id).withheld(self._now)
                if slot.peer_id != self._host_peer_id
            )
            self._counted = None
        return self._withheld

    def _drop_expired(self) -> bool:
        """What is expired but not collected yet takes nobody's place; whether there was any."""
        transaction, settings, now = self._transaction, self._settings, self._now
        slots = transaction.expired.foreign_slots(
            self._state.slot.key_id,
            self._host_peer_id,
            old_until(transaction, now, settings.expired_age),
            old_until(transaction, now, settings.record_lifetime),
        )
        for slot in slots:
            transaction.remove_state(slot)
            transaction.note(history.of_slot(slot, history.EXPIRED, now, "to make room"))
        self._counted = None
        return bool(slots)

    def _idle_tombstone(self, issuer: str = "") -> Slot | None:
        until = old_until(self._transaction, self._now, self._settings.record_lifetime)
        return self._transaction.accounts.idle_tombstone(
            self._state.slot.key_id, until, self._host_peer_id, self._owner, issuer
        )
