"""Keeps a light client reachable: others call it through a node that it is linked to and that its records name.

Rules:
1. While this client serves or hosts anything, it looks for another node as soon as its own is gone.
2. When the node acted through is another one, records that this client issued itself are issued anew, with the new
   `relay_id`. For records that others issued, callers find this client's own signed peer record
   (`overlay.discovery.peer_records`).
3. A client that serves anything tells its presence (`overlay.presence`); one that only hosts records doesn't: it may be
   a command that ends at once, and the service elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog
import trio

from overlay.tasks import Wakeup
from registry.client.node_api import NodeApi
from registry.client.registry import Registry
from registry.errors import RegistryError
from registry.model.merge import is_served
from registry.model.values import Record, Slot
from registry.protocol.network import Clock
from registry.settings import RegistrySettings
from registry.storage import Store

FIRST_AFTER: Final = 5.0  # seconds; a client that serves nothing and lives shorter, such as a command, moves no records
CHECKED_AFTER: Final = 15.0  # seconds between two checks, when nothing happens
RETRIED_AFTER: Final = 1.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AdvertisedPeer(Protocol):
    """What relay failover needs of the network: satisfied by `overlay.OverlayPeer`."""

    @property
    def peer_id(self) -> str:
        """The id of this client."""
        ...

    def members(self) -> list[str]:
        """The members that this peer is linked to."""
        ...

    def on_membership_change(self, callback: Callable[[], None]) -> None:
        """Has `callback()` called whenever a member came or went."""
        ...

    def advertise(self, *, is_there: bool) -> None:
        """Has the network told through which members this peer can be called, and, from the first time that `is_there`
        is true, that it is there until it stops."""
        ...


class RelayFailover:
    """Keeps one light client reachable."""

    def __init__(
        self,
        network: AdvertisedPeer,
        node_api: NodeApi,
        registry: Registry,
        store: Store,
        settings: RegistrySettings,
        clock: Clock,
    ) -> None:
        self._network = network
        self._node_api = node_api
        self._registry = registry
        self._store = store
        self._settings = settings
        self._clock = clock
        self._serves = trio.Event()
        self._outdated: set[Slot] = set()
        """Slots whose records name another relay, or were issued anew and not taken by any replica yet."""
        self._changed = Wakeup()
        network.on_membership_change(self._note_change)

    def serve(self) -> None:
        """Says that this client serves something from now on."""
        self._serves.set()
        self._changed.set()

    async def run(self) -> None:
        """Keeps the rules until cancelled."""
        with trio.move_on_after(FIRST_AFTER):
            await self._serves.wait()
        retry = RETRIED_AFTER
        while True:
            self._changed.clear()
            good = await self._check()
            with trio.move_on_after(CHECKED_AFTER if good else retry):
                await self._changed.wait()
            retry = RETRIED_AFTER if good else min(2 * retry, CHECKED_AFTER)

    async def _check(self) -> bool:
        """Does what the rules ask for; whether nothing is left to do."""
        try:
            hosted = await self._hosted()
            if not hosted and not self._serves.is_set():
                return True
            self._network.advertise(is_there=self._serves.is_set())
            if self._node_api.peer_id not in self._network.members():
                await self._registry.status()  # turns to the next node
            relay = self._node_api.peer_id
            own = [record for record in hosted if record.metadata.issued_by == self._network.peer_id]
            self._outdated &= {record.slot for record in own}  # the others were ended meanwhile
            self._outdated |= {record.slot for record in own if list(record.metadata.relay_id) != [relay]}
            for record in own:
                if record.slot in self._outdated:
                    await self._issue_anew(record, relay)
        except RegistryError as error:
            _log.warning("no node to be reached through", error=str(error))
            return False
        return not self._outdated

    async def _hosted(self) -> list[Record]:
        now = int(self._clock())
        records = await self._store.read(lambda transaction: transaction.hosted_records(self._network.peer_id, now))
        return [record for record in records if is_served(record, now, self._settings)]

    async def _issue_anew(self, record: Record, relay: str) -> None:
        done = await self._registry.reissue(record)
        if done.success:
            self._outdated.discard(record.slot)
            _log.info("issued anew for a new relay", key_id=record.metadata.key_id, relay=relay)
        else:  # tried again, as long as it is hosted here
            _log.info("not issued anew for a new relay", key_id=record.metadata.key_id, errors=done.errors)

    def _note_change(self) -> None:
        self._changed.set()
