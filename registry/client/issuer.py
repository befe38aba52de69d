"""Issuing under this identity: the slot is read, its next state is made and written; again when somebody was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
import trio

from overlay.errors import CallFailed
from overlay.identity import Identity
from registry.client.key_cache import KeyCache
from registry.client.node_api import NodeApi
from registry.client.node_writer import NodeWriter, Written, failed, refused, until
from registry.client.results import Done, code_of
from registry.client.slot_locks import SlotLocks
from registry.client.timestamps import TimestampLog
from registry.codes import Code
from registry.errors import RegistryError
from registry.model.merge import ResourceState
from registry.model.policy_withholding import why_withheld
from registry.model.signing import is_key_id
from registry.model.values import Key, Record, Slot, State, Tombstone
from registry.permission.errors import RefusedByPolicy
from registry.protocol.error_info import ErrorInfo, texts
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.quorum.read_machine import ReadOutcome
from registry.replica.countersign import Countersigner
from registry.settings import RegistrySettings

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CONFIRMING: Final = 0.5  # seconds that are waited for the key, once something is written with a remembered one
ATTEMPTS: Final = 3  # of a write that meets a newer state of its slot, each after reading it again

NOT_FOUND: Final = "resource not found"  # and the original's `: timeout exceeded`, where the time was up

Issue = Callable[[ReadOutcome, Key, Slot, float], Awaitable[State]]
"""(what is known of the resource, its key, the slot, seconds left) -> the slot's next state, signed."""


def no_resource_id(text: str) -> str:
    """What to tell who gave something else, such as a label, where the id of a resource is wanted."""
    return f"{text[:80]!r} is no resource id: getResourceId(label, owner) gives the id that an owner's label has"


def not_found(outcome: ReadOutcome) -> Done:
    """What becomes of an operation on a resource whose key wasn't found."""
    return Done(
        False, failed(texts(outcome.errors), NOT_FOUND, timed_out=outcome.timed_out), code=code_of_read(outcome)
    )


def code_of_read(outcome: ReadOutcome) -> Code:
    """Why a resource wasn't found, or by too few."""
    codes = [error.known_code for error in outcome.errors]
    otherwise = Code.KEY_NOT_EXISTS if outcome.resource.key is None else Code.TOO_FEW_REPLICAS
    return code_of(codes, timed_out=outcome.timed_out, otherwise=otherwise)


class Issuer:
    """Issues records and tombstones under one identity; one state of a slot at a time."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        issued: TimestampLog,
        writer: NodeWriter,
        keys: KeyCache,
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._node_api = node_api
        self._host = host
        self._issued = issued
        self._writer = writer
        self._keys = keys
        self._settings = settings
        self._clock = clock
        self._slots = SlotLocks()

    async def issue(
        self,
        resource_id: str,
        peer_id: str,
        issue: Issue,
        factor: int,
        timeout: float,
        failure: str,
        *,
        reads_slot: bool = False,
    ) -> Done:
        """Reads the slot, has `issue` make its next state, writes it; again when somebody was faster.

        `reads_slot`: `issue` wants to know at once what is in the slot, not only when a write met something newer.
        """
        if not is_key_id(resource_id):
            return Done(False, (no_resource_id(resource_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        written = Written(Done(False, failed((), failure, timed_out=True), code=Code.TIMEOUT))
        with trio.move_on_at(deadline):
            for attempt in range(ATTEMPTS):
                key_suffices = attempt == 0 and not reads_slot
                is_from_before = key_suffices and self._keys.get(resource_id) is not None
                try:
                    outcome = await self._key_or_all(resource_id, until(deadline), key_suffices=key_suffices)
                    key = outcome.resource.key
                    if key is None:
                        return not_found(outcome)
                    slot = Slot(key.id, self._identity.peer_id, peer_id)
                    async with self._slots.locked(slot):  # who takes the later time sees what the earlier one made
                        state = await issue(outcome, key, slot, until(deadline))
                except (RegistryError, CallFailed) as error:
                    if is_from_before and isinstance(error, RegistryError) and error.code.is_by_policy:
                        self._keys.forget(resource_id)  # the owner may have changed it since
                        written = Written(Done(False, (str(error),), code=error.code))
                        continue
                    return Done(False, (str(error),), code=ErrorInfo.of(error).known_code)
                if is_from_before and self._keys.is_doubted(key):
                    written, key = await self._write_and_look(Item(key, state), key, factor, until(deadline), failure)
                    why = why_withheld(key, state, self.now()) if isinstance(state, Record) else None
                    if why is not None and written.done.success:
                        withheld = RefusedByPolicy(resource_id, why, slot.issued_by, slot.peer_id)
                        written = refused(withheld, failure)
                else:
                    written = await self._writer.write(Item(key, state), factor, until(deadline), failure)
                if not written.done.success:
                    self._keys.forget(resource_id)
                elif not is_from_before:
                    self._keys.remember(key)
                by_policy = is_from_before and any(code.is_by_policy for code in written.codes)
                if written.done.success or not (by_policy or Code.NEWER_STATE_EXISTS in written.codes):
                    break
        return written.done

    async def issue_here(
        self, slot: Slot, outcome: ReadOutcome, key: Key, sign: Callable[[int], State], from_time: int = 0
    ) -> tuple[State, ErrorInfo | None]:
        """What `sign(timestamp)` makes with the slot's next timestamp, which is `from_time` (seconds) at least, and why
        it isn't on disk here, if it isn't."""
        await self._host.clock_guard.wait()
        self._host.signed.note(slot.key_id, slot)
        item, error = await self._issued.issue(
            slot,
            *self._last_seen(slot, outcome, from_time),
            lambda timestamp: Item(key, sign(timestamp)),
            latest=int(self._clock() + self._settings.clock_skew / 2),
            wait=self.wait_until_accepted,
        )
        assert item.state is not None
        return item.state, error

    async def reserve(self, slot: Slot, outcome: ReadOutcome, from_time: int = 0) -> int:
        """The timestamp for the slot's next state, `from_time` (seconds) at least, once others would accept it. Raises
        RegistryError."""
        await self._host.clock_guard.wait()
        timestamp = await self._issued.reserve(slot, *self._last_seen(slot, outcome, from_time))
        await self.wait_until_accepted(timestamp)
        return timestamp

    async def issue_tombstone(
        self,
        outcome: ReadOutcome,
        key: Key,
        slot: Slot,
        remaining: float = 0.0,  # noqa: ARG002 - needs nobody
    ) -> State:
        """The tombstone of a slot, as `issue` takes it."""

        def tombstone(timestamp: int) -> Tombstone:
            unsigned = Tombstone(*slot, timestamp, b"", issuer_signature=b"")
            return msgspec.structs.replace(unsigned, issuer_signature=self._identity.sign(unsigned.signed_bytes()))

        if self._issued.is_kept(slot):  # at once, so that it isn't renewed or issued anew meanwhile
            state, _ = await self.issue_here(slot, outcome, key, tombstone)
            return state  # whether it counts, the replicas decide
        return tombstone(await self.reserve(slot, outcome))

    async def end_here(self, slot: Slot) -> None:
        """What couldn't be ended in the network isn't renewed any more, nor issued anew for another relay."""
        try:
            async with self._slots.locked(slot):
                countersigned = await self._host.countersigned(slot)
                if countersigned is not None:
                    key, record = countersigned
                    outcome = ReadOutcome()
                    outcome.resource = ResourceState.of(key, [record], None)
                    await self.issue_tombstone(outcome, key, slot)
        except RegistryError as error:
            _log.warning("a record couldn't be ended on this peer", key_id=slot.key_id, error=str(error))

    async def wait_until_accepted(self, timestamp: int) -> None:
        """Waits until other peers accept what is signed at this time (seconds). Raises ClockOff."""
        lead = timestamp - self._clock() - self._settings.clock_skew / 2
        if lead > 0:  # others wouldn't accept it yet
            await trio.sleep(lead)
        self._host.clock_guard.check()

    def now(self) -> int:
        """Whole seconds of the wall clock."""
        return int(self._clock())

    async def _write_and_look(
        self, item: Item, key: Key, factor: int, timeout: float, failure: str
    ) -> tuple[Written, Key]:
        """How the write went, and the key as the network has it meanwhile, or the remembered one."""
        found = [key]

        async def look() -> None:
            try:
                outcome = await self._node_api.read(key.id, ack=1, timeout=timeout, key_suffices=True)
            except RegistryError as error:
                _log.debug("a remembered key couldn't be confirmed", key_id=key.id, error=str(error))
                return
            if outcome.resource.key is not None:
                found.append(outcome.resource.key)
                self._keys.remember(outcome.resource.key)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            written = await self._writer.write(item, factor, timeout, failure)
            nursery.cancel_scope.deadline = trio.current_time() + CONFIRMING
        return written, max(found, key=Key.order)

    async def _key_or_all(self, resource_id: str, timeout: float, *, key_suffices: bool) -> ReadOutcome:
        """The key alone if it suffices: what a majority knows of a slot matters only where somebody else issued with
        this identity."""
        key = self._keys.get(resource_id) if key_suffices else None
        if key is not None:
            outcome = ReadOutcome()
            outcome.resource = ResourceState(key=key)
            return outcome
        return await self._node_api.read(resource_id, ack=1, timeout=timeout, key_suffices=key_suffices)

    def _last_seen(self, slot: Slot, outcome: ReadOutcome, from_time: int = 0) -> tuple[int, int]:
        """(the last timestamp that this identity is seen to have given to the slot or -1, the time from which the next
        may be)."""
        known, key = outcome.resource.slots.get(slot), outcome.resource.key
        # A key may be from a clock ahead of ours; what is older than the key may have been removed with its forerunner.
        now = max(self.now(), from_time, key.timestamp_created if key else 0)
        return known.timestamp_issued if known else -1, now
