"""Signs anew what this identity signed while its clock was ahead: nobody took it, and it would be in the way.

What is signed for a time that is ahead of others' clocks by more than their tolerance stays on this node alone, and the
next state of its slot would have to be later still. Rules (docs/design.md, Clocks):
1. Once enough peers say that the clock is right, it waits for the tolerance (and a second), so that whatever others may
   have accepted of a slot is older than the present time.
2. Then each statement of this identity's that is further ahead than the tolerance is replaced, in one transaction per
   resource, by the same for the present time, and sent to the network. A slot whose state isn't here may be issued anew
   from now on.
3. The time that is given up is never given to the slot again.
4. What others signed stays as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
import trio

from overlay.clock.comparison import Standing
from overlay.identity import Identity
from overlay.tasks import TaskStatus, Wakeup
from registry.client.node_api import NodeApi
from registry.client.registry import DEFAULT_TIMEOUT, Registry
from registry.errors import RegistryError
from registry.model.merge import kept_key_tombstones
from registry.model.values import Key, KeyTombstone, Record, Slot, State
from registry.protocol.messages import Item
from registry.protocol.network import Clock, Network
from registry.replica.countersign import sign_record
from registry.settings import RegistrySettings
from registry.storage import Store, Transaction

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Resigning:
    """Acts whenever the clock came to be right; then it also has renewed what wasn't meanwhile."""

    def __init__(
        self,
        network: Network,
        identity: Identity,
        node_api: NodeApi,
        registry: Registry,
        store: Store,
        renew: Callable[[], Awaitable[object]],
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        self._network = network
        self._identity = identity
        self._node_api = node_api
        self._registry = registry
        self._store = store
        self._renew = renew
        self._settings = settings
        self._clock = clock
        self._changed = Wakeup()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Signs anew what is due, until cancelled."""
        compared = self._network.compared_clock
        compared.on_change(self._changed.set)
        task_status.started()
        was_off = False
        while True:
            standing = compared.verdict().standing
            if standing is Standing.RIGHT:
                if was_off:
                    await self._renew()
                    was_off = False
                with trio.move_on_after(self._settings.clock_skew + 1) as waiting:  # rule 1
                    await self._changed.wait()
                if not waiting.cancelled_caught:
                    continue
                try:
                    await self.resign()
                except RegistryError as error:
                    _log.error("what was signed for the future couldn't be signed anew", error=str(error))
            was_off = was_off or standing is Standing.OFF
            await self._changed.wait()

    async def resign(self) -> None:
        """Rules 2 and 3. Raises StorageError."""
        me, tolerance = self._identity.peer_id, self._settings.clock_skew
        after = int(self._clock()) + tolerance
        for key_id in sorted(await self._store.read(lambda transaction: transaction.signed_after(me, after))):
            items = await self._store.write(partial(self._in_place, key_id))
            self._registry.forget_key(key_id)
            for item in items:
                outcome = await self._node_api.write(item, factor=1, timeout=DEFAULT_TIMEOUT)
                errors = [error.text for error in outcome.errors[:3]]
                _log.info("signed anew what was from the future", key_id=key_id, stored=outcome.stored, errors=errors)

    def _in_place(self, key_id: str, transaction: Transaction) -> list[Item]:
        """Replaces what is ahead of one resource; what to send."""
        now = int(self._clock())
        after, items = now + self._settings.clock_skew, list[Item]()
        ended = transaction.key_tombstones(key_id)
        ahead = [each for each in ended if each.timestamp_issued > after]
        if ahead and ended[0].owner_peer_id == self._identity.peer_id:
            signed = [self._signed_key_tombstone(each, now) for each in ahead]
            ended = kept_key_tombstones([*(each for each in ended if each not in ahead), *signed])
            transaction.put_key_tombstones(ended, victim=transaction.victim_of_key_tombstone(key_id))
            items.extend(Item(each) for each in ended if each in signed)
        now = max([now, *(each.timestamp_issued + 1 for each in ended)])  # what was begun anew stays so
        stored = transaction.key(key_id)
        key = stored.key if stored is not None else None
        is_own = stored is not None and stored.key.owner_peer_id == self._identity.peer_id
        if stored is not None and is_own and stored.key.timestamp_created > after:
            key = self._signed_key(stored.key, now)
            transaction.put_key(key, now, stored.weight)
            items.append(Item(key))
        for one in list(transaction.states(key_id)):
            anew = self._signed_state(one.state, now, after)
            if anew is not None:
                transaction.put_state(anew, one.weight, one.victim)
                items += [Item(key, anew)] if key is not None else []
        for issued_for, peer_id in transaction.issued.after(after):
            if issued_for == key_id:
                transaction.issued.forsake(key_id, peer_id, now)
        return items

    def _signed_key(self, key: Key, now: int) -> Key:
        unsigned = msgspec.structs.replace(key, timestamp_created=now)
        return msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))

    def _signed_key_tombstone(self, key_tombstone: KeyTombstone, now: int) -> KeyTombstone:
        unsigned = msgspec.structs.replace(key_tombstone, timestamp_issued=now)
        return msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))

    def _signed_state(self, state: State, now: int, after: int) -> State | None:
        """The same for `now`; None where it isn't ahead, or not this identity's to sign."""
        me, slot = self._identity.peer_id, Slot(*state.slot)
        if not isinstance(state, Record):
            if slot.issued_by != me or state.timestamp_issued <= after:
                return None
            ended = msgspec.structs.replace(state, timestamp_issued=now)
            return msgspec.structs.replace(ended, issuer_signature=self._identity.sign(ended.signed_bytes()))
        metadata = state.metadata
        if slot.peer_id != me or (metadata.timestamp_issued > after and slot.issued_by != me):
            return None
        if metadata.timestamp_issued > after:
            unsigned = msgspec.structs.replace(metadata, timestamp_issued=now)
            signature = self._identity.sign(unsigned.signed_bytes())
            metadata = msgspec.structs.replace(unsigned, issuer_signature=signature)
        elif state.timestamp_created <= after:
            return None
        return sign_record(self._identity, metadata, now)
