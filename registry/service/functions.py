"""The 23 functions of the service `registry`, names, argument names, order and results as in the original.

A function refuses in the original's order of checks and never raises for what it is given: results carry `success` and
`error`. Where the service ran with call parameters, `RegistryService.on_behalf_of` says who
calls (the original's `init_peer_id`); arguments of the wrong type or form give an error result as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby
from operator import attrgetter
from typing import Final, Self, TypeVar

import msgspec
import trio

from registry.errors import (
    InternalError,
    InvalidValue,
    InvalidWeightPeerId,
    KeyNotExists,
    KeyRemoved,
    KeysArgumentEmpty,
    MissingRecordWeight,
    NewerRecordOrTombstoneExists,
    NotPermitted,
    QuotaExceeded,
    RecordsPublishingError,
    RegistryError,
    RegistryRefusal,
    TombstonesPublishingError,
    ValuesLimitExceeded,
)
from registry.model.merge import ResourceState, greater, greater_key
from registry.model.results import (
    ClearExpiredResult,
    EvictStaleResult,
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
from registry.model.signing import key_id_of
from registry.model.values import U63_MAX, Key, Record, RecordMetadata, Slot, State, Tombstone
from registry.model.verification import (
    VERIFIED_AT_ONCE,
    check_field_limits,
    check_key,
    check_record,
    check_tombstone,
    is_expired,
    key_is_genuine,
    record_is_genuine,
)
from registry.replica import rules
from registry.replica.tombstone_limit import TombstoneLimit
from registry.settings import CurrentSettings, RegistrySettings
from registry.storage import Store, Transaction

FUNCTIONS: Final = (
    "add_tombstone", "clear_expired", "create_record_metadata", "evict_stale", "get_key_bytes", "get_key_id",
    "get_key_metadata", "get_record_bytes", "get_record_metadata_bytes", "get_records", "get_stale_local_records",
    "get_tombstone_bytes", "get_tombstones", "merge", "merge_keys", "merge_two", "put_record", "register_key",
    "republish_key", "republish_records", "republish_tombstones", "set_expired_timeout", "set_stale_timeout",
)  # fmt: skip

MAX_WEIGHT: Final = 2**32 - 1

Result = TypeVar("Result")
Looked = TypeVar("Looked")

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""Within it a caller's work is done, a few values of many at a time."""


@asynccontextmanager
async def _next_turn() -> AsyncIterator[None]:
    await trio.lowlevel.checkpoint()
    yield


class _Shared:
    """What all callers' views have in common."""

    def __init__(
        self, store: Store, host_peer_id: str, current: CurrentSettings, tombstone_limit: TombstoneLimit
    ) -> None:
        self.store = store
        self.host_peer_id = host_peer_id
        self.current = current
        self.tombstone_limit = tombstone_limit


class RegistryService:
    """The service on one node, seen by one caller (at first: the node itself, its operator)."""

    def __init__(
        self, store: Store, host_peer_id: str, settings: CurrentSettings, tombstone_limit: TombstoneLimit
    ) -> None:
        """`tombstone_limit` bounds the tombstones that others may bring, by this service or otherwise."""
        self._shared = _Shared(store, host_peer_id, settings, tombstone_limit)
        self._caller = self._source = host_peer_id
        self._turn: Turn = _next_turn

    def on_behalf_of(self, caller: str, *, source: str = "", turn: Turn = _next_turn) -> Self:
        """The same service, called by the peer `caller`, at the word of `source` (`caller`), who is rationed; many
        values are looked at in turns of `turn`."""
        view = object.__new__(type(self))
        view._shared = self._shared
        view._caller = caller
        view._source = source or caller
        view._turn = turn
        return view

    @property
    def settings(self) -> RegistrySettings:
        """The settings in force, with what `set_*_timeout` changed."""
        return self._shared.current.value

    # Bytes to sign

    async def get_key_bytes(
        self, label: str, owner_peer_id: Sequence[str], timestamp_created: int, challenge: bytes, challenge_type: str
    ) -> bytes:
        """What the owner signs. The owner is the first of `owner_peer_id`, else the caller (docs/design.md,
        original's fault 17).

        Raises InvalidValue, like the other functions that have no result type to tell.
        """
        return Key(label, self._owner(owner_peer_id), timestamp_created, challenge, challenge_type, b"").signed_bytes()

    async def get_key_id(self, label: str, peer_id: str) -> str:
        """The id of the key with this label and owner; the caller's for an empty `peer_id`."""
        return key_id_of(label, peer_id or self._caller)

    async def get_record_metadata_bytes(
        self,
        key_id: str,
        issued_by: str,
        timestamp_issued: int,
        value: str,
        peer_id: str,
        relay_id: Sequence[str],
        service_id: Sequence[str],
        solution: bytes,
    ) -> bytes:
        """What the issuer signs. Raises InvalidValue."""
        metadata = await self.create_record_metadata(
            key_id, issued_by, timestamp_issued, value, peer_id, relay_id, service_id, solution, b""
        )
        return metadata.signed_bytes()

    async def create_record_metadata(
        self,
        key_id: str,
        issued_by: str,
        timestamp_issued: int,
        value: str,
        peer_id: str,
        relay_id: Sequence[str],
        service_id: Sequence[str],
        solution: bytes,
        signature: bytes,
    ) -> RecordMetadata:
        """The value of these fields. Raises InvalidValue."""
        return RecordMetadata(
            key_id=key_id,
            issued_by=issued_by,
            peer_id=peer_id,
            timestamp_issued=timestamp_issued,
            solution=solution,
            value=value,
            relay_id=tuple(relay_id),
            service_id=tuple(service_id),
            issuer_signature=signature,
        )

    async def get_record_bytes(self, metadata: RecordMetadata, timestamp_created: int) -> bytes:
        """What the hosting peer signs. Raises InvalidValue."""
        return Record(metadata=metadata, timestamp_created=timestamp_created, signature=b"").signed_bytes()

    async def get_tombstone_bytes(
        self, key_id: str, issued_by: str, peer_id: str, timestamp_issued: int, solution: bytes
    ) -> bytes:
        """What the issuer of a tombstone signs. Raises InvalidValue."""
        return Tombstone(key_id, issued_by, peer_id, timestamp_issued, solution, b"").signed_bytes()

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
            await self._write(
                lambda transaction: rules.register_key(
                    transaction,
                    key,
                    weight.weight,
                    self._shared.host_peer_id,
                    self.settings,
                    current_timestamp_sec,
                )
            )
        except RegistryError as error:
            return RegisterKeyResult(success=False, error=_text(error))
        return RegisterKeyResult(success=True, key_id=key.id)

    async def republish_key(self, key: Key, weight: WeightResult, current_timestamp_sec: int) -> RegistryResult:
        """Stores a key that somebody passes on; an older one than the stored is a success that changes nothing."""
        try:
            self._check_key(key, weight, current_timestamp_sec)
            await self._write(
                lambda transaction: rules.republish_key(
                    transaction,
                    key,
                    weight.weight,
                    self._shared.host_peer_id,
                    self.settings,
                    current_timestamp_sec,
                )
            )
        except RegistryError as error:
            return RegistryResult(success=False, error=_text(error))
        return RegistryResult(success=True)

    async def get_key_metadata(self, key_id: str) -> GetKeyMetadataResult:
        """The stored key."""
        try:
            stored = await self._resource(key_id)
        except RegistryError as error:
            return GetKeyMetadataResult(success=False, error=_text(error))
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
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            record = Record(metadata=metadata, timestamp_created=timestamp_created, signature=signature)
            _check_weight(metadata.issued_by, weight)
            check_field_limits(metadata, self.settings)
            check_record(record, current_timestamp_sec, self.settings)
            await self._put_state(record, weight.weight, current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=_text(error))
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
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            tombstone = Tombstone(key_id, issued_by, peer_id, timestamp_issued, solution, signature)
            check_tombstone(tombstone, current_timestamp_sec, self.settings)
            await self._put_state(tombstone, 0, current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=_text(error))
        return RegistryResult(success=True)

    async def get_records(self, key_id: str, current_timestamp_sec: int) -> GetRecordsResult:
        """The live records under a stored key."""
        try:
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            stored = await self._resource(key_id, current_timestamp_sec)
        except RegistryError as error:
            return GetRecordsResult(success=False, error=_text(error))
        return GetRecordsResult(success=True, result=tuple(stored.records(current_timestamp_sec, self.settings)))

    async def get_tombstones(self, key_id: str, current_timestamp_sec: int) -> GetTombstonesResult:
        """The tombstones under a stored key that still have something to kill."""
        try:
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            stored = await self._resource(key_id, current_timestamp_sec)
        except RegistryError as error:
            return GetTombstonesResult(success=False, error=_text(error))
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
            _check_weight(record.metadata.issued_by, weights[number])
            check_field_limits(record, self.settings)
            if record.key_id != records[0].key_id:
                raise RecordsPublishingError

        try:
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            await self._each(list(enumerate(records)), check)
            updated = await self._republish(
                [(record, weight.weight) for record, weight in zip(records, weights, strict=False)],
                current_timestamp_sec,
            )
        except RegistryError as error:
            return RepublishRecordsResult(success=False, error=_text(error))
        return RepublishRecordsResult(success=True, updated=updated)

    async def republish_tombstones(self, tombstones: Sequence[Tombstone], current_timestamp_sec: int) -> RegistryResult:
        """Stores tombstones of one key that somebody passes on, in one transaction; stale ones are skipped."""

        def check(tombstone: Tombstone) -> None:
            check_tombstone(tombstone, current_timestamp_sec, self.settings)
            if tombstone.key_id != tombstones[0].key_id:
                raise TombstonesPublishingError

        try:
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            await self._each(tombstones, check)
            await self._republish([(tombstone, 0) for tombstone in tombstones], current_timestamp_sec)
        except RegistryError as error:
            return RegistryResult(success=False, error=_text(error))
        return RegistryResult(success=True)

    async def merge(self, records: Sequence[Sequence[Record]]) -> MergeResult:
        """The winners of several replicas' records: of the genuine ones, by the one total order, less what this node's
        own storage knows to be superseded (docs/design.md, original's faults 11 and 13)."""
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
                known = (await self._shared.store.resource(key_id)).slots
                await self._each([(winners[slot], known.get(slot)) for slot in slots], compare)
        except RegistryError as error:
            return MergeResult(success=False, error=_text(error))
        return MergeResult(success=True, result=tuple(kept))

    async def merge_two(self, a: Sequence[Record], b: Sequence[Record]) -> MergeResult:
        """`merge` of two."""
        return await self.merge((a, b))

    # Upkeep

    async def get_stale_local_records(self, current_timestamp_sec: int) -> GetRecordsResult:
        """Records that this host serves and should renew."""
        try:
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            due = await self._shared.store.read(
                lambda transaction: rules.stale_local_records(
                    transaction, current_timestamp_sec, self._shared.host_peer_id, self.settings
                )
            )
        except RegistryError as error:
            return GetRecordsResult(success=False, error=_text(error))
        return GetRecordsResult(success=True, result=tuple(due))

    async def clear_expired(self, current_timestamp_sec: int) -> ClearExpiredResult:
        """Deletes what is expired; only the operator's clock counts."""
        try:
            self._operator_only("clear_expired")
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            return await self._write(
                lambda transaction: rules.clear_expired(transaction, current_timestamp_sec, self.settings)
            )
        except RegistryError as error:
            return ClearExpiredResult(success=False, error=_text(error))

    async def evict_stale(self, current_timestamp_sec: int) -> EvictStaleResult:
        """Hands out stale keys with all under them, and deletes those that this host has no part in."""
        try:
            self._operator_only("evict_stale")
            _check_seconds("current_timestamp_sec", current_timestamp_sec)
            items = await self._write(
                lambda transaction: rules.evict_stale(
                    transaction, current_timestamp_sec, self._shared.host_peer_id, self.settings
                )
            )
        except RegistryError as error:
            return EvictStaleResult(success=False, error=_text(error))
        return EvictStaleResult(success=True, results=tuple(items))

    async def set_expired_timeout(self, timeout_sec: int) -> None:
        """Changes the expired age (seconds) until the node ends. Raises NotPermitted, InvalidValue."""
        self._operator_only("set_expired_timeout")
        _check_seconds("timeout_sec", timeout_sec)
        self._shared.current.value = msgspec.structs.replace(self.settings, expired_age=timeout_sec)

    async def set_stale_timeout(self, timeout_sec: int) -> None:
        """Changes the stale age (seconds) until the node ends. Raises NotPermitted, InvalidValue."""
        self._operator_only("set_stale_timeout")
        _check_seconds("timeout_sec", timeout_sec)
        self._shared.current.value = msgspec.structs.replace(self.settings, stale_age=timeout_sec)

    # Inside

    async def _each(self, values: Sequence[Looked], look: Callable[[Looked], None]) -> None:
        """Looks at each value; others get their turn in between, for signatures of many take long."""
        for start in range(0, len(values), VERIFIED_AT_ONCE):
            async with self._turn():
                for value in values[start : start + VERIFIED_AT_ONCE]:
                    look(value)

    def _owner(self, owner_peer_id: Sequence[str]) -> str:
        return owner_peer_id[0] if owner_peer_id else self._caller

    def _operator_only(self, function: str) -> None:
        if self._caller != self._shared.host_peer_id:
            raise NotPermitted(function)

    def _check_key(self, key: Key, weight: WeightResult, now: int) -> None:
        _check_seconds("current_timestamp_sec", now)
        _check_weight(key.owner_peer_id, weight)
        check_field_limits(key, self.settings)
        check_key(key, now, self.settings)

    async def _resource(self, key_id: str, now: int | None = None) -> ResourceState:
        stored = await self._shared.store.resource(key_id)
        if stored.key is None or (
            now is not None and is_expired(stored.key.timestamp_created, self.settings.key_lifetime, now)
        ):
            raise KeyNotExists(key_id)
        return stored

    async def _put_state(self, state: State, weight: int, now: int) -> bool:
        shared, moment = self._shared, trio.current_time()

        def decide(transaction: Transaction) -> bool:
            shared.tombstone_limit.check(transaction, state, self._source, moment)
            return rules.put_state(transaction, state, weight, shared.host_peer_id, self.settings, now)

        return await self._write(decide)

    async def _republish(self, states: Sequence[tuple[State, int]], now: int) -> int:
        shared, moment = self._shared, trio.current_time()

        def decide(transaction: Transaction) -> int:
            updated = 0
            for state, weight in states:
                try:
                    shared.tombstone_limit.check(transaction, state, self._source, moment)
                    updated += rules.put_state(transaction, state, weight, shared.host_peer_id, self.settings, now)
                except (NewerRecordOrTombstoneExists, ValuesLimitExceeded, QuotaExceeded, KeyRemoved):
                    continue
            return updated

        return await self._write(decide)

    async def _write(self, decide: Callable[[Transaction], Result]) -> Result:
        return await self._shared.store.write(decide)


def _check_weight(peer_id: str, weight: WeightResult) -> None:
    if not weight.success or weight.peer_id != peer_id:
        raise InvalidWeightPeerId(peer_id, weight.peer_id)
    if type(weight.weight) is not int or not 0 <= weight.weight <= MAX_WEIGHT:
        raise InvalidValue(f"the weight of {peer_id} isn't within 0 and {MAX_WEIGHT}")


def _check_seconds(name: str, seconds: object) -> None:
    if type(seconds) is not int or not 0 <= seconds <= U63_MAX:
        raise InvalidValue(f"{name} isn't whole seconds within 0 and {U63_MAX}")


def _text(error: RegistryError) -> str:
    return str(error if isinstance(error, RegistryRefusal | InvalidValue) else InternalError(error))
