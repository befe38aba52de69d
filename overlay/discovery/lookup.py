"""Finds the live members near a position.

Rules:
1. A member counts when it is authenticated on an open link. What others tell is only where to look: a peer that others
   told of is linked to, and so verified, before it is in a result.
2. A lookup asks the nearest known members for nearer ones until all of the nearest were asked. Peers that couldn't be
   reached lately are left out, so that results hold live members only.
3. A completed lookup knows all members in a subtree of the keyspace. While this peer is itself in that subtree and
   fewer than k members are, every member that joins there links to it, so it keeps knowing all of them for
   `lookup_freshness` seconds and asks nobody. What a lookup found in other subtrees is believed for a few seconds.
4. A light client leaves the lookup to one of its nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog
import trio
from cachetools import TTLCache

from overlay.discovery.address_book import PeerAddresses
from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES, nearest, peer_position
from overlay.errors import CallFailed, PeerIdError, Refusal
from overlay.identity import public_key_of
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_NEAREST_METHOD = "overlay/nearest"
_LOOKUP_METHOD = "overlay/lookup"
_SPARE = 8  # members asked for beyond those wanted, since some of those told of are gone
_MOST_ASKED_FOR = 64
_ADDRESSES_TOLD = 4  # of each member
_FOREIGN_FRESHNESS = 5.0  # seconds for which a lookup of a subtree without this peer is believed
_MAX_FAILED = 4096
_MAX_REGIONS = 64
_ASK_TIMEOUT = 2.0  # seconds


class _KnownMember(msgspec.Struct, frozen=True, array_like=True):
    peer_id: str
    addresses: tuple[str, ...]


class _Query(msgspec.Struct, frozen=True, array_like=True):
    position: bytes
    count: int


class _Region(msgspec.Struct, frozen=True):
    """All members at a distance below 2**height from `target` were known at `time`."""

    target: int
    height: int
    time: float


class Lookup:
    """Knows members by their positions, and asks others for those that it doesn't know."""

    def __init__(self, addresses: PeerAddresses, links: Links, settings: OverlaySettings) -> None:
        """Registers itself with `links` and not the other way round, because it also calls over them."""
        self._addresses = addresses
        self._links = links
        self._settings = settings
        self._own_position = peer_position(addresses.peer_id)
        self._failed: TTLCache[str, None] = TTLCache(_MAX_FAILED, settings.failed_peer_age, timer=trio.current_time)
        self._regions: list[_Region] = []
        self._departures = 0
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.on_unreachable(self._note_failed)
        links.serve(_NEAREST_METHOD, self._answer_nearest)
        if settings.member:
            links.serve(_LOOKUP_METHOD, self._answer_lookup)

    def members(self) -> list[str]:
        """Members with an open link, without this peer."""
        return [peer_id for peer_id, member in self._links.linked_peers().items() if member]

    def neighbours(self) -> list[str]:
        """Those of them around our own position, who may keep what we keep."""
        return self.members()

    def known_nearest(self, position: int, count: int) -> list[str]:
        """The nearest live members as known now, this peer among them when it is one; asks nobody."""
        own = [self._addresses.peer_id] if self._settings.member else []
        return nearest(position, [*own, *self.members()], count)

    async def nearest(self, position: int, count: int) -> list[str]:
        """The `count` live members nearest to `position`, nearest first; fewer when the network has fewer.

        Never raises for what peers do: those that fail are left out. Takes at most `lookup_timeout`.
        """
        if not self._settings.member:
            return await self._ask_a_node(position, count)
        if not self._knows_everyone(position, count):
            with trio.move_on_after(self._settings.lookup_timeout):
                await self.look_up(position, max(count, self._settings.neighbourhood_size))
        return self.known_nearest(position, count)

    async def look_up(self, position: int, count: int) -> None:
        """Link to the `count` members nearest to `position`, finding them; remembers the region when it completes."""
        started = trio.current_time()
        departures = self._departures
        asked: set[str] = set()
        candidates = set(self.members())
        while True:
            ahead = [
                peer_id
                for peer_id in nearest(position, (peer for peer in candidates if self._is_dialable(peer)), count)
                if peer_id not in asked
            ][: self._settings.lookup_parallelism]
            if not ahead:
                break
            asked.update(ahead)
            async with trio.open_nursery() as nursery:
                for peer_id in ahead:
                    nursery.start_soon(self._ask_into, candidates, peer_id, position, count)
        if departures == self._departures:
            self._remember(position, count, started)

    async def self_lookup(self) -> None:
        """Look our own position up, whatever is known already, within `lookup_timeout`."""
        with trio.move_on_after(self._settings.lookup_timeout):
            await self.look_up(self._own_position, self._settings.neighbourhood_size)

    def forget_regions(self) -> None:
        """Believe no earlier lookup any more. For after isolation, when members may have changed unseen."""
        self._regions.clear()

    def _is_dialable(self, peer_id: str) -> bool:
        return self._links.is_linked(peer_id) or peer_id not in self._failed

    async def _ask_into(self, candidates: set[str], peer_id: str, position: int, count: int) -> None:
        try:
            members = await self._ask(_NEAREST_METHOD, peer_id, position, count)
        except CallFailed as error:
            candidates.discard(peer_id)
            self._note_failed(peer_id)
            log.debug("a peer didn't answer a lookup", peer_id=peer_id, error=str(error))
            return
        if not self._links.linked_peers().get(peer_id, False):
            candidates.discard(peer_id)  # a light client, or gone again
        candidates.update(member.peer_id for member in members)

    async def _ask(self, method: str, peer_id: str, position: int, count: int) -> list[_KnownMember]:
        """The members that `peer_id` says are near, whose addresses are remembered. Raises `CallFailed`."""
        query = [position.to_bytes(POSITION_BYTES, "big"), min(count + _SPARE, _MOST_ASKED_FOR)]
        answer = await self._links.call(peer_id, method, query, timeout=_ASK_TIMEOUT)
        members: list[_KnownMember] = []
        try:
            told = msgspec.convert(answer, list[_KnownMember], strict=True)
        except msgspec.ValidationError:
            return members
        for member in told[: _MOST_ASKED_FOR + _SPARE]:
            try:
                public_key_of(member.peer_id)
            except PeerIdError:
                continue
            if member.peer_id != self._addresses.peer_id:
                self._addresses.add_addresses(member.peer_id, member.addresses)
                members.append(member)
        return members

    async def _ask_a_node(self, position: int, count: int) -> list[str]:
        """Rule 4, with fail-over."""
        for peer_id in self.members():
            try:
                members = await self._ask(_LOOKUP_METHOD, peer_id, position, count)
            except CallFailed as error:
                log.debug("a node didn't look up", peer_id=peer_id, error=str(error))
                continue
            return nearest(position, [member.peer_id for member in members], count)
        return []

    async def _answer_nearest(self, caller: str, body: object) -> object:
        query = _parsed(body)
        await trio.lowlevel.checkpoint()
        return self._as_told(self.known_nearest(int.from_bytes(query.position, "big"), query.count), caller)

    async def _answer_lookup(self, caller: str, body: object) -> object:
        query = _parsed(body)
        return self._as_told(await self.nearest(int.from_bytes(query.position, "big"), query.count), caller)

    def _as_told(self, peer_ids: Sequence[str], caller: str) -> list[list[object]]:
        return [[peer_id, self._told_addresses(peer_id)] for peer_id in peer_ids if peer_id != caller]

    def _told_addresses(self, peer_id: str) -> list[str]:
        if peer_id == self._addresses.peer_id:
            return self._addresses.listen_addresses()[:_ADDRESSES_TOLD]
        return self._addresses.addresses_of(peer_id)[:_ADDRESSES_TOLD]

    def _knows_everyone(self, position: int, count: int) -> bool:
        """Rule 3."""
        now = trio.current_time()
        found = self.known_nearest(position, count)
        radius = (peer_position(found[-1]) ^ position).bit_length() if len(found) == count else POSITION_BITS
        for region in self._regions:
            is_home = (self._own_position ^ region.target).bit_length() <= region.height
            freshness = self._settings.lookup_freshness if is_home else _FOREIGN_FRESHNESS
            if now - region.time > freshness or max((region.target ^ position).bit_length(), radius) > region.height:
                continue
            if not is_home or len(self._within(region)) < self._settings.neighbourhood_size:
                return True
        return False

    def _within(self, region: _Region) -> list[str]:
        members = [self._addresses.peer_id, *self.members()]
        return [peer for peer in members if (peer_position(peer) ^ region.target).bit_length() <= region.height]

    def _remember(self, position: int, count: int, time: float) -> None:
        found = self.known_nearest(position, count)
        is_complete = len(found) < count  # fewer than asked for: these are all
        height = POSITION_BITS if is_complete else (peer_position(found[-1]) ^ position).bit_length() - 1
        self._regions = [region for region in self._regions if region.target != position][-_MAX_REGIONS + 1 :]
        self._regions.append(_Region(target=position, height=height, time=time))

    def _note_up(self, peer_id: str, member: bool) -> None:  # noqa: ARG002 - the callback's signature
        self._failed.pop(peer_id, None)

    def _note_down(self, peer_id: str) -> None:
        """A lost neighbour makes room for others that aren't known yet, if there were k of them."""
        self._departures += 1
        position = peer_position(peer_id)
        self._regions = [
            region
            for region in self._regions
            if region.height == POSITION_BITS or (region.target ^ position).bit_length() > region.height
        ]

    def _note_failed(self, peer_id: str) -> None:
        self._failed[peer_id] = None


def _parsed(body: object) -> _Query:
    try:
        query = msgspec.convert(body, _Query, strict=True)
    except msgspec.ValidationError as error:
        raise Refusal("malformed", str(error)) from error
    if len(query.position) != POSITION_BYTES or not 0 < query.count <= _MOST_ASKED_FOR + _SPARE:
        raise Refusal("malformed", f"a query has a position of 32 bytes and a count of 1 to {_MOST_ASKED_FOR + _SPARE}")
    return query
