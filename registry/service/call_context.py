"""What the functions of the service `registry` share: the storage, the caller that they serve, its turns and checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Self, TypeVar

import trio

from registry.errors import (
    InternalError,
    InvalidValue,
    InvalidWeightPeerId,
    KeyNotExists,
    KeyRemoved,
    NewerRecordOrTombstoneExists,
    NotPermitted,
    QuotaExceeded,
    RegistryError,
    RegistryRefusal,
    ValuesLimitExceeded,
)
from registry.model.fields import U63_MAX
from registry.model.merge import ResourceState
from registry.model.service_results import WeightResult
from registry.model.values import Key, State
from registry.model.verification import VERIFIED_AT_ONCE, check_field_limits, check_key, is_expired
from registry.permission.errors import RefusedByPolicy
from registry.protocol.error_info import ErrorInfo
from registry.replica import rules
from registry.replica.sender_limits import SenderLimits
from registry.settings import CurrentSettings, RegistrySettings
from registry.storage import Store, Transaction

MAX_WEIGHT: Final = 2**32 - 1

Result = TypeVar("Result")
Looked = TypeVar("Looked")

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""A context in which a few of many values are looked at; leaving it lets others have their turn."""


@asynccontextmanager
async def _next_turn() -> AsyncIterator[None]:
    await trio.lowlevel.checkpoint()
    yield


class _SharedSettings:
    """What all callers' views have in common."""

    def __init__(self, store: Store, host_peer_id: str, current: CurrentSettings, sender_limits: SenderLimits) -> None:
        self.store = store
        self.host_peer_id = host_peer_id
        self.current = current
        self.sender_limits = sender_limits


class ServiceView:
    """The service on one node, seen by one caller (at first: the node itself, its operator)."""

    def __init__(self, store: Store, host_peer_id: str, settings: CurrentSettings, sender_limits: SenderLimits) -> None:
        """`sender_limits` bounds what others may bring, by this service or otherwise."""
        self._shared = _SharedSettings(store, host_peer_id, settings, sender_limits)
        self._caller = self._source = host_peer_id
        self._turn: Turn = _next_turn

    def on_behalf_of(self, caller: str, *, source: str = "", turn: Turn = _next_turn) -> Self:
        """The same service, called by the peer `caller`.

        `source` (default: `caller`) is the peer whose tombstones are limited; many values are looked at in turns of
        `turn`.
        """
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
        check_seconds("current_timestamp_sec", now)
        check_weight(key.owner_peer_id, weight)
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
            shared.sender_limits.check(transaction, state, self._source, moment, now)
            return rules.put_state(transaction, state, weight, shared.host_peer_id, self.settings, now)

        return await self._write(decide)

    async def _put_key(
        self,
        put: Callable[[Transaction, Key, int, str, RegistrySettings, int], bool],
        key: Key,
        weight: int,
        now: int,
    ) -> bool:
        shared, moment = self._shared, trio.current_time()

        def decide(transaction: Transaction) -> bool:
            shared.sender_limits.check(transaction, key, self._source, moment, now)
            return put(transaction, key, weight, shared.host_peer_id, self.settings, now)

        return await self._write(decide)

    async def _republish(self, states: Sequence[tuple[State, int]], now: int) -> int:
        shared, moment = self._shared, trio.current_time()

        def decide(transaction: Transaction) -> int:
            updated = 0
            for state, weight in states:
                try:
                    shared.sender_limits.check(transaction, state, self._source, moment, now)
                    updated += rules.put_state(transaction, state, weight, shared.host_peer_id, self.settings, now)
                except (NewerRecordOrTombstoneExists, ValuesLimitExceeded, QuotaExceeded, KeyRemoved, RefusedByPolicy):
                    continue
            return updated

        return await self._write(decide)

    async def _write(self, decide: Callable[[Transaction], Result]) -> Result:
        return await self._shared.store.write(decide)


def check_weight(peer_id: str, weight: WeightResult) -> None:
    """Raises RegistryError for what isn't the weight of this peer."""
    if not weight.success or weight.peer_id != peer_id:
        raise InvalidWeightPeerId(peer_id, weight.peer_id)
    if type(weight.weight) is not int or not 0 <= weight.weight <= MAX_WEIGHT:
        raise InvalidValue(f"the weight of {peer_id} isn't within 0 and {MAX_WEIGHT}")


def check_seconds(name: str, seconds: object) -> None:
    """Raises InvalidValue for what is no time or age in whole seconds."""
    if type(seconds) is not int or not 0 <= seconds <= U63_MAX:
        raise InvalidValue(f"{name} isn't whole seconds within 0 and {U63_MAX}")


def text_of(error: RegistryError) -> str:
    """The text for a result's `error`."""
    known = isinstance(error, RegistryRefusal | InvalidValue)
    return str(error if known else InternalError(ErrorInfo.of(error).text))
