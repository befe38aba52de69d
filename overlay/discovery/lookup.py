"""Finds the live members near a position.

Rules:
1. What this peer knows completely, it answers by itself (`overlay.discovery.home`): for a replica that is nearly always
   so for its own resources, and in a network of a few dozen for all.
2. Otherwise a neighbourhood that a lookup found lately serves the positions in it (`overlay.discovery.regions`); after
   a while only once one of its members said by digest that nothing changed.
3. Otherwise a recursive lookup over standing links is begun (`overlay.discovery.recursive`), and where its answers are
   fewer or sparser than the network's size lets expect, or leave out members that this peer is linked to, an iterative
   one (`overlay.discovery.iterative`), which begins at the nearest in the routing table, too.
4. Around a dense position, others of its region belong to its neighbourhood (`overlay.discovery.density`). Who isn't
   there himself looks up the largest buckets of the region, away from those who crowd.
5. What others tell is only where to look. Peers that couldn't be dialled lately are left out: for seconds after one
   failure, for `failed_peer_age` after several (`overlay.discovery.dial_failures`).
6. A light client leaves the lookup to one of its nodes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import msgspec
import structlog
import trio

from overlay.discovery.address_book import PeerAddresses
from overlay.discovery.density import CROWD, MOST_OTHERS, TAKEN, Density, drawn
from overlay.discovery.dial_failures import DialFailures
from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.home_upkeep import HomeUpkeep
from overlay.discovery.home_view import METHOD as HOME_METHOD
from overlay.discovery.home_view import HomeView, HomeViews
from overlay.discovery.iterative import IterativeLookup
from overlay.discovery.keyspace import POSITION_BITS, nearest, peer_position
from overlay.discovery.member_queries import MemberQueries
from overlay.discovery.recursive import METHOD as ROUTE_METHOD
from overlay.discovery.recursive import RecursiveLookup
from overlay.discovery.regions import Region, Regions
from overlay.discovery.routing_table import RoutingTable
from overlay.discovery.size_estimate import SizeEstimate
from overlay.errors import CallFailed, PeerFull
from overlay.identity import Identity
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MAX_FAILED = 4096
_FIRST_REST = 5.0  # seconds for which a peer is left out after one failed dial
_PATIENCE_LINKED = 0.5  # seconds until somebody with a link is passed by in an iterative lookup
_PATIENCE_NEW = 1.5  # the same for somebody who has to be dialled
_BUCKETS_OF_REGION = 3  # that are looked up: seven eighths of it


class LookupStatistics(msgspec.Struct, kw_only=True):
    """Lookups since the start, for which others were asked, counted."""

    lookups: int = 0
    """Those that were begun; a light client's nodes begin them."""
    lookups_cut_short: int = 0
    """Of those, the ones that a deadline ended, before who was asked had answered or failed."""


class Lookup:
    """Knows members by their positions, and asks others for those that it doesn't know."""

    def __init__(
        self,
        identity: Identity,
        addresses: PeerAddresses,
        links: Links,
        settings: OverlaySettings,
        randomness: random.Random | None = None,
        table: RoutingTable | None = None,
    ) -> None:
        """Registers itself with `links` and not the other way round, because it also calls over them.

        `table`: members that this peer was linked to, where iterative lookups begin beside those that it is linked to.
        """
        self._random = randomness or random.Random()  # noqa: S311 - whom to ask, not secrets
        self._addresses = addresses
        self._links = links
        self._settings = settings
        self._table = table
        self._failed = DialFailures(
            trio.current_time, first=_FIRST_REST, longest=settings.failed_peer_age, most=_MAX_FAILED
        )
        self._home = Home(peer_position(addresses.peer_id))
        self._regions = Regions(trio.current_time)
        self._size = SizeEstimate()
        self._counts = LookupStatistics()
        self._queries = MemberQueries(addresses, links, self.known_nearest, self.nearest, is_member=settings.member)
        described, learn = self._queries.described, self._queries.learn
        self._recursive = RecursiveLookup(identity, links, self._home, described, learn)
        self._upkeep = HomeUpkeep(self._home, self._size, self, randomness)
        self._views = HomeViews(links, self._home, described, learn, self._upkeep.note_difference)
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.on_closed(self._note_closed)
        links.on_unreachable(self._note_failed)
        if settings.member:
            links.serve(ROUTE_METHOD, self._recursive.serve)
            links.serve(HOME_METHOD, self._views.serve)

    async def run(self) -> None:
        """Keep this member's home known and linked, until cancelled; a light client has none."""
        if self._settings.member:
            await self._upkeep.run()

    # What is known

    def members(self) -> list[str]:
        """Members with an open link, without this peer."""
        return [peer_id for peer_id, member in self._links.linked_peers().items() if member]

    def neighbours(self) -> list[str]:
        """Those of them around our own position, who may keep what we keep: this peer knows all of them."""
        return self._home.kept_members()

    def on_neighbours_change(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called when `neighbours` tells others though no link came up or went down."""
        self._upkeep.on_kept_change(callback)

    def is_neighbour(self, peer_id: str) -> bool:
        """Whether a peer, linked or not, lies where this one has to know everybody."""
        return self._home.keeps(peer_position(peer_id))

    def keeps(self, peer_id: str) -> bool:
        """Whether this peer needs its link to another: a neighbour's, or one of its own far links."""
        return self.is_neighbour(peer_id) or self._upkeep.is_far_link(peer_id)

    def known_nearest(self, position: int, count: int) -> list[str]:
        """The nearest live members as known now, this peer among them when it is one; asks nobody."""
        own = [self._addresses.peer_id] if self._settings.member else []
        return nearest(position, [*own, *self.members()], count)

    def is_responsible(self, position: int, count: int, margin: int = 0) -> bool:
        """Whether this peer is among the `count` members nearest to a position, or in the region of a dense one all of
        whose members are written to, as far as it knows; asks nobody.

        With a `margin`, also beyond it by so many, and by what estimates of the network's size may differ. Links beyond
        those that it has to have decide nothing.
        """
        if not self._settings.member:
            return False
        if self._home.is_among_nearest(position, count + margin):
            return True
        if margin:
            return self._home.is_in_region(position, part=TAKEN, wider=1)
        if not self._home.is_in_region(position):
            return False
        region = self._home.region(position, own_name=self._addresses.peer_id)
        return region is not None and len(region) <= count + MOST_OTHERS

    @property
    def density(self) -> Density:
        """What the members that this peer knows let expect of the network."""
        return self._home.density

    def network_size(self) -> float:
        """How many members the network has, about."""
        known = len(self._home.members()) + 1
        if self._home.height == POSITION_BITS:
            return float(known)
        return self._size.size or known * 2.0 ** (POSITION_BITS - self._home.height)

    def statistics(self) -> LookupStatistics:
        """Counts as of now."""
        return msgspec.structs.replace(self._counts)

    # Looking up

    async def nearest(self, position: int, count: int) -> list[str]:
        """The `count` live members nearest to `position`, nearest first; fewer when the network has fewer.

        Never raises for what peers do: those that fail are left out. Takes at most `lookup_timeout`.
        """
        if not self._settings.member:
            return await self._ask_a_node(position, count)
        if self._home.is_confirmed(trio.current_time()):
            exact = self._home.exact(position, count, own_name=self._addresses.peer_id)
            if exact is not None:
                await trio.lowlevel.checkpoint()
                return exact
        region = self._regions.around(position, count)
        if region is not None and await self._is_so(region):
            return self._merged(position, region.nearest(position, count), count)
        found, _ = await self.look_up(position, max(count, self._settings.neighbourhood_size))
        return found[:count]

    async def neighbourhood(self, position: int, count: int) -> list[str]:
        """As `nearest`; where the position is dense, followed by up to `MOST_OTHERS` others of its region at random."""
        found = await self.nearest(position, max(count, CROWD))
        positions = {name: peer_position(name) for name in found}
        if not self._settings.member or not self.density.is_dense(position, positions.values()):
            return found[:count]
        region = self._home.region(position, own_name=self._addresses.peer_id)
        if region is None:
            region = await self._look_up_region(position) | positions
        others = {name: at for name, at in region.items() if name not in found[:count]}
        return found[:count] + drawn(others, position, self.density.height, MOST_OTHERS, self._random)

    async def _look_up_region(self, position: int) -> dict[str, int]:
        """Members in the region of a dense position, as others tell, and their positions."""
        height, found = self.density.height, dict[str, int]()

        async def look_up(bucket: int) -> None:
            target = position ^ 1 << bucket ^ self._random.getrandbits(bucket)
            for name in await self.nearest(target, HOME_SIZE):
                found[name] = peer_position(name)

        async with trio.open_nursery() as nursery:
            for bucket in range(height - _BUCKETS_OF_REGION, height):
                nursery.start_soon(look_up, bucket)
        inside = self.density.region(position, found)
        return {name: found[name] for name in inside}

    async def look_up(self, position: int, count: int) -> tuple[list[str], bool]:
        """Ask others for the members nearest to `position`, whatever is known; remembers those found.

        Also tells whether somebody answered who knows that neighbourhood completely. Takes at most `lookup_timeout`.
        """
        self._counts.lookups += 1
        deadline, is_cut_short = trio.current_effective_deadline(), None
        try:
            names, is_exact, is_cut_short = await self._ask(position, count)
        finally:
            if is_cut_short is None:  # it was cancelled: by a deadline of whoever asked, or that one left
                is_cut_short = -math.inf < deadline <= trio.current_time()
            self._counts.lookups_cut_short += is_cut_short
        return self._merged(position, names, count), is_exact

    async def _ask(self, position: int, count: int) -> tuple[list[str], bool, bool]:
        """By both ways of rule 3: who is there, whether that is exact, and whether its time was over first."""
        timeout = self._settings.lookup_timeout / 2
        result = await self._recursive.find(position, count, timeout=timeout)
        names, is_exact, is_cut_short = result.names(), result.is_exact, result.is_cut_short
        if not result.is_believable(self.network_size()):
            log.debug(
                "a lookup's answers are too few, too sparse or doubtful", answers=result.answers, named=len(names)
            )
            names, is_late = await self._iteratively(position, count, names, timeout)
            is_exact, is_cut_short = False, is_cut_short or is_late
        elif (region := result.region(self.network_size())) is not None:
            height, members = region
            self._regions.remember(position, height, {name: peer_position(name) for name in members})
        return names, is_exact, is_cut_short

    async def self_lookup(self) -> None:
        """Make sure that the members near this peer and it know each other, within `lookup_timeout`."""
        with trio.move_on_after(self._settings.lookup_timeout):
            await self._upkeep.run_once()

    async def meet_through(self, peer_id: str) -> None:
        """Ask a member, who may be of a part of the network that we lost, for our place, and link those it names."""
        try:
            names = await self._queries.look_up_through(peer_id, self._home.own, self._settings.neighbourhood_size)
        except CallFailed as error:
            log.debug("a bootstrap peer doesn't tell our place", peer_id=peer_id, error=str(error))
        else:
            await self._upkeep.enter(names)

    def forget_regions(self) -> None:
        """Believe no earlier lookup any more. For after isolation, when members may have changed unseen."""
        self._regions.clear()

    async def _is_so(self, region: Region) -> bool:
        """Whether a region's members are still those that are remembered, as one of them says who is linked."""
        if self._regions.is_fresh(region):
            await trio.lowlevel.checkpoint()
            return True
        linked = sorted(name for name in region.members if self._links.is_linked(name))
        self._regions.drop(region)
        if not linked:
            await trio.lowlevel.checkpoint()
            return False
        try:
            view = await self._views.ask(self._random.choice(linked), region.around, region.height, region.members)
        except CallFailed:
            return False
        if not view.is_equal or view.height < region.height:
            return False
        self._regions.remember(region.around, region.height, region.members)
        return True

    def _merged(self, position: int, names: Iterable[str], count: int) -> list[str]:
        """What others named, without those that can't be dialled, with the members that this peer knows itself."""
        dialable = [name for name in names if self.is_dialable(name)]
        return nearest(position, [*dialable, *self.known_nearest(position, count)], count)

    async def _iteratively(
        self, position: int, count: int, names: Iterable[str], timeout: float
    ) -> tuple[list[str], bool]:
        """Those found, and whether the timeout ended it."""
        lookup = IterativeLookup(position, self._addresses.peer_id, count=count)
        known = self._table.known_near(position, count) if self._table is not None else ()
        candidates = (*self.members(), *known, *names)
        lookup.heard((name, peer_position(name)) for name in candidates if self.is_dialable(name))
        progress = trio.Event()

        async def ask(peer_id: str) -> None:
            try:
                told = await self._queries.nearest_known_to(peer_id, position, count)
            except PeerFull:
                lookup.had_no_place(peer_id)
            except CallFailed as error:
                log.debug("a peer didn't answer a lookup", peer_id=peer_id, error=str(error))
                lookup.failed(peer_id)
            else:
                if self._links.linked_peers().get(peer_id, False):
                    lookup.answered(peer_id, ((name, peer_position(name)) for name in told if self.is_dialable(name)))
                else:
                    lookup.failed(peer_id)  # a light client, or gone again
            progress.set()

        with trio.move_on_after(timeout) as scope:
            async with trio.open_nursery() as nursery:
                while not lookup.is_done(trio.current_time()):
                    progress = trio.Event()
                    for peer_id in lookup.to_ask(trio.current_time(), self._patience):
                        nursery.start_soon(ask, peer_id)
                    with trio.move_on_at(lookup.wakes_at()):
                        await progress.wait()
                nursery.cancel_scope.cancel()
        return lookup.found(), scope.cancelled_caught

    def _patience(self, peer_id: str) -> float:
        return _PATIENCE_LINKED if self._links.is_linked(peer_id) else _PATIENCE_NEW

    # What upkeep of the home needs

    def is_dialable(self, peer_id: str) -> bool:
        """Whether a peer is linked, or didn't fail to be dialled lately."""
        return self._links.is_linked(peer_id) or not self._failed.is_resting(peer_id)

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        """What a member knows of a subtree of the keyspace. Raises `CallFailed`."""
        return await self._views.ask(peer_id, around, height)

    async def link(self, peer_id: str) -> bool:
        """Link to a peer; whether it is a member that is linked now. Never raises for what peers do."""
        try:
            return await self._links.ensure_link(peer_id, timeout=self._settings.dial_timeout)
        except CallFailed as error:
            log.debug("a member that others told of can't be linked", peer_id=peer_id, error=str(error))
            return False

    async def _ask_a_node(self, position: int, count: int) -> list[str]:
        """Rule 6, with fail-over."""
        for peer_id in self.members():
            try:
                return nearest(position, await self._queries.look_up_through(peer_id, position, count), count)
            except CallFailed as error:
                log.debug("a node didn't look up", peer_id=peer_id, error=str(error))
        return []

    # Links that come and go

    def note_keeping(self) -> None:
        """Some links may be needed, or not be needed any more, that weren't, or were."""
        self._links.note_keeping()

    def _note_up(self, peer_id: str, member: bool) -> None:
        self._failed.forget(peer_id)
        if member:
            self._home.add(peer_id, peer_position(peer_id))
            self._regions.note_member(peer_position(peer_id))
            self._upkeep.note_up(peer_id)
            self._links.note_keeping()

    def _note_down(self, peer_id: str) -> None:
        """The end of a link is no departure, unless it is one that both need: what others told of another peer stays
        until that can't be dialled."""
        was_kept = self.is_neighbour(peer_id)
        if was_kept:
            self._regions.forget(peer_id)
        self._home.remove(peer_id, peer_position(peer_id))
        self._upkeep.note_down(peer_id, was_kept=was_kept)
        self._links.note_keeping()

    def _note_closed(self, peer_id: str) -> None:
        """A link that neither side kept has ended: what is known of its peer stays."""
        self._home.remove(peer_id, peer_position(peer_id))
        self._upkeep.note_down(peer_id, was_kept=False)

    def _note_failed(self, peer_id: str) -> None:
        self._failed.note(peer_id)
        self._regions.forget(peer_id)
