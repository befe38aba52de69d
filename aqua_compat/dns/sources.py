"""Who may ask how much, and who gets long answers. Pure; the time comes in, in seconds that never go back.

Rules:
1. This machine is bounded by what all together may ask. Another address, or /64 of IPv6, has a bound of its own, and
   what is beyond isn't looked at.
2. By UDP anybody can write any sender's address. Before a source has shown that it is where it says, it gets no more
   than three times the bytes that it sent; a longer answer is one that says: ask by TCP. It has shown it once it has
   asked by TCP, or sends the cookie that it was given (RFC 7873); that counts for ten minutes.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final

from cachetools import LRUCache

from aqua_compat.dns.query import CLIENT_COOKIE
from aqua_compat.http.places import client_of, is_near
from overlay.limits.token_bucket import TokenBuckets

MOST_TIMES: Final = 3  # the bytes of a query, in the answer to a source that has shown nothing
KNOWN_FOR: Final = 600.0  # seconds
_KNOWN: Final = 4096  # sources
_ADDRESSES: Final = 4096  # whose groups are kept
_SERVER_COOKIE: Final = 16  # bytes
_BURST: Final = 2.0  # seconds' worth

LOCAL: Final = "local"
"""The group of this machine's own addresses."""


class Sources:
    """What is known of the addresses that ask."""

    def __init__(self, queries: float, per_source: float) -> None:
        """Queries per second, of all and of each."""
        self._all = TokenBuckets(queries, queries)
        self._each = TokenBuckets(per_source, _BURST * per_source)
        self._known: LRUCache[str, float] = LRUCache(_KNOWN)
        self._groups: LRUCache[str, str] = LRUCache(_ADDRESSES)
        self._secret = secrets.token_bytes(32)

    def group(self, address: str) -> str:
        """What counts as one source."""
        found = self._groups.get(address)
        if found is None:
            found = self._groups[address] = _group(address)
        return found

    def may_ask(self, group: str, now: float) -> bool:
        """Whether a query of a source is looked at; it counts then."""
        if group != LOCAL and not self._each.take(group, now):
            return False
        return self._all.take(LOCAL, now)

    def note_known(self, group: str, now: float) -> None:
        """A source has shown that it is where it says."""
        self._known[group] = now

    def is_known(self, group: str, now: float) -> bool:
        """Whether a source has shown that lately."""
        return group == LOCAL or now - self._known.get(group, -KNOWN_FOR) < KNOWN_FOR

    def cookie(self, given: bytes, address: str) -> bytes:
        """The cookie that goes with an answer: the client's part and ours; empty where it gave none that is one."""
        if not CLIENT_COOKIE <= len(given) <= 40:
            return b""
        client = given[:CLIENT_COOKIE]
        ours = blake2b(client + address.encode(), key=self._secret, digest_size=_SERVER_COOKIE).digest()
        return client + ours

    def is_ours(self, given: bytes, cookie: bytes) -> bool:
        """Whether a cookie that came is the one that was given."""
        return len(given) > CLIENT_COOKIE and secrets.compare_digest(given, cookie)


def _group(address: str) -> str:
    client = client_of(address)
    return LOCAL if is_near(client) else client
