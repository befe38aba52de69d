"""Who the live members near a position are.

Rules:
1. A member counts when it is authenticated on an open link. What others tell is only where to look: whoever is told of
   is linked to, and so verified, before it is in a result.
2. A lookup asks the nearest known members for nearer ones until all of the nearest were asked; peers that couldn't be
   reached lately are left out, and whoever asks gets live members only.
3. A completed lookup knows everyone in a subtree of the keyspace. While this peer is itself in that subtree and fewer
   than k members are, whoever joins there links to it, so it keeps knowing everyone for `lookup_freshness` seconds and
   asks nobody. Other subtrees are believed for a few seconds.
4. A light client asks nobody but a node of its choice, which does the looking up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import structlog
import trio

from overlay.discovery.keyspace import POSITION_BITS, POSITION_BYTES, nearest, peer_position
from overlay.errors import CallFailed, PeerIdError, Refusal
from overlay.identity import public_key_of
from overlay.libp2p.host import Host
from overlay.rpc.links import Links
from overlay.settings import OverlaySettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_NEAREST_METHOD = "overlay/nearest"
_LOOK_UP_METHOD = "overlay/look-up"
_SPARE = 8  # asked for beyond what is wanted, since some of those told of are gone
_MOST_ASKED_FOR = 64
_ADDRESSES_TOLD = 4
_FOREIGN_FRESHNESS = 5.0
_MAX_FAILED = 4096
_MAX_REGIONS = 64
_ASK_TIMEOUT = 2.0


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
    """What one peer knows of the members around positions, and how it finds out more."""

    def __init__(self, host: Host, links: Links, settings: OverlaySettings) -> None:
        self._host = host
        self._links = links
        self._settings = settings
        self._own_position = peer_position(host.peer_id)
        self._failed: OrderedDict[str, float] = OrderedDict()
        self._regions: list[_Region] = []
        self._departures = 0
        links.on_up(self._note_up)
        links.on_down(self._note_down)
        links.on_unreachable(self._note_failed)
        links.serve(_NEAREST_METHOD, self._answer_nearest)
        if settings.member:
            links.serve(_LOOK_UP_METHOD, self._answer_look_up)

    def members(self) -> list[str]:
        """Members with an open link, without this peer."""
        return [peer_id for peer_id, member in self._links.linked_peers().items() if member]

    def known_nearest(self, position: int, count: int) -> list[str]:
        """The nearest live members as known now, this peer among them when it is one; asks nobody."""
        own = [self._host.peer_id] if self._settings.member else []
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
        """Look our own position up, whatever is known, within `lookup_timeout`."""
        with trio.move_on_after(self._settings.lookup_timeout):
            await self.look_up(self._own_position, self._settings.neighbourhood_size)

    def forget_regions(self) -> None:
        """To be called after isolation: what was known before may be wrong."""
        self._regions.clear()

    def _is_dialable(self, peer_id: str) -> bool:
        if self._links.is_linked(peer_id):
            return True
        failed = self._failed.get(peer_id)
        return failed is None or trio.current_time() - failed > self._settings.failed_peer_age

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
        """Who `peer_id` says is near; their addresses are in the book. Raises `CallFailed`."""
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
            if member.peer_id != self._host.peer_id:
                self._host.add_addresses(member.peer_id, member.addresses)
                members.append(member)
        return members

    async def _ask_a_node(self, position: int, count: int) -> list[str]:
        """Rule 4, with fail-over."""
        for peer_id in self.members():
            try:
                members = await self._ask(_LOOK_UP_METHOD, peer_id, position, count)
            except CallFailed as error:
                log.debug("a node didn't look up", peer_id=peer_id, error=str(error))
                continue
            return nearest(position, [member.peer_id for member in members], count)
        return []

    async def _answer_nearest(self, caller: str, body: object) -> object:
        query = _parsed(body)
        await trio.lowlevel.checkpoint()
        return self._as_told(self.known_nearest(int.from_bytes(query.position, "big"), query.count), caller)

    async def _answer_look_up(self, caller: str, body: object) -> object:
        query = _parsed(body)
        return self._as_told(await self.nearest(int.from_bytes(query.position, "big"), query.count), caller)

    def _as_told(self, peer_ids: Sequence[str], caller: str) -> list[list[object]]:
        return [[peer_id, self._told_addresses(peer_id)] for peer_id in peer_ids if peer_id != caller]

    def _told_addresses(self, peer_id: str) -> list[str]:
        if peer_id == self._host.peer_id:
            return self._host.listen_addresses()[:_ADDRESSES_TOLD]
        return self._host.addresses_of(peer_id)[:_ADDRESSES_TOLD]

    def _knows_everyone(self, position: int, count: int) -> bool:
        """Rule 3."""
        now = trio.current_time()
        found = self.known_nearest(position, count)
        radius = (peer_position(found[-1]) ^ position).bit_length() if len(found) == count else POSITION_BITS
        for region in self._regions:
            home = (self._own_position ^ region.target).bit_length() <= region.height
            freshness = self._settings.lookup_freshness if home else _FOREIGN_FRESHNESS
            if now - region.time > freshness or max((region.target ^ position).bit_length(), radius) > region.height:
                continue
            if not home or len(self._within(region)) < self._settings.neighbourhood_size:
                return True
        return False

    def _within(self, region: _Region) -> list[str]:
        members = [self._host.peer_id, *self.members()]
        return [peer for peer in members if (peer_position(peer) ^ region.target).bit_length() <= region.height]

    def _remember(self, position: int, count: int, time: float) -> None:
        found = self.known_nearest(position, count)
        complete = len(found) < count  # fewer than asked for: these are all
        height = POSITION_BITS if complete else (peer_position(found[-1]) ^ position).bit_length() - 1
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
        self._failed[peer_id] = trio.current_time()
        self._failed.move_to_end(peer_id)
        if len(self._failed) > _MAX_FAILED:
            self._failed.popitem(last=False)


def _parsed(body: object) -> _Query:
    try:
        query = msgspec.convert(body, _Query, strict=True)
    except msgspec.ValidationError as error:
        raise Refusal("bad request", str(error)) from error
    if len(query.position) != POSITION_BYTES or not 0 < query.count <= _MOST_ASKED_FOR + _SPARE:
        raise Refusal("bad request", "a position of 32 bytes and a count of 1 to 72, please")
    return query
