"""Gets a peer into the network and keeps it there.

Rules:
1. Every bootstrap address is tried until its peer was linked once, for ever: the nodes of a network may start in any
   order, and a bootstrap peer that comes later is found. Through each that is linked, the peer asks for its own place.
   One that has no place for us, or isn't of our kind, may name members: then it counts as met while we know any.
2. While a bootstrap peer is our neighbour, as all are in a small network, the link to it is kept: one that was started
   anew, and knows nobody, is found again by those around it. Another may let us go, and isn't troubled.
3. Every quarter of an hour one bootstrap address at random is asked for our place, so that parts of a network that lost
   each other meet again.
4. Retries wait longer each time, up to a limit, with jitter, so that nodes started together don't dial together.
5. A peer without any live member also tries those that it remembers, for bootstrap peers may be gone for good.

What keeps the members near this peer known to it is `overlay.discovery.home_upkeep`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from overlay.discovery.address_book import parse_peer_address
from overlay.errors import OverlayError
from overlay.settings import OverlaySettings
from overlay.tasks import Broadcast, TaskStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_REMEMBERED_TRIED_AT_ONCE = 3
_VISIT_INTERVAL = 900.0  # seconds
_STABLE_AFTER = 5.0  # seconds; a link that ended earlier counts as a failed attempt


class BootstrapPeer(Protocol):
    """What `Bootstrap` needs of the peer that it keeps in the network."""

    @property
    def peer_id(self) -> str:
        """Our own id."""
        ...

    def members(self) -> list[str]:
        """Members with an open link."""
        ...

    def is_linked(self, peer_id: str) -> bool:
        """Whether a link to the peer is open."""
        ...

    def remembered_members(self) -> list[str]:
        """The latest peers that were members, linked or not."""
        ...

    async def link_through(self, multiaddr: str) -> str:
        """Connect and open the link, or one to a member that the peer names; to whom. Raises `OverlayError`."""
        ...

    async def link(self, peer_id: str) -> None:
        """Open a link to a peer whose addresses are known. Raises `OverlayError`."""
        ...

    def is_neighbour(self, peer_id: str) -> bool:
        """Whether a peer lies where we need a link to everybody."""
        ...

    async def meet_through(self, peer_id: str) -> None:
        """Ask a linked peer for our place in the network, and link with those near it."""
        ...


class Bootstrap:
    """The tasks that keep one peer in the network."""

    def __init__(
        self, network: BootstrapPeer, settings: OverlaySettings, randomness: random.Random | None = None
    ) -> None:
        self._network = network
        self._settings = settings
        self._random = randomness or random.Random()  # noqa: S311 - jitter, not secrets
        self._changed = Broadcast()
        self._sought = set(settings.bootstrap)  # those that are dialled until they answer

    def note_change(self) -> None:
        """To be called whenever a link came up or went down."""
        self._changed.send()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the peer in the network until cancelled."""
        async with trio.open_nursery() as nursery:
            for address in self._settings.bootstrap:
                nursery.start_soon(self._keep_linked, address)
            nursery.start_soon(self._rejoin)
            nursery.start_soon(self._visit)
            task_status.started()

    async def _keep_linked(self, address: str) -> None:
        """Rules 1, 2 and 4 for one bootstrap address."""
        _, peer_id = parse_peer_address(address)
        if peer_id == self._network.peer_id:
            return  # one list of bootstrap peers for all nodes is fine
        attempts = 0
        while True:
            if self._network.is_linked(peer_id):
                since = trio.current_time()
                while self._network.is_linked(peer_id) or not self._network.is_neighbour(peer_id):
                    await self._changed.wait()
                if trio.current_time() - since > _STABLE_AFTER:
                    attempts = 0
            self._sought.add(address)
            try:
                met = await self._meet_through(address, peer_id)
                self._sought.discard(address)
                if met != peer_id:
                    while self._network.members():
                        await self._changed.wait()
                # One that lets us in only to drop us isn't dialled in a tight loop.
                attempts += 1
                if not self._network.is_linked(peer_id) or attempts > 1:
                    await self._pause(attempts)
            except OverlayError as error:
                attempts += 1
                if attempts in (1, 10) or attempts % 100 == 0:
                    log.info("a bootstrap peer can't be reached", address=address, attempts=attempts, error=str(error))
                await self._pause(attempts)

    async def _meet_through(self, address: str, peer_id: str) -> str:
        """Ask for our place through a bootstrap peer, or who it names; through whom."""
        met = peer_id if self._network.is_linked(peer_id) else await self._network.link_through(address)
        await self._network.meet_through(met)
        return met

    async def _visit(self) -> None:
        """Rule 3."""
        peers = {address: parse_peer_address(address)[1] for address in self._settings.bootstrap}
        addresses = [address for address, peer_id in peers.items() if peer_id != self._network.peer_id]
        while addresses:
            await trio.sleep(_VISIT_INTERVAL * self._random.uniform(0.75, 1.25))
            address = self._random.choice(addresses)
            if address in self._sought:
                continue
            try:
                await self._meet_through(address, peers[address])
            except OverlayError as error:
                log.debug("a bootstrap peer can't be asked", address=address, error=str(error))

    async def _rejoin(self) -> None:
        """Rule 5."""
        attempts = 0
        while True:
            remembered = self._network.remembered_members()
            if self._network.members() or not remembered:
                attempts = 0
                await self._changed.wait()
                continue
            chosen = self._random.sample(remembered, min(_REMEMBERED_TRIED_AT_ONCE, len(remembered)))
            async with trio.open_nursery() as nursery:
                for peer_id in chosen:
                    nursery.start_soon(self._try_to_link, peer_id)
            if not self._network.members():
                attempts += 1
                await self._pause(attempts)

    async def _try_to_link(self, peer_id: str) -> None:
        try:
            await self._network.link(peer_id)
        except OverlayError as error:
            log.debug("a remembered member can't be reached", peer_id=peer_id, error=str(error))

    async def _pause(self, attempts: int) -> None:
        await trio.sleep(delay_before(attempts, self._settings, self._random))


def delay_before(attempts: int, settings: OverlaySettings, randomness: random.Random) -> float:
    """Seconds to wait after `attempts` failures: doubling from `retry_delay` to its limit, half of it random."""
    full = min(settings.retry_delay * 2.0 ** min(attempts - 1, 30), settings.retry_delay_limit)
    return full * randomness.uniform(0.5, 1.0)


def validate_bootstrap(addresses: Sequence[str]) -> None:
    """Raise `AddressError` for the first address that isn't a dialable multiaddr ending in a peer id."""
    for address in addresses:
        parse_peer_address(address)
