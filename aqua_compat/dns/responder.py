"""Answers queries: what is at hand at once, the rest once it was found.

Rules:
1. Every step is bounded: what is looked at (`sources`), what is resolved (`followed`), how long an answer is, and how
   many wait (`server`).
2. Answers are kept as bytes while nothing changes: up to 16 for each question, each in an order of its own, of which
   one is taken at random. After some seconds one is made anew, so that over time all orders come up.
3. Answers out of many instances are made in a thread, one at a time: 256 SRV records take 40 ms.
4. Names outside of the domain are refused, and so are transfers of all of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import dns.name
import dns.rcode
import dns.rdatatype
import trio
from cachetools import LRUCache, TTLCache

from aqua_compat.dns.answers import Answers
from aqua_compat.dns.followed import FollowedNames, Unanswered
from aqua_compat.dns.providers import Providers
from aqua_compat.dns.query import (
    CLASSIC,
    MOST_EDNS,
    DnsQuery,
    edns_size,
    is_query,
    nothing,
    parse_query,
    refusal,
    reply,
    written,
)
from aqua_compat.dns.sources import LOCAL, MOST_TIMES, Sources
from aqua_compat.dns.zone import Asked, IpAddress, OfNode, OfService, Zone
from overlay.tasks import in_thread

ORDERS: Final = 16
KEPT_FOR: Final = 5.0  # seconds
MANY: Final = 32  # instances
MANY_KEPT_FOR: Final = 30.0  # seconds
LONGEST: Final = 65_535  # bytes of an answer by TCP
LONGEST_LOCAL: Final = 8192  # bytes of an answer by UDP on this machine
_LENGTHS: Final = (LONGEST, LONGEST_LOCAL, 4096, 1232, CLASSIC)  # that answers are made for
_KEPT_BYTES: Final = 8 * 2**20  # of answers
_KEPT_QUERIES: Final = 2048  # that were parsed
_NODES_KEPT: Final = 1024  # whose addresses were looked for in the last second
_NOT_SERVED: Final = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.OPT})

AddressesOf = Callable[[str], Sequence[IpAddress]]
FindNode = Callable[[str], Awaitable[object]]
"""Looks for the addresses of a peer that aren't known."""


_MadeKey = tuple[int, tuple[str, ...], int, int, int]


class _MadeAnswer(NamedTuple):
    wire: bytes
    until: float


class ReadQuery(NamedTuple):
    """A query that was read, and what it asks for; None where there can't be such a name. `name`: in lower case."""

    query: DnsQuery
    name: dns.name.Name = dns.name.root
    asked: Asked | None = None
    rcode: int = dns.rcode.NOERROR
    """What it is refused with, if it is."""


class Answerable(NamedTuple):
    """A query that may be answered, and to whom."""

    read: ReadQuery
    message_id: bytes
    cookie: bytes
    size: int
    """Bytes of an answer."""
    source_size: int
    """Bytes of an answer by what its source has shown; `size` or fewer."""


class Responder:
    """Makes the answers of one server."""

    def __init__(
        self,
        domain: dns.name.Name,
        zone_now: Callable[[], Zone],
        answers: Answers,
        followed: FollowedNames,
        sources: Sources,
        *,
        max_udp: int,
        max_finding: int,
        addresses_of: AddressesOf,
        find_node: FindNode,
        randomness: random.Random,
    ) -> None:
        """`zone_now`: gives the same zone for as long as names mean the same. `max_udp`: bytes of an answer to another
        machine. `max_finding`: peers that are looked for at once."""
        self._domain = _texts(domain)
        self._zone_now = zone_now
        self._zone = zone_now()
        self._answers = answers
        self._followed = followed
        self._sources = sources
        self._max_udp = max_udp
        self._addresses_of = addresses_of
        self._find_node = find_node
        self._finding = 0
        self._max_finding = max_finding
        self._randomness = randomness
        self._read: LRUCache[bytes, ReadQuery] = LRUCache(_KEPT_QUERIES)
        self._made: LRUCache[_MadeKey, _MadeAnswer] = LRUCache(_KEPT_BYTES, getsizeof=lambda made: len(made.wire))
        self._making = trio.Lock()
        self._looked_for: TTLCache[str, None] = TTLCache(_NODES_KEPT, 1.0, timer=trio.current_time)
        self.queries: Counter[str] = Counter()
        """By the transport."""
        self.answered: Counter[str] = Counter()
        """By the rcode's name."""
        self.dropped: Counter[str] = Counter()
        """By the reason."""
        self.truncated = 0

    def answer(self, wire: bytes, address: str, now: float, *, by_tcp: bool) -> bytes | Answerable | None:
        """The answer to a message; None where there is none; the query itself where something must be found first, to
        be given to `find`."""
        if not is_query(wire):
            self.dropped["no query"] += 1
            return None
        group = self._sources.group(address)
        if not self._sources.may_ask(group, now):
            self.dropped["rate"] += 1
            return None
        self.queries["tcp" if by_tcp else "udp"] += 1
        answerable = self._answerable(wire, address, group, now, by_tcp=by_tcp)
        if answerable.read.rcode:
            return self._refused(answerable, answerable.read.rcode)
        made = self._at_hand(answerable)
        return answerable if made is None else self._sent(answerable, made)

    async def find(self, answerable: Answerable) -> bytes:
        """The answer to a query for what isn't at hand."""
        asked = answerable.read.asked
        if isinstance(asked, OfNode):
            if self._finding >= self._max_finding:
                return self.refused(answerable)
            self._looked_for[asked.peer_id] = None
            self._finding += 1
            try:
                await self._find_node(asked.peer_id)
            finally:
                self._finding -= 1
            return self._sent(answerable, self._answer_to(answerable, None))
        assert isinstance(asked, OfService)
        try:
            providers = self._followed.at_hand(asked.resource_id) or await self._followed.find(asked.resource_id)
        except Unanswered:
            return self.refused(answerable)
        if len(providers.usable) <= MANY:
            return self._sent(answerable, self._answer_to(answerable, providers))
        key = self._key(answerable, providers)
        async with self._making:
            made = self._kept(key)
            if made is None:
                made = await in_thread(self._make, answerable.read, asked, providers, key[3])
                self._keep(key, made, MANY_KEPT_FOR)
        return self._sent(answerable, made)

    def refused(self, answerable: Answerable) -> bytes:
        """The answer to a query that nobody has time for."""
        return self._refused(answerable, dns.rcode.SERVFAIL)

    def _answerable(self, wire: bytes, address: str, group: str, now: float, *, by_tcp: bool) -> Answerable:
        read = self._read_of(wire)
        query = read.query
        cookie = self._sources.cookie(query.cookie, address) if query.cookie else b""
        if by_tcp or (cookie and self._sources.is_ours(query.cookie, cookie)):
            self._sources.note_known(group, now)
        if by_tcp:
            return Answerable(read, wire[:2], cookie, LONGEST, LONGEST)
        size = min(query.payload, LONGEST_LOCAL if group == LOCAL else self._max_udp)
        is_known = self._sources.is_known(group, now)
        return Answerable(read, wire[:2], cookie, size, size if is_known else min(size, MOST_TIMES * len(wire)))

    def _at_hand(self, answerable: Answerable) -> bytes | None:
        """What is sent; None where it has to be found, or takes long to make."""
        asked, providers = answerable.read.asked, None
        if isinstance(asked, OfService):
            providers = self._followed.at_hand(asked.resource_id)
            if providers is None:
                return None
            if len(providers.usable) > MANY:
                return self._kept(self._key(answerable, providers))
        elif isinstance(asked, OfNode) and not self._addresses_of(asked.peer_id) and self._is_new(asked.peer_id):
            return None
        return self._answer_to(answerable, providers)

    def _is_new(self, peer_id: str) -> bool:
        return peer_id not in self._looked_for

    def _read_of(self, wire: bytes) -> ReadQuery:
        if (zone := self._zone_now()) is not self._zone:
            self._zone = zone
            self._read.clear()
        key = wire[2:]
        read = self._read.get(key)
        if read is None:
            read = self._judged(parse_query(wire))
            if not read.query.cookie:  # which no other query has
                self._read[key] = read
        return read

    def _judged(self, query: DnsQuery) -> ReadQuery:
        if query.refused:
            return ReadQuery(query, rcode=query.refused)
        length = len(query.labels) - len(self._domain)
        is_inside = length >= 0 and query.labels[length:] == self._domain
        if not is_inside or not query.is_internet or query.type in _NOT_SERVED:
            return ReadQuery(query, rcode=dns.rcode.REFUSED)
        name = dns.name.from_wire(query.question, 0)[0].canonicalize()
        return ReadQuery(query, name, self._zone.asked(query.labels[:length]))

    def _sent(self, answerable: Answerable, made: bytes) -> bytes:
        query, message_id, cookie = answerable.read.query, answerable.message_id, answerable.cookie
        is_too_long = len(made) > answerable.source_size - edns_size(query, cookie)
        self.truncated += is_too_long or bool(made[2] & 2)
        self.answered[_TEXTS[made[3] & 0xF]] += 1
        if is_too_long:
            return refusal(message_id, query, dns.rcode.NOERROR, self._max_udp, cookie, is_truncated=True)
        return reply(message_id, query, made, self._max_udp, cookie)

    def _answer_to(self, answerable: Answerable, providers: Providers | None) -> bytes:
        """What is sent to all who ask this."""
        read = answerable.read
        query, asked = read.query, read.asked
        if asked is None or not self._exists(asked, providers):
            return nothing(query.question, dns.rcode.NXDOMAIN, self._answers.soa)
        if providers is None or not providers.usable:
            return self._make(read, asked, providers, answerable.size - MOST_EDNS)
        key = self._key(answerable, providers)
        made = self._kept(key)
        if made is None:
            made = self._make(read, asked, providers, key[3])
            self._keep(key, made, KEPT_FOR)
        return made

    def _key(self, answerable: Answerable, providers: Providers) -> _MadeKey:
        """Of one of the answers that are kept, drawn at random."""
        query = answerable.read.query
        length = next((each for each in _LENGTHS if each <= answerable.size), CLASSIC)
        length -= MOST_EDNS if query.has_edns else 0
        return providers.number, query.labels, query.type, length, self._randomness.randrange(ORDERS)

    def _kept(self, key: _MadeKey) -> bytes | None:
        made = self._made.get(key)
        return made.wire if made is not None and made.until > trio.current_time() else None

    def _keep(self, key: _MadeKey, wire: bytes, seconds: float) -> None:
        self._made[key] = _MadeAnswer(wire, trio.current_time() + seconds)

    def _exists(self, asked: Asked, providers: Providers | None) -> bool:
        match asked:
            case OfService():
                return providers is not None and providers.has(asked)
            case OfNode(peer_id):
                return bool(self._addresses_of(peer_id))
        return True

    def _make(self, read: ReadQuery, asked: Asked, providers: Providers | None, size: int) -> bytes:
        content = self._answers.about(asked, read.name, read.query.type, providers)
        if not content.answer:
            rcode = dns.rcode.NOERROR if self._exists(asked, providers) else dns.rcode.NXDOMAIN
            return nothing(read.query.question, rcode, self._answers.soa)
        return written(read.name, read.query.type, content, size, by_tcp=size > LONGEST_LOCAL)

    def _refused(self, answerable: Answerable, rcode: int) -> bytes:
        self.answered[_TEXTS.get(rcode, str(rcode))] += 1
        return refusal(answerable.message_id, answerable.read.query, rcode, self._max_udp, answerable.cookie)


_TEXTS: Final = {int(each): each.name for each in dns.rcode.Rcode}


def _texts(name: dns.name.Name) -> tuple[str, ...]:
    return tuple(label.lower().decode("utf-8", "backslashreplace") for label in name.labels[:-1])
