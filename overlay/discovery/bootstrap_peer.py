"""A peer as bootstrap sees it: through whom it links, and whether it is in its network."""

from __future__ import annotations

import trio

from overlay.discovery.address_linker import AddressLinker
from overlay.discovery.bootstrap_source import parse_source
from overlay.discovery.departures import Departures
from overlay.discovery.lookup import Lookup
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings


class BootstrappedPeer:
    """What bootstrap works on, as `overlay.discovery.bootstrap.BootstrapPeer` asks for it."""

    def __init__(
        self,
        peer_id: str,
        links: Links,
        lookup: Lookup,
        address_linker: AddressLinker,
        departures: Departures,
        settings: OverlaySettings,
    ) -> None:
        self._peer_id = peer_id
        self._links = links
        self._lookup = lookup
        self._address_linker = address_linker
        self._departures = departures
        self._settings = settings
        self._joins_through_others = any(parse_source(text).peer_id != peer_id for text in settings.bootstrap)
        self._joined = trio.Event()
        if not self._joins_through_others:
            self._joined.set()

    @property
    def peer_id(self) -> str:
        """Our own id."""
        return self._peer_id

    def is_isolated(self) -> bool:
        """Whether this peer should be in a network and knows no live member of it."""
        return self._joins_through_others and not self.members()

    async def wait_joined(self) -> None:
        """Wait for the first member; returns at once for a peer that was started without bootstrap addresses."""
        await self._joined.wait()

    def note_member(self) -> None:
        """To be called when a member came, or went while others stayed."""
        self._joined.set()

    def note_first(self) -> None:
        """All that there is to join through leads to this peer itself: it begins the network."""
        self._joins_through_others = False
        self._joined.set()

    def members(self) -> list[str]:
        """Members with an open link, without this peer."""
        return self._lookup.members()

    def is_linked(self, peer_id: str) -> bool:
        """Whether a link to the peer is open."""
        return self._links.is_linked(peer_id)

    def is_neighbour(self, peer_id: str) -> bool:
        """Whether a peer lies around our own position, where we need a link to every member."""
        return self._lookup.is_neighbour(peer_id)

    def remembered_members(self) -> list[str]:
        """The latest peers that were members, linked or not."""
        return self._departures.remembered()

    async def link_through(self, multiaddr: str) -> str:
        """Connect and link, within `dial_timeout`, and return to whom: the peer itself, or a member that it names.

        It names some where all its places are taken, and where it is one of another implementation, which speaks Kad
        and nothing else of ours.
        """
        return await self._address_linker.link_through(multiaddr, timeout=self._settings.dial_timeout)

    async def link(self, peer_id: str) -> None:
        """Link to a peer whose addresses are known, within `dial_timeout`."""
        await self._links.ensure_link(peer_id, timeout=self._settings.dial_timeout)

    async def meet_through(self, peer_id: str) -> None:
        """Ask a linked member for our place in the network, and link with those near it; members only."""
        if self._settings.member:
            await self._lookup.meet_through(peer_id)
