"""The 23 functions of the service `registry`, names, argument names, order and results as in the original.

A function refuses in the original's order of checks and never raises for what it is given: results carry `success` and
`error`. Where the service ran with call parameters, `RegistryService.on_behalf_of` says who calls (the original's
`init_peer_id`); arguments of the wrong type or form give an error result as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from registry.errors import (
    KeysArgumentEmpty,
    MissingRecordWeight,
    RecordsPublishingError,
    RegistryError,
    TombstonesPublishingError,
)
from registry.model.merge import greater, greater_key
from registry.model.policy_withholding import why_withheld
from registry.model.service_results import (
    GetKeyMetadataResult,
    GetRecordsResult,
    GetTombstonesResult,
    MergeKeysResult,
    MergeResult,
    RegisterKeyResult,
    RegistryResult,
    RepublishRecordsResult,
    WeightResult,
)
from registry.model.values import Key, Record, RecordMetadata, Slot, State, Tombstone
from registry.model.verification import (
    check_field_limits,
    check_record,
    check_tombstone,
    key_is_genuine,
    record_is_genuine,
)
from registry.replica import rules
from registry.service.bytes_to_sign import BytesToSign
from registry.service.call_context import check_seconds, check_weight, text_of
from registry.service.storage_functions import Upkeep
from registry.storage.in_turns import wait_for_turn

FUNCTIONS: Final = (
    "add_tombstone", "clear_expired", "create_record_metadata", "evict_stale", "get_key_bytes", "get_key_id",
    "get_key_metadata", "get_record_bytes", "get_record_metadata_bytes", "get_records", "get_stale_local_records",
    "get_tombstone_bytes", "get_tombstones", "merge", "merge_keys", "merge_two", "put_record", "register_key",
    "republish_key", "republish_records", "republish_tombstones", "set_expired_timeout", "set_stale_timeout",
)  # fmt: skip


class RegistryService(BytesToSign, Upkeep):
    """The service on one node, seen by one caller (at first: the node itself, its operator)."""

    # Keys

    async def register_key(
        self,
        label: str,
        owner_peer_id: Sequence[str],
        timestamp_created: int,
        challenge: bytes,
        challenge_type: str,
        signature: bytes,
        weight: WeightResult,
        current_timestamp_sec: int,
    ) -> RegisterKeyResult:
        """Stores a key that its owner (the caller, unless named) signed."""
        try:
            owner = self._owner(owner_peer_id)
            key = Key(label, owner, timestamp_created, challenge, challenge_type, signature)
            self._check_key(key, weight, current_timestamp_sec)
            await self._put_key(rules.register_key, key, weight.weight, current_timestamp_sec)
        except RegistryError as error:
            return RegisterKeyResult(success=False, error=text_of(error))
        return RegisterKeyResult(success=True, key_id=key.id)

    async def republish_key(self, key: Key, weight: WeightResult, current_timestamp_sec: int) -> RegistryResult:
        """Stores a key that somebody passes on; an older one than the stored is a success that changes nothing."""
        try:
            self._check_key(key, weight, current_timestamp_sec)
            await self._put_key(rules.republish_key, key, weight.weight, current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=text_of(error))
        return RegistryResult(success=True)

    async def get_key_metadata(self, key_id: str) -> GetKeyMetadataResult:
        """The key that is stored under an id."""
        try:
            stored = await self._resource(key_id)
        except RegistryError as error:
            return GetKeyMetadataResult(success=False, error=text_of(error))
        return GetKeyMetadataResult(success=True, key=stored.key)

    async def merge_keys(self, keys: Sequence[Key]) -> MergeKeysResult:
        """The greatest of the genuine ones among `keys` (docs/design.md, original's faults 11 and 13)."""
        winner: Key | None = None

        def look(key: Key) -> None:
            nonlocal winner
            if key_is_genuine(key):
                winner = greater_key(winner, key)

        await self._each(keys, look)
        if winner is None:
            return MergeKeysResult(success=False, error=str(KeysArgumentEmpty()))
        return MergeKeysResult(success=True, key=winner)

    # Records and tombstones

    async def put_record(
        self,
        metadata: RecordMetadata,
        timestamp_created: int,
        signature: bytes,
        weight: WeightResult,
        current_timestamp_sec: int,
    ) -> RegistryResult:
        """Stores a record under a stored key. `weight` is the issuer's (docs/design.md, original's fault 6)."""
        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            record = Record(metadata=metadata, timestamp_created=timestamp_created, signature=signature)
            check_weight(metadata.issued_by, weight)
            check_field_limits(metadata, self.settings)
            check_record(record, current_timestamp_sec, self.settings)
            await self._put_state(record, weight.weight, current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=text_of(error))
        return RegistryResult(success=True)

    async def add_tombstone(
        self,
        key_id: str,
        issued_by: str,
        peer_id: str,
        timestamp_issued: int,
        solution: bytes,
        signature: bytes,
        current_timestamp_sec: int,
    ) -> RegistryResult:
        """Ends what `issued_by` said of a service on `peer_id`."""
        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            tombstone = Tombstone(key_id, issued_by, peer_id, timestamp_issued, solution, signature)
            check_tombstone(tombstone, current_timestamp_sec, self.settings)
            await self._put_state(tombstone, 0, current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=text_of(error))
        return RegistryResult(success=True)

    async def get_records(self, key_id: str, current_timestamp_sec: int) -> GetRecordsResult:
        """The live records under a stored key."""
        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            stored = await self._resource(key_id, current_timestamp_sec)
            await wait_for_turn(stored)
        except RegistryError as error:
            return GetRecordsResult(success=False, error=text_of(error))
        return GetRecordsResult(success=True, result=tuple(stored.records(current_timestamp_sec, self.settings)))

    async def get_tombstones(self, key_id: str, current_timestamp_sec: int) -> GetTombstonesResult:
        """The tombstones under a stored key that still have something to kill."""
        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            stored = await self._resource(key_id, current_timestamp_sec)
            await wait_for_turn(stored)
        except RegistryError as error:
            return GetTombstonesResult(success=False, error=text_of(error))
        oldest = current_timestamp_sec - self.settings.tombstone_lifetime
        kept = [tombstone for tombstone in stored.tombstones() if tombstone.timestamp_issued > oldest]
        return GetTombstonesResult(success=True, result=tuple(kept))

    async def republish_records(
        self, records: Sequence[Record], weights: Sequence[WeightResult], current_timestamp_sec: int
    ) -> RepublishRecordsResult:
        """Stores records of one key that somebody passes on, in one transaction; stale ones are skipped
        (docs/design.md, original's fault 12)."""

        def check(numbered: tuple[int, Record]) -> None:
            number, record = numbered
            check_record(record, current_timestamp_sec, self.settings)
            if number >= len(weights):
                raise MissingRecordWeight(record.metadata.peer_id, record.metadata.issued_by)
            check_weight(record.metadata.issued_by, weights[number])
            check_field_limits(record, self.settings)
            if record.key_id != records[0].key_id:
                raise RecordsPublishingError

        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            await self._each(list(enumerate(records)), check)
            updated = await self._republish(
                [(record, weight.weight) for record, weight in zip(records, weights, strict=False)],
                current_timestamp_sec,
            )
        except RegistryError as error:
            return RepublishRecordsResult(success=False, error=text_of(error))
        return RepublishRecordsResult(success=True, updated=updated)

    async def republish_tombstones(self, tombstones: Sequence[Tombstone], current_timestamp_sec: int) -> RegistryResult:
        """Stores tombstones of one key that somebody passes on, in one transaction; stale ones are skipped."""

        def check(tombstone: Tombstone) -> None:
            check_tombstone(tombstone, current_timestamp_sec, self.settings)
            if tombstone.key_id != tombstones[0].key_id:
                raise TombstonesPublishingError

        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            await self._each(tombstones, check)
            await self._republish([(tombstone, 0) for tombstone in tombstones], current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=text_of(error))
        return RegistryResult(success=True)

    async def merge(self, records: Sequence[Sequence[Record]]) -> MergeResult:
        """The winners of several replicas' records: of the genuine ones, by the one total order, less what this node's
        own storage knows to be superseded (docs/design.md, original's faults 11 and 13), and what the policy of the key
        that it stores withholds, as far as no clock says so: none is given here."""
        winners: dict[Slot, State] = {}
        kept: list[Record] = []

        def look(record: Record) -> None:
            if record_is_genuine(record):
                winners[record.slot] = greater(winners.get(record.slot), record)

        def compare(both: tuple[State, State | None]) -> None:
            winner, known = both
            if isinstance(winner, Record) and (known is None or winner.order() >= known.order()):
                kept.append(winner)

        await self._each([record for group in records for record in group], look)
        try:
            for key_id, slots in groupby(sorted(winners), attrgetter("key_id")):
                stored = await self._shared.store.resource(key_id)
                first = len(kept)
                await self._each([(winners[slot], stored.slots.get(slot)) for slot in slots], compare)
                kept[first:] = [
                    each for each in kept[first:] if why_withheld(stored.key, each, each.timestamp_issued) is None
                ]
        except RegistryError as error:
            return MergeResult(success=False, error=text_of(error))
        return MergeResult(success=True, result=tuple(kept))

    async def merge_two(self, a: Sequence[Record], b: Sequence[Record]) -> MergeResult:
        """Merges two lists of records (original: `merge_two`)."""
        return await self.merge((a, b))
