"""Asks peers for the members near a position, and answers those that ask this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from overlay.discovery.address_book import PeerAddresses
from overlay.discovery.keyspace import POSITION_BYTES
from overlay.discovery.recursive import LEARNT_AT_ONCE, KnownMember
from overlay.discovery.recursive_machine import MOST_NAMED
from overlay.errors import PeerIdError, Refusal
from overlay.identity import public_key_of
from overlay.rpc.links import Links

_NEAREST_METHOD = "overlay/nearest"
_LOOKUP_METHOD = "overlay/lookup"
_ADDRESSES_TOLD = 4  # of each member
_ASK_TIMEOUT = 2.0  # seconds


class _Query(msgspec.Struct, frozen=True, array_like=True):
    """The body of both methods."""

    position: bytes
    count: int


class MemberQueries:
    """What one peer asks others, and tells them, of members near positions."""

    def __init__(
        self,
        addresses: PeerAddresses,
        links: Links,
        known_nearest: Callable[[int, int], list[str]],
        nearest: Callable[[int, int], Awaitable[list[str]]],
        *,
        is_member: bool,
    ) -> None:
        """`known_nearest`, `nearest`: the members nearest to a position, as many as that, as known or as looked up."""
        self._addresses = addresses
        self._links = links
        self._known_nearest = known_nearest
        self._nearest = nearest
        links.serve(_NEAREST_METHOD, self._answer_nearest)
        if is_member:
            links.serve(_LOOKUP_METHOD, self._answer_lookup)

    async def nearest_known_to(self, peer_id: str, position: int, count: int) -> list[str]:
        """The members nearest to a position that a peer knows. Raises `CallFailed`."""
        return await self._ask(_NEAREST_METHOD, peer_id, position, count)

    async def look_up_through(self, peer_id: str, position: int, count: int) -> list[str]:
        """The members nearest to a position that a member finds. Raises `CallFailed`."""
        return await self._ask(_LOOKUP_METHOD, peer_id, position, count)

    async def _answer_nearest(self, caller: str, body: object) -> object:
        query = _parsed(body)
        await trio.lowlevel.checkpoint()
        return self._told(self._known_nearest(int.from_bytes(query.position, "big"), query.count), caller)

    async def _answer_lookup(self, caller: str, body: object) -> object:
        query = _parsed(body)
        return self._told(await self._nearest(int.from_bytes(query.position, "big"), query.count), caller)

    def _told(self, peer_ids: Iterable[str], caller: str) -> object:
        described = [self.described(peer_id) for peer_id in peer_ids if peer_id != caller]
        return [[member.peer_id, list(member.addresses)] for member in described]

    def described(self, peer_id: str) -> KnownMember:
        """A peer with the addresses of it that others are told."""
        own = peer_id == self._addresses.peer_id
        known = self._addresses.listen_addresses() if own else self._addresses.addresses_of(peer_id)
        return KnownMember(peer_id, tuple(known[:_ADDRESSES_TOLD]))

    async def _ask(self, method: str, peer_id: str, position: int, count: int) -> list[str]:
        query = [position.to_bytes(POSITION_BYTES, "big"), min(count, MOST_NAMED)]
        answer = await self._links.call(peer_id, method, query, timeout=_ASK_TIMEOUT)
        try:
            told = msgspec.convert(answer, list[KnownMember], strict=True)
        except msgspec.ValidationError:
            return []
        names: list[str] = []
        for number, member in enumerate(told[:MOST_NAMED], start=1):
            if self.learn(member, peer_id):
                names.append(member.peer_id)
            if number % LEARNT_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return names

    def learn(self, member: KnownMember, teller: str) -> bool:
        """Remember where somebody is said to be by `teller`; False for what is no peer, or this one."""
        try:
            public_key_of(member.peer_id)
        except PeerIdError:
            return False
        if member.peer_id == self._addresses.peer_id:
            return False
        self._addresses.add_addresses(member.peer_id, member.addresses[:_ADDRESSES_TOLD], teller=teller)
        return True


def _parsed(body: object) -> _Query:
    try:
        query = msgspec.convert(body, _Query, strict=True)
    except msgspec.ValidationError as error:
        raise Refusal("malformed", str(error)) from error
    if len(query.position) != POSITION_BYTES or not 0 < query.count <= MOST_NAMED:
        raise Refusal("malformed", f"a query has a position of 32 bytes and a count of 1 to {MOST_NAMED}")
    return query
