"""Gets a peer into the network and keeps it there.

Rules (of bootstrap addresses; what finds peers by names, files and unnamed addresses is asked for them each time):
1. Every bootstrap address is tried until its peer was linked once, for ever: the nodes of a network may start in any
   order, and a bootstrap peer that comes later is found. Through each that is linked, the peer asks for its own place.
   One that has no place for us, or isn't of our kind, may name members: then it counts as met while we know any.
2. While a bootstrap peer is our neighbour, as all are in a small network, the link to it is kept: one that was started
   anew, and knows nobody, is found again by those around it. Another may let us go, and isn't troubled.
3. Every quarter of an hour one bootstrap address at random is asked for our place, so that parts of a network that lost
   each other meet again.
4. Retries wait longer each time, up to a limit, with jitter, so that nodes started together don't dial together.
5. A peer without any live member also tries those that it remembers, for bootstrap peers may be gone for good.
6. What finds peers is asked while no member is known, until one of those found let us in. Where nobody but this peer
   itself is found by all there is, it begins the network.

What keeps the members near this peer known to it is `overlay.discovery.home_upkeep`.
"""

from __future__ import annotations

import random
from typing import Protocol

import structlog
import trio

from overlay.discovery.address_book import parse_peer_address
from overlay.discovery.bootstrap_source import BootstrapSource, SourceKind, parse_source
from overlay.errors import AddressError, OverlayError
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

    def note_first(self) -> None:
        """This peer begins the network: there is nobody else to join through."""
        ...


class Resolving(Protocol):
    """From what an operator gave to addresses of peers: satisfied by `bootstrap_resolver.BootstrapResolver`."""

    async def addresses(self, source: BootstrapSource) -> list[str]:
        """The addresses, each with an id. Raises `OverlayError`, which says why there are none."""
        ...


class Bootstrap:
    """The tasks that keep one peer in the network."""

    def __init__(
        self,
        network: BootstrapPeer,
        settings: OverlaySettings,
        resolver: Resolving,
        randomness: random.Random | None = None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._resolver = resolver
        self._sources = [parse_source(text) for text in settings.bootstrap]
        self._random = randomness or random.Random()  # noqa: S311 - jitter, not secrets
        self._changed = Broadcast()
        self._sought = {source.text for source in self._sources if source.kind is SourceKind.PEER}
        # Those that are dialled until they answer.
        self._finds_others: dict[str, bool] = {}  # besides ourselves, by what finds peers

    def note_change(self) -> None:
        """To be called whenever a link came up or went down."""
        self._changed.send()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the peer in the network until cancelled."""
        async with trio.open_nursery() as nursery:
            for source in self._sources:
                if source.kind is SourceKind.PEER:
                    nursery.start_soon(self._keep_linked, source.text, source.peer_id)
                else:
                    nursery.start_soon(self._keep_joined, source)
            nursery.start_soon(self._rejoin)
            nursery.start_soon(self._visit)
            task_status.started()

    async def _keep_linked(self, address: str, peer_id: str) -> None:
        """Rules 1, 2 and 4 for one bootstrap address."""
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

    async def _keep_joined(self, source: BootstrapSource) -> None:
        """Rules 4 and 6 for what finds peers."""
        attempts = 0
        while True:
            while self._network.members():
                attempts = 0
                await self._changed.wait()
            attempts += 1
            try:
                await self._join_through(source)
            except OverlayError as error:
                if attempts in (1, 10) or attempts % 100 == 0:
                    log.info("no peer to join through", address=source.text, attempts=attempts, error=str(error))
            await self._pause(attempts)

    async def _join_through(self, source: BootstrapSource) -> None:
        """Ask for our place through the first peer that is found and lets us in. Raises OverlayError."""
        found = [parse_peer_address(address) for address in await self._resolver.addresses(source)]
        others = [(transport, peer_id) for transport, peer_id in found if peer_id != self._network.peer_id]
        self._finds_others[source.text] = bool(others)
        if self._finds_nobody_else:
            self._network.note_first()
        last: OverlayError | None = None
        for transport, peer_id in self._random.sample(others, len(others)):
            try:
                await self._meet_through(f"{transport}/p2p/{peer_id}", peer_id)
            except OverlayError as error:
                last = error
            else:
                return
        if last is not None:
            raise last

    @property
    def _finds_nobody_else(self) -> bool:
        """Whether all that there is to join through leads to this peer itself."""
        return all(
            source.peer_id == self._network.peer_id
            if source.kind is SourceKind.PEER
            else self._finds_others.get(source.text) is False
            for source in self._sources
        )

    async def _visit(self) -> None:
        """Rule 3."""
        sources = [source for source in self._sources if source.peer_id != self._network.peer_id]
        while sources:
            await trio.sleep(_VISIT_INTERVAL * self._random.uniform(0.75, 1.25))
            source = self._random.choice(sources)
            if source.text in self._sought:
                continue
            try:
                await self._join_through(source)
            except OverlayError as error:
                log.debug("a bootstrap peer can't be asked", address=source.text, error=str(error))

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


def validate_bootstrap(settings: OverlaySettings, *, certificates_decide: bool) -> None:
    """Raise `AddressError` for the first address that is none, or names no peer though it has to."""
    for source in map(parse_source, settings.bootstrap):
        if source.kind is SourceKind.PLACE and not (settings.trust_first or certificates_decide):
            raise AddressError(
                f"the address doesn't end in /p2p/<peer id>, so its peer can't be verified: {source.text!r}; name the"
                " peer, or trust whoever answers there first (--trust-first)"
            )
