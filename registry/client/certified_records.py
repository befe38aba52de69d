"""Issues what this identity registered under a certificate anew before that ends, and what a newer one lets in again.

Rules:
1. A record is due when a third of the time is left that its chain has in all, or once its policy withholds it.
2. It is issued anew as soon as there is a chain under which it is permitted for longer; until then it stays as it is.
3. The network is asked first, and a majority of the replicas before anything is issued: what was ended or issued
   elsewhere in the meantime isn't issued again, nor what expired while this peer was away. One replica alone may not
   have heard of an end, and what is issued anew is later than that.
4. Each record is looked at when this begins, when it is due, and once its policy changed: the first `MAX_FOLLOWED`
   resources that are found are watched for that. The policies of others may have changed at any time, so all are looked
   at each quarter of an hour: that costs a read. What is withheld is looked at each minute, and when there are other
   chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
import trio

from overlay.identity import Identity
from overlay.membership.certificate import Certificate, CertificateError, decode_chain
from overlay.membership.chain import begins_at, ends_at
from overlay.tasks import TaskStatus
from registry.client.majority import read_majority
from registry.client.node_api import NodeApi
from registry.client.own_certificates import Chain
from registry.client.registry import DEFAULT_TIMEOUT, Registry
from registry.errors import RegistryError
from registry.model.merge import greater_key, is_served
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record, Slot
from registry.protocol.network import Clock
from registry.settings import RegistrySettings
from registry.storage import Store, Transaction

FIRST_AFTER: Final = 2.0  # seconds; a command is over by then, as a rule
CHECKED_EVERY: Final = 2.0  # seconds between two looks for newer certificates, which may hold for seconds only
RETRIED_AFTER: Final = 10  # seconds until a record is looked at again of which nobody told anything; doubles
LOOKED_AGAIN_AFTER: Final = 900  # seconds until a record is looked at again that isn't due
WITHHELD_AGAIN_AFTER: Final = 60  # seconds until a record is looked at again that its policy withholds
MAX_FOLLOWED: Final = 32  # resources whose policies are watched: half of the topics that a node is in
NEVER: Final = 2**63 - 1

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _SeenRecord(NamedTuple):
    """What is known of a record, at first that it wasn't looked at yet. Times in seconds."""

    due: int = NEVER
    """When it is to be issued anew, as soon as there is a chain that ends later than at `ends`."""
    ends: int = 0
    look_at: int = 0
    """When to look at it again in any case."""
    is_withheld: bool = False
    vain: int = 0
    """Times in a row that nobody told anything of it."""


class CertifiedRecords:
    """Does this for one identity, while it runs."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        registry: Registry,
        store: Store,
        settings: RegistrySettings,
        clock: Clock,
        most_followed: int = MAX_FOLLOWED,
    ) -> None:
        """`most_followed`: resources whose policies are watched; of a process that issues under several identities each
        has a part of `MAX_FOLLOWED`."""
        self._most_followed = most_followed
        self._identity = identity
        self._node_api = node_api
        self._registry = registry
        self._store = store
        self._settings = settings
        self._clock = clock
        self._seen: dict[Slot, _SeenRecord] = {}
        self._is_listed = False
        self._known: list[Chain] = []
        self._keys: dict[str, Key] = {}  # as they were when a record was looked at, or told since; of `_followed`
        self._followed: dict[str, trio.CancelScope] = {}
        self._found: set[str] = set()
        self._looking = trio.Lock()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the rules until cancelled."""
        task_status.started()
        certificates = self._registry.certificates
        while not certificates.has_source:
            await certificates.changed.wait()
        await trio.sleep(FIRST_AFTER)
        async with trio.open_nursery() as nursery:
            while True:
                await self._check_once()
                self._follow(nursery)
                with trio.move_on_after(CHECKED_EVERY):
                    await certificates.changed.wait()
                    self._is_listed = False

    async def _check_once(self) -> None:
        try:
            async with self._looking:
                await self.check()
        except RegistryError as error:
            _log.warning("records under certificates couldn't be looked at", error=str(error))

    def _follow(self, nursery: trio.Nursery) -> None:
        """Watches the resources of the first records, and no others."""
        listed = dict.fromkeys(slot.key_id for slot in self._seen)
        self._found &= listed.keys()
        wanted = [key_id for key_id in listed if key_id in self._found][: self._most_followed]
        for key_id in self._followed.keys() - set(wanted):
            self._followed.pop(key_id).cancel()
            self._keys.pop(key_id, None)
        for key_id in wanted:
            if key_id not in self._followed:
                scope = self._followed[key_id] = trio.CancelScope()
                nursery.start_soon(self._follow_policy, key_id, scope)

    async def _follow_policy(self, key_id: str, scope: trio.CancelScope) -> None:
        with scope:
            await trio.lowlevel.checkpoint()  # where this peer stops, watches may have ended
            async with self._registry.watch(key_id, include_down=True) as watch:
                key: Key | None = None
                while (key := await watch.wait_for_key(key)) is not None:
                    if not self._is_news(key):
                        continue
                    for slot, seen in self._seen.items():
                        if slot.key_id == key_id:
                            self._seen[slot] = seen._replace(look_at=0)
                    await self._check_once()

    def _is_news(self, key: Key) -> bool:
        """Whether a key has another policy than the one under which its records were looked at; that is noted."""
        known = self._keys.get(key.id)
        self._keys[key.id] = greater_key(known, key) or key
        return known is None or self._keys[key.id].challenge != known.challenge

    async def check(self) -> int:
        """Does once what the rules ask for; how many records were issued anew. Raises RegistryError."""
        chains, now = await self._registry.certificates.chains(), int(self._clock())
        has_others, self._known = chains != self._known, chains
        if not chains:
            return 0
        if not self._is_listed:
            me = self._identity.peer_id
            self._seen |= {
                Slot(key_id, me, peer_id): _SeenRecord() for key_id, peer_id in await self._store.read(self._issued)
            }
            self._is_listed = True
        self._seen |= dict.fromkeys(self._registry.certificates.take_noted(), _SeenRecord())
        latest, done = max(map(ends_at, chains)), 0
        for slot, seen in list(self._seen.items()):
            is_due = seen.due <= now and latest > seen.ends
            if is_due or seen.look_at <= now or (seen.is_withheld and has_others):
                done += await self._look(slot, now)
        return done

    async def _look(self, slot: Slot, now: int) -> bool:
        found = await self._read(slot, now)
        if found is None:
            return False
        key, record = found
        self._found.add(key.id)
        chain = _chain_of(record)
        is_withheld = why_withheld(key, record, now) is not None
        due, ends = (_due_time(chain), ends_at(chain)) if chain and not is_withheld else (NEVER, 0)
        again = WITHHELD_AGAIN_AFTER if is_withheld else LOOKED_AGAIN_AFTER
        self._seen[slot] = _SeenRecord(due, ends, now + again, is_withheld)
        if not is_withheld and now < due:
            return False
        if not await self._has_better(key, record, chain, is_withheld=is_withheld, now=now):
            return False
        if not await self._still_stands(slot, record):
            self._seen[slot] = _SeenRecord(now + RETRIED_AFTER, ends, now + RETRIED_AFTER, is_withheld)
            return False
        return await self._issue_anew(record)

    async def _still_stands(self, slot: Slot, record: Record) -> bool:
        """Whether a majority of the replicas says so."""
        try:
            read = await read_majority(self._node_api, slot.key_id, DEFAULT_TIMEOUT)
        except RegistryError as error:
            _log.info("a record under a certificate can't be looked at", key_id=slot.key_id, error=str(error))
            return False
        if not read.is_decided:
            reason = read.why_undecided
            _log.info("a record under a certificate can't be looked at", key_id=slot.key_id, error=reason)
            return False
        state = read.resource.slots.get(slot)
        return isinstance(state, Record) and state.metadata == record.metadata

    async def _read(self, slot: Slot, now: int) -> tuple[Key, Record] | None:
        """What the network has in a slot; None if that isn't to be issued anew, or nobody was reached by now."""
        seen = self._seen[slot]
        retry = now + min(RETRIED_AFTER << min(seen.vain, 16), LOOKED_AGAIN_AFTER)
        self._seen[slot] = _SeenRecord(retry, seen.ends, retry, vain=seen.vain + 1)
        try:
            outcome = await self._node_api.read(slot.key_id, ack=1, timeout=DEFAULT_TIMEOUT)
        except RegistryError as error:
            _log.info("a record under a certificate can't be looked at", key_id=slot.key_id, error=str(error))
            return None
        key, record = outcome.resource.key, outcome.resource.slots.get(slot)
        if key is not None and slot.key_id in self._followed:
            key = self._keys[key.id] = greater_key(self._keys.get(key.id), key) or key
        if key is not None and isinstance(record, Record) and is_served(record, now, self._settings):
            return key, record
        if key is not None or outcome.resource.key_tombstones:
            del self._seen[slot]  # if it's issued again, that is noted
        return None

    async def _has_better(
        self, key: Key, record: Record, chain: Sequence[Certificate], *, is_withheld: bool, now: int
    ) -> bool:
        """Whether what it would show now permits it for longer."""
        try:
            shown = await self._registry.certificates.shown(key, record.metadata, now)
        except RegistryError:
            return False
        newer = decode_chain(shown.solution)
        return is_withheld or (bool(newer) and ends_at(newer) > ends_at(chain))

    async def _issue_anew(self, record: Record) -> bool:
        metadata, done = record.metadata, await self._registry.reissue(record)
        if not done.success:
            _log.warning("a record couldn't be issued under a newer certificate", errors=done.errors[:3])
            return False
        _log.info("issued anew under a newer certificate", key_id=metadata.key_id, host=metadata.peer_id)
        return True

    def _issued(self, transaction: Transaction) -> list[tuple[str, str]]:
        return transaction.issued.of(self._identity.peer_id, self._registry.peer_id).after(-1)


def _chain_of(record: Record) -> tuple[Certificate, ...]:
    try:
        return decode_chain(record.metadata.solution)
    except CertificateError:
        return ()


def _due_time(chain: Sequence[Certificate]) -> int:
    """When a third of its time is left."""
    return ends_at(chain) - max(ends_at(chain) - begins_at(chain), 0) // 3
