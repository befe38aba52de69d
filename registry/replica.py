"""This node as a replica: what it takes from others and what it tells them.

Nothing that fails verification is stored or served; only what this member is responsible for, or hosts, is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from overlay.errors import Refusal
from registry.errors import InvalidValue, NotResponsible, RegistryError, ServiceError, StorageError
from registry.merging import ResourceState, is_spent
from registry.messages import PUT, READ, Item, PutAnswer, PutBody, ReadBody, StatePage, build, parse
from registry.network import Clock, Network
from registry.service import RegistryService, decisions
from registry.settings import RegistrySettings
from registry.storage import Store, Transaction
from registry.values import Slot, decode_key, decode_state
from registry.verification import VERIFIED_AT_ONCE, check_field_limits, check_key, check_state, is_expired
from registry.weights import Weights

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Replica:
    """Serves `registry.put` and `registry.read` over `network`, out of `store`."""

    def __init__(
        self, network: Network, store: Store, service: RegistryService, weights: Weights, clock: Clock
    ) -> None:
        self._network = network
        self._store = store
        self._service = service
        self._weights = weights
        self._clock = clock
        network.serve(PUT, self._serve_put)
        network.serve(READ, self._serve_read)

    @property
    def settings(self) -> RegistrySettings:
        return self._service.settings

    def is_responsible(self, key_id: str) -> bool:
        """Whether this member stores a resource for the network."""
        return self._network.is_responsible(
            key_id, self.settings.neighbourhood_size + self.settings.responsibility_margin
        )

    def is_among_nearest(self, key_id: str) -> bool:
        """Whether writes of a resource are sent to this member; one beyond may hold a part only, as a host does."""
        return self._network.is_responsible(key_id, self.settings.neighbourhood_size)

    async def store(self, items: Sequence[Item]) -> list[str]:
        """Verifies and stores each item in one commit; per item an error text, empty when it is on disk."""
        now = int(self._clock())
        errors: list[str] = []
        for number, item in enumerate(items, start=1):
            errors.append(self._refusal(item, now))
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

        def decide(transaction: Transaction) -> list[str]:
            return [error or self._store_one(transaction, item, now) for item, error in zip(items, errors, strict=True)]

        if all(errors):
            return errors
        return await self._store.write(decide)

    async def resource(self, key_id: str) -> ResourceState:
        """What this replica serves of a resource now: neither expired records nor spent tombstones or keys."""
        return self._served(await self._store.resource(key_id))

    def resource_at_hand(self, key_id: str) -> ResourceState | None:
        """`resource`, when it is in memory."""
        stored = self._store.cached_resource(key_id)
        return None if stored is None else self._served(stored)

    def _served(self, stored: ResourceState) -> ResourceState:
        now, settings = int(self._clock()), self.settings
        key = stored.key
        if key is not None and is_expired(key.timestamp_created, settings.key_lifetime, now):
            key = None
        kept = [state for state in stored.slots.values() if not is_spent(state, now, settings)]
        if key is stored.key and len(kept) == len(stored.slots):
            return stored
        return ResourceState.of(key, kept)

    def fault_of(self, item: Item) -> str:
        """Why no replica would take this write, be it responsible or not; empty when it verifies."""
        return self._fault(item, int(self._clock()))

    def _refusal(self, item: Item, now: int) -> str:
        hosts_it = item.state is not None and item.state.slot.peer_id == self._network.peer_id
        if not hosts_it and not self.is_responsible(item.key.id):
            return str(NotResponsible(item.key.id))
        return self._fault(item, now)

    def _fault(self, item: Item, now: int) -> str:
        try:
            if item.state is not None and item.state.slot.key_id != item.key.id:
                raise InvalidValue(f"the state is of key {item.state.slot.key_id}, sent with key {item.key.id}")
            check_field_limits(item.key, self.settings)
            check_key(item.key, now, self.settings)
            if item.state is not None:
                check_field_limits(item.state, self.settings)
                check_state(item.state, now, self.settings)
        except RegistryError as error:
            return str(error)
        return ""

    def _store_one(self, transaction: Transaction, item: Item, now: int) -> str:
        owner_weight = self._weights.of(item.key.owner_peer_id)
        try:
            if item.state is None:
                decisions.register_key(transaction, item.key, owner_weight, now)
            else:
                decisions.republish_key(transaction, item.key, owner_weight, now)
                decisions.put_state(
                    transaction,
                    item.state,
                    self._weights.of(item.state.slot.issued_by),
                    self._network.peer_id,
                    self.settings,
                    now,
                )
        except ServiceError as error:
            return str(error)
        return ""

    async def _serve_put(self, caller: str, body: object) -> object:
        try:
            raw = parse(body, PutBody).items
        except InvalidValue as error:
            raise Refusal("invalid", str(error)) from error
        items: list[Item] = []
        positions: list[int] = []
        errors = [""] * len(raw)
        for position, (key, state) in enumerate(raw):
            try:
                items.append(Item(key=decode_key(key), state=decode_state(state) if state else None))
                positions.append(position)
            except InvalidValue as error:
                errors[position] = str(error)
        try:
            stored = await self.store(items)
        except StorageError as error:  # its text names this node's files: for the log, not for peers
            _log.error("a put couldn't be stored", caller=caller, items=len(items), error=str(error))
            raise Refusal("storage", "the disk refused") from error
        for position, error_text in zip(positions, stored, strict=True):
            errors[position] = error_text
        if any(errors):
            _log.debug("refused some of a put", caller=caller, refused=sum(map(bool, errors)), items=len(raw))
        return build(PutAnswer(tuple(errors)))

    async def _serve_read(self, caller: str, body: object) -> object:
        try:
            request = parse(body, ReadBody)
        except InvalidValue as error:
            raise Refusal("invalid", str(error)) from error
        try:
            resource = await self.resource(request.key_id)
        except StorageError as error:
            _log.error("a read failed", caller=caller, error=str(error))
            raise Refusal("storage", "the disk refused") from error
        if request.digest and resource.key is not None and request.digest == resource.digest():
            return build(StatePage(holds_key=True, same=True, key=b"", states=(), more=False))
        after = Slot(*request.after) if request.after else None
        return build(StatePage.of(resource, after))
