"""Connections by what their peers do: which are closed when many have no link, and from where too many come.

Rules:
1. Connections without a link, such as those of Aqua's clients, have places of their own (`max_unlinked`), so that they
   don't crowd out those with a link, whose places are decided over in `overlay.rpc.link_budget`.
2. When there are more, peers that opened no stream of ours since they came go first, the longest here first, then those
   whose last stream ended longest ago. Peers with an open stream stay, and newcomers do for `min_lifetime`, so that
   whoever comes has time for what it came for, however many idle ones there are.
3. From one address, an IPv4 address or the /64 of an IPv6 one, `max_per_address` connections are taken, also while
   they shake hands; more only from networks that are configured, since all nodes of one machine share an address.
4. A handshake costs 30 ms, and who has no certificate for a private network may try for ever. So an address from where
   somebody left lately without having been let in has few more such connections (`_TURNED_AWAY`), and all these
   addresses together too (`_ALL_TURNED_AWAY`).

Pure: the time comes in, in seconds of any clock that doesn't go back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from cachetools import LRUCache

from overlay.errors import AddressError
from overlay.limits.token_bucket import TokenBuckets
from overlay.settings import LinkLimits

_TURNED_AWAY: Final = 8.0  # connections of peers that weren't let in, from one address
_TURNED_AWAY_RATE: Final = 0.2  # the same per second
_ALL_TURNED_AWAY: Final = 32.0  # the same from all addresses with any lately
_ALL_TURNED_AWAY_RATE: Final = 1.5  # 5 % of a core
_LATELY: Final = 600.0  # seconds
_MOST_REMEMBERED: Final = 4096  # addresses
_IPV6_BITS = 64  # of an address: what one line or machine is mostly given


class _Visitor:
    """What is known of one peer with open connections."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.used_at = -math.inf  # it never was
        self.streams = 0
        self.addresses: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        return self.addresses.total()


class Visitors:
    """All peers with open connections, and how many come from each address."""

    def __init__(self, limits: LinkLimits) -> None:
        """Raises `AddressError` for an unlimited network that is none."""
        self._limits = limits
        self._visitors: dict[str, _Visitor] = {}
        self._by_address: Counter[str] = Counter()
        self._turned_away_at: LRUCache[str, float] = LRUCache(_MOST_REMEMBERED)
        self._turned_away = TokenBuckets(_TURNED_AWAY_RATE, _TURNED_AWAY)
        self._all_turned_away = TokenBuckets(_ALL_TURNED_AWAY_RATE, _ALL_TURNED_AWAY)
        try:
            self._unlimited = [ip_network(network) for network in limits.unlimited_networks]
        except ValueError as error:
            raise AddressError(f"not a network of the form 10.0.0.0/8: {error}") from error

    def came(self, peer_id: str, address: str, now: float) -> None:
        """A connection of a peer was opened; `address`: the IP address of its other end, or empty."""
        visitor = self._visitors.setdefault(peer_id, _Visitor(now))
        visitor.addresses[address] += 1
        self.count(address, 1)

    def left(self, peer_id: str, address: str) -> None:
        """A connection that `came` was told of ended."""
        visitor = self._visitors.get(peer_id)
        if visitor is None or not visitor.addresses[address]:
            return
        visitor.addresses[address] -= 1
        self.count(address, -1)
        if not visitor.connections:
            del self._visitors[peer_id]

    def forget(self, peer_id: str) -> None:
        """A peer has no connection any more."""
        visitor = self._visitors.pop(peer_id, None)
        for address, connections in visitor.addresses.items() if visitor is not None else ():
            self.count(address, -connections)

    def began(self, peer_id: str, now: float) -> None:
        """A peer opened a stream of a protocol of ours."""
        visitor = self._visitors.get(peer_id)
        if visitor is not None:
            visitor.streams += 1
            visitor.used_at = now

    def used(self, peer_id: str, now: float) -> None:
        """We opened a stream to a peer."""
        self.began(peer_id, now)
        self.ended(peer_id, now)

    def ended(self, peer_id: str, now: float) -> None:
        """A stream that `began` was told of ended."""
        visitor = self._visitors.get(peer_id)
        if visitor is not None:
            visitor.streams = max(visitor.streams - 1, 0)  # its earlier connection may have ended before
            visitor.used_at = now

    def count(self, address: str, change: int) -> None:
        """Connections from an address became more, or fewer; for those that shake hands."""
        source = self.source(address)
        self._by_address[source] += change
        if self._by_address[source] <= 0:
            del self._by_address[source]

    def turned_away(self, address: str, now: float) -> None:
        """A peer at an IP address left, and was never let in."""
        if source := self.source(address):
            self._turned_away_at[source] = now
            self._turned_away.take(source, now)
            self._all_turned_away.take("", now)

    def admits(self, address: str, now: float) -> bool:
        """Whether another connection from an IP address is taken (rules 3 and 4)."""
        source = self.source(address)
        if not source:
            return True
        if now - self._turned_away_at.get(source, -math.inf) < _LATELY:
            may_try = self._turned_away.has(source, now) and self._all_turned_away.has("", now)
            if not may_try:
                return False
        return self._by_address[source] < self._limits.max_per_address

    @property
    def may_be_too_many(self) -> bool:
        """Whether `to_close` would name anybody, now or later, if nobody had a link."""
        return sum(visitor.connections for visitor in self._visitors.values()) > self._limits.max_unlinked

    def to_close(self, is_linked: Callable[[str], bool], now: float) -> list[str]:
        """The peers whose connections are closed now (rule 2)."""
        unlinked = {peer_id: visitor for peer_id, visitor in self._visitors.items() if not is_linked(peer_id)}
        surplus = sum(visitor.connections for visitor in unlinked.values()) - self._limits.max_unlinked
        if surplus <= 0:
            return []
        closed: list[str] = []
        ready = [
            (visitor.used_at, visitor.since, peer_id)
            for peer_id, visitor in unlinked.items()
            if not visitor.streams and visitor.since + self._limits.min_lifetime <= now
        ]
        for _, _, peer_id in sorted(ready):
            if surplus <= 0:
                break
            closed.append(peer_id)
            surplus -= unlinked[peer_id].connections
        return closed

    def source(self, address: str) -> str:
        """What an IP address is counted by; empty for what isn't limited."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if any(_is_in(parsed.version, network) and parsed in network for network in self._unlimited):
            return ""
        if isinstance(parsed, IPv6Address):
            return str(ip_network((parsed, _IPV6_BITS), strict=False))
        return str(parsed)


def _is_in(version: int, network: IPv4Network | IPv6Network) -> bool:
    return network.version == version
