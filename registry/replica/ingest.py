"""What this node takes into its storage: what verifies, what it is responsible for or has a part in, within quotas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
import trio

from overlay.tasks import TaskStatus, Wakeup
from registry.codes import Code, Kind
from registry.errors import InvalidValue, NotResponsible, RegistryError, RegistryRefusal, StorageError
from registry.model.merge import greater_key, is_spent
from registry.model.owner_index import IndexEntry
from registry.model.policy_withholding import why_not_stored
from registry.model.values import KeyTombstone, Record
from registry.model.verification import (
    VERIFIED_AT_ONCE,
    check_field_limits,
    check_key_or_tombstone,
    check_state,
    is_expired,
)
from registry.permission.errors import RefusedByPolicy
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.protocol.network import Clock, Network
from registry.replica import index_rules, rules
from registry.replica.behind import is_passing
from registry.replica.clock_guard import ClockGuard
from registry.replica.early_items import EarlyItem, EarlyItems
from registry.replica.sender_limits import SenderLimits
from registry.replica.weights import Weights
from registry.settings import CurrentSettings, RegistrySettings
from registry.storage import Store, Transaction

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Ingest:
    """Verifies and stores writes, whoever brings them."""

    def __init__(
        self,
        network: Network,
        store: Store,
        settings: CurrentSettings,
        sender_limits: SenderLimits,
        weights: Weights,
        clock: Clock,
        note_refusal: Callable[[str, Code], None] | None = None,
    ) -> None:
        """`note_refusal(key id, code)` is told of what this node is responsible for and didn't take."""
        self._network = network
        self._store = store
        self._settings = settings
        self._sender_limits = sender_limits
        self._weights = weights
        self._clock = clock
        self._note_refusal = note_refusal
        self._early = EarlyItems()
        self._early_came = Wakeup()
        self.clock_guard = ClockGuard(network, clock)

    @property
    def settings(self) -> RegistrySettings:
        """The settings in force."""
        return self._settings.value

    def is_among_nearest(self, key_id: str) -> bool:
        """Whether writes of a resource are sent to this member; one beyond may hold a part only, as a host does."""
        return self._network.is_responsible(key_id, self.settings.neighbourhood_size)

    def is_responsible(self, key_id: str) -> bool:
        """Whether this member stores a resource for the network."""
        settings = self.settings
        return self._network.is_responsible(key_id, settings.neighbourhood_size, settings.responsibility_margin)

    def has_part_in(self, item: Item) -> bool:
        """Whether this node owns or hosts what is written, and so keeps it, however far away."""
        if item.key_or_tombstone.owner_peer_id == self._network.peer_id:
            return True
        return item.state is not None and item.state.slot.peer_id == self._network.peer_id

    async def store(
        self, items: Sequence[Item], source: str, *, keyless: bool = False, verified: bool = False
    ) -> list[ErrorInfo | None]:
        """Verifies and stores each item in one commit; per item why it was refused, None when it is on disk.

        `source` is the peer that brought them. With `keyless`, as between replicas, a state may outlive its key.
        `verified` items have passed `fault_of` just now, which spares doing it again.
        """
        now = int(self._clock())
        errors: list[ErrorInfo | None] = []
        for number, item in enumerate(items, start=1):
            errors.append(self._refusal(item, source, now, verified=verified))
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

        moment = trio.current_time()

        def decide(transaction: Transaction) -> list[ErrorInfo | None]:
            transaction.source = f"from {source}"
            return [
                error or self._store_one(transaction, item, source, now, moment, keyless=keyless)
                for item, error in zip(items, errors, strict=True)
            ]

        if not all(errors):
            try:
                errors = [self.clock_guard.softened(error) for error in await self._store.write(decide)]
            except StorageError as error:
                self._note_refusals(items, [ErrorInfo.of(error)] * len(items), source, keyless=keyless)
                raise
        self._note_refusals(items, errors, source, keyless=keyless)
        return errors

    def _note_refusals(
        self, items: Sequence[Item], errors: Sequence[ErrorInfo | None], source: str, *, keyless: bool
    ) -> None:
        if self._note_refusal is None:
            return
        for item, error in zip(items, errors, strict=True):
            if error is not None and is_passing(error.known_code) and self.is_responsible(item.key_id):
                self._note_refusal(item.key_id, error.known_code)
                taken_in = item.dated() - self.settings.clock_skew - self._clock()
                if error.known_code.kind is Kind.CLOCK and taken_in > 0:
                    self._early.keep(EarlyItem(item, source, keyless), trio.current_time(), taken_in)
                    self._early_came.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Takes what came too early when its time has come, until cancelled."""
        task_status.started()
        while True:
            with trio.move_on_at(self._early.wakes_at()):
                await self._early_came.wait()
            together: dict[tuple[str, bool], list[Item]] = {}
            for early in self._early.due(trio.current_time()):
                together.setdefault((early.source, early.keyless), []).append(early.item)
            for (source, keyless), items in together.items():
                try:
                    await self.store(items, source, keyless=keyless)
                except StorageError:
                    continue  # it is noted, and asked for
                except Exception:  # of one peer's; raised on, it would end the node
                    _log.exception("what came too early couldn't be taken", peer_id=source)

    async def store_made(self, make: Callable[[Transaction], Item | None]) -> tuple[Item | None, ErrorInfo | None]:
        """Verifies and stores what `make` signs within the transaction, on its thread: this node's own item, if any.

        Returns it, and why the rules of storage refused it, or None when it is on disk; what `make` wrote itself is on
        disk either way. Raises RegistryError when it doesn't verify, and what `make` raised, having written nothing.
        """
        now, moment, here = int(self._clock()), trio.current_time(), self._network.peer_id

        def decide(transaction: Transaction) -> tuple[Item | None, ErrorInfo | None]:
            transaction.source = f"from {here}"
            item = make(transaction)
            if item is None:
                return None, None
            fault = self._fault(item, now)
            if fault:
                raise fault.exception()
            return item, self._store_one(transaction, item, here, now, moment, keyless=False)

        return await self._store.write(decide)

    async def enter(self, entries: Sequence[IndexEntry], source: str) -> list[ErrorInfo | None]:
        """Verifies and stores entries of owners' indexes in one commit; per entry why it was refused, None when it is
        on disk. `source` is the peer that brought them. Raises StorageError."""
        now, moment = int(self._clock()), trio.current_time()
        errors: list[ErrorInfo | None] = []
        for number, entry in enumerate(entries, start=1):
            if self.is_responsible(entry.owner_peer_id):
                faults = (self.fault_of(Item(value)) for value in entry.values())
                errors.append(next((fault for fault in faults if fault is not None), None))
            else:
                errors.append(ErrorInfo.of(NotResponsible(entry.owner_peer_id)))
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

        def decide(transaction: Transaction) -> list[ErrorInfo | None]:
            return [
                error or self._enter_one(transaction, entry, source, now, moment)
                for entry, error in zip(entries, errors, strict=True)
            ]

        return errors if all(errors) else await self._store.write(decide)

    def _enter_one(
        self, transaction: Transaction, entry: IndexEntry, source: str, now: int, moment: float
    ) -> ErrorInfo | None:
        try:
            if index_rules.news_of(transaction, entry) is not None:
                for value in entry.values():
                    self._sender_limits.check(transaction, value, source, moment, now)
                self._list(transaction, entry, now)
        except RegistryRefusal as error:
            return ErrorInfo.of(error)
        return None

    def _list(self, transaction: Transaction, entry: IndexEntry, now: int) -> None:
        weight, here = self._weights.of(entry.owner_peer_id), self._network.peer_id
        index_rules.enter(transaction, entry, weight, here, self.settings, now)

    async def keep(self, item: Item) -> ErrorInfo | None:
        """Stores what this node owns or hosts, or learned of that; why it was refused, None when it is on disk."""
        await self._store.resource(item.key_id)  # into memory, so that `holds` finds it there
        [error] = await self.store([item], self._network.peer_id)
        return error

    def holds(self, item: Item) -> bool:
        """Whether exactly this, verified, is on this node's disk and good, as far as memory tells."""
        stored = self._store.cached_resource(item.key_id)
        if stored is None:
            return False
        now, settings, key = int(self._clock()), self.settings, stored.key
        if isinstance(item.key_or_tombstone, KeyTombstone):
            is_same = item.state is None and item.key_or_tombstone in stored.key_tombstones
            return is_same and not is_expired(
                item.key_or_tombstone.timestamp_issued, settings.key_tombstone_lifetime, now
            )
        if key is None or is_expired(key.timestamp_created, settings.key_lifetime, now):
            return False
        if item.state is None:
            return key == item.key_or_tombstone
        return (
            key == item.key_or_tombstone
            and stored.slots.get(item.state.slot) == item.state
            and not is_spent(item.state, now, settings)
        )

    def fault_of(self, item: Item) -> ErrorInfo | None:
        """Why no replica would take this write, be it responsible or not; None when it verifies."""
        return self.clock_guard.softened(self._fault(item, int(self._clock())))

    def _refusal(self, item: Item, source: str, now: int, *, verified: bool) -> ErrorInfo | None:
        # What this node itself learns, such as the end of what it hosts, it keeps.
        brought_by_itself = source == self._network.peer_id
        if not (brought_by_itself or self.has_part_in(item) or self.is_responsible(item.key_id)):
            return ErrorInfo.of(NotResponsible(item.key_id))
        if (unpermitted := self._unpermitted(item, now)) is not None:
            return unpermitted
        return None if verified else self.clock_guard.softened(self._fault(item, now))

    def _unpermitted(self, item: Item, now: int) -> ErrorInfo | None:
        """Why the policy keeps a record out of a slot of which nothing is known, as far as memory tells: strangers who
        try cost neither their signatures nor a transaction."""
        stored, state = self._store.cached_resource(item.key_id), item.state
        if stored is None or not isinstance(state, Record) or state.slot in stored.slots:
            return None
        if stored.key is None or greater_key(stored.key, item.as_resource().key) is not stored.key:
            return None
        why = why_not_stored(stored.key, None, state, now)
        return None if why is None else ErrorInfo.of(RefusedByPolicy(item.key_id, why, *state.slot[1:]))

    def _fault(self, item: Item, now: int) -> ErrorInfo | None:
        try:
            if item.state is not None and item.state.slot.key_id != item.key_id:
                raise InvalidValue(f"the state is of key {item.state.slot.key_id}, sent with key {item.key_id}")
            check_field_limits(item.key_or_tombstone, self.settings)
            check_key_or_tombstone(item.key_or_tombstone, now, self.settings)
            if item.state is not None:
                check_field_limits(item.state, self.settings)
                check_state(item.state, now, self.settings)
        except RegistryError as error:
            return ErrorInfo.of(error)
        return None

    def _store_one(
        self, transaction: Transaction, item: Item, source: str, now: int, moment: float, *, keyless: bool
    ) -> ErrorInfo | None:
        try:
            self._sender_limits.check(transaction, item.key_or_tombstone, source, moment, now)
            if self._store_key_or_tombstone(transaction, item, now):
                self._list_too(transaction, item, now)
            if item.state is not None:
                self._sender_limits.check(transaction, item.state, source, moment, now)
                rules.put_state(
                    transaction,
                    item.state,
                    self._weights.of(item.state.slot.issued_by),
                    self._network.peer_id,
                    self.settings,
                    now,
                    keyless=keyless,
                )
        except RegistryRefusal as error:
            return ErrorInfo.of(error)
        return None

    def _list_too(self, transaction: Transaction, item: Item, now: int) -> None:
        """Enters what was just stored into its owner's index, if that is kept here too. The resource does without."""
        if self.is_responsible(item.key_or_tombstone.owner_peer_id):
            with suppress(RegistryRefusal):
                self._list(transaction, IndexEntry.of(item.key_or_tombstone), now)

    def _store_key_or_tombstone(self, transaction: Transaction, item: Item, now: int) -> bool:
        """Whether that was news."""
        key_or_tombstone, here = item.key_or_tombstone, self._network.peer_id
        weight = self._weights.of(key_or_tombstone.owner_peer_id)
        if isinstance(key_or_tombstone, KeyTombstone):
            return rules.put_key_tombstone(transaction, key_or_tombstone, here, self.settings, now, weight)
        if item.state is None:
            return rules.register_key(transaction, key_or_tombstone, weight, here, self.settings, now)
        issuer = item.state.slot.issued_by
        needed_by = issuer, self._weights.of(issuer)
        return rules.republish_key(transaction, key_or_tombstone, weight, here, self.settings, now, needed_by)
