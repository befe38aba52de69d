"""The functions of the service `registry` that keep a node's storage in order, most of them for its operator only."""

from __future__ import annotations

import msgspec

from registry.errors import (
    RegistryError,
)
from registry.model.service_results import (
    ClearExpiredResult,
    EvictStaleResult,
    GetRecordsResult,
)
from registry.replica import collecting, rules
from registry.service.call_context import ServiceView, check_seconds, text_of


class Upkeep(ServiceView):
    """What is stale or expired, and from when on."""

    async def get_stale_local_records(self, current_timestamp_sec: int) -> GetRecordsResult:
        """Records that this host serves and should renew."""
        try:
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            due = await self._shared.store.read(
                lambda transaction: rules.stale_local_records(
                    transaction, current_timestamp_sec, self._shared.host_peer_id, self.settings
                )
            )
        except RegistryError as error:
            return GetRecordsResult(success=False, error=text_of(error))
        return GetRecordsResult(success=True, result=tuple(due))

    async def clear_expired(self, current_timestamp_sec: int) -> ClearExpiredResult:
        """Deletes what is expired; only the operator's clock counts."""
        try:
            self._operator_only("clear_expired")
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            keys = records = tombstones = 0
            while True:
                part = await self._write(
                    lambda transaction: collecting.clear_by_hand(transaction, current_timestamp_sec, self.settings)
                )
                if not (part.count_keys or part.count_records or part.count_tombstones):
                    break
                keys += part.count_keys
                records += part.count_records
                tombstones += part.count_tombstones
            return ClearExpiredResult(success=True, count_keys=keys, count_records=records, count_tombstones=tombstones)
        except RegistryError as error:
            return ClearExpiredResult(success=False, error=text_of(error))

    async def evict_stale(self, current_timestamp_sec: int) -> EvictStaleResult:
        """Hands out stale keys with all under them, and deletes those that this host has no part in."""
        try:
            self._operator_only("evict_stale")
            check_seconds("current_timestamp_sec", current_timestamp_sec)
            items = await self._write(
                lambda transaction: rules.evict_stale(
                    transaction, current_timestamp_sec, self._shared.host_peer_id, self.settings
                )
            )
        except RegistryError as error:
            return EvictStaleResult(success=False, error=text_of(error))
        return EvictStaleResult(success=True, results=tuple(items))

    async def set_expired_timeout(self, timeout_sec: int) -> None:
        """Changes the expired age (seconds) until the node ends. Raises NotPermitted, InvalidValue."""
        self._operator_only("set_expired_timeout")
        check_seconds("timeout_sec", timeout_sec)
        self._shared.current.value = msgspec.structs.replace(self.settings, expired_age=timeout_sec)

    async def set_stale_timeout(self, timeout_sec: int) -> None:
        """Changes the stale age (seconds) until the node ends. Raises NotPermitted, InvalidValue."""
        self._operator_only("set_stale_timeout")
        check_seconds("timeout_sec", timeout_sec)
        self._shared.current.value = msgspec.structs.replace(self.settings, stale_age=timeout_sec)
