"""Signs anew what was signed here while the clock was ahead: nobody took it, and it would be in the way.

What is signed for a time that is ahead of others' clocks by more than their tolerance stays on this node alone, and the
next state of its slot would have to be later still. Rules (docs/design.md, Clocks):
1. Once enough peers say that the clock is right, it waits for the tolerance (and a second), so that whatever others may
   have accepted of a slot is older than the present time.
2. Then each statement of these identities' that is further ahead than the tolerance is replaced, in one transaction per
   resource, by the same for the present time, and sent to the network. A slot whose state isn't here may be issued anew
   from now on.
3. The time that is given up is never given to the slot again.
4. What others signed stays as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
        registries: Sequence[Registry],
        node_api: NodeApi,
        store: Store,
        renew: Callable[[], Awaitable[object]],
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        """`registries`: of the process's own identity, and of the others that issue here."""
        self._network = network
        self._registries = registries
        self._identities = {registry.identity.peer_id: registry.identity for registry in registries}
        self._node_api = node_api
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
        for key_id in sorted(await self._store.read(self._ahead)):
            items = await self._store.write(partial(self._in_place, key_id))
            for registry in self._registries:
                registry.forget_key(key_id)
            for item in items:
                outcome = await self._node_api.write(item, factor=1, timeout=DEFAULT_TIMEOUT)
                errors = [error.text for error in outcome.errors[:3]]
                _log.info("signed anew what was from the future", key_id=key_id, stored=outcome.stored, errors=errors)

    def _ahead(self, transaction: Transaction) -> set[str]:
        after, here = int(self._clock()) + self._settings.clock_skew, self._network.peer_id
        return set().union(*(transaction.signed_after(issuer, after, here) for issuer in self._identities))

    def _in_place(self, key_id: str, transaction: Transaction) -> list[Item]:
        """Replaces what is ahead of one resource; what to send."""
        now = int(self._clock())
        after, items = now + self._settings.clock_skew, list[Item]()
        ended = transaction.key_tombstones(key_id)
        ahead = [each for each in ended if each.timestamp_issued > after]
        owner = self._identities.get(ended[0].owner_peer_id) if ended else None
        if ahead and owner is not None:
            signed = [_signed_key_tombstone(owner, each, now) for each in ahead]
            ended = kept_key_tombstones([*(each for each in ended if each not in ahead), *signed])
            transaction.put_key_tombstones(ended, victim=transaction.victim_of_key_tombstone(key_id))
            items.extend(Item(each) for each in ended if each in signed)
        now = max([now, *(each.timestamp_issued + 1 for each in ended)])  # what was begun anew stays so
        stored = transaction.key(key_id)
        key = stored.key if stored is not None else None
        owner = self._identities.get(stored.key.owner_peer_id) if stored is not None else None
        if stored is not None and owner is not None and stored.key.timestamp_created > after:
            key = _signed_key(owner, stored.key, now)
            transaction.put_key(key, now, stored.weight)
            items.append(Item(key))
        for one in list(transaction.states(key_id)):
            anew = self._signed_state(one.state, now, after)
            if anew is not None:
                transaction.put_state(anew, one.weight, one.victim)
                items += [Item(key, anew)] if key is not None else []
        for issuer in self._identities:
            issued = transaction.issued.of(issuer, self._network.peer_id)
            for issued_for, peer_id in issued.after(after):
                if issued_for == key_id:
                    issued.forsake(key_id, peer_id, now)
        return items

    def _signed_state(self, state: State, now: int, after: int) -> State | None:
        """The same for `now`; None where it isn't ahead, or not these identities' to sign."""
        slot = Slot(*state.slot)
        issuer, host = self._identities.get(slot.issued_by), self._identities[self._network.peer_id]
        if not isinstance(state, Record):
            if issuer is None or state.timestamp_issued <= after:
                return None
            ended = msgspec.structs.replace(state, timestamp_issued=now)
            return msgspec.structs.replace(ended, issuer_signature=issuer.sign(ended.signed_bytes()))
        metadata = state.metadata
        if slot.peer_id != host.peer_id:
            return None
        if metadata.timestamp_issued > after:
            if issuer is None:
                return None
            unsigned = msgspec.structs.replace(metadata, timestamp_issued=now)
            metadata = msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))
        elif state.timestamp_created <= after:
            return None
        return sign_record(host, metadata, now)


def _signed_key(owner: Identity, key: Key, now: int) -> Key:
    unsigned = msgspec.structs.replace(key, timestamp_created=now)
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))


def _signed_key_tombstone(owner: Identity, key_tombstone: KeyTombstone, now: int) -> KeyTombstone:
    unsigned = msgspec.structs.replace(key_tombstone, timestamp_issued=now)
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))
