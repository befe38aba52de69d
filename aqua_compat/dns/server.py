"""Where DNS comes in: a UDP and a TCP socket, and who answers on them.

Rules:
1. A datagram that can be answered at once is: so many, or for so long, in one turn of the loop. Others wait in tasks of
   their own, so many at most; beyond, the answer is SERVFAIL.
2. What can't be sent at once by UDP is lost, as UDP may lose anything: whoever asked asks again.
3. A TCP connection's queries are answered one after the other. It has a deadline for each, and for its answer; there
   are so many, and of one source a quarter.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

import dns.exception
import dns.name
import structlog
import trio
from prometheus_client.core import CounterMetricFamily, Metric

from aqua_compat.dns.answers import Answers
from aqua_compat.dns.followed import FollowedNames
from aqua_compat.dns.query import LONGEST_QUERY
from aqua_compat.dns.responder import Answerable, Responder
from aqua_compat.dns.sources import LOCAL, Sources
from aqua_compat.dns.zone import IpAddress, Zone
from aqua_compat.http.listeners import Address, Misconfigured, address_in
from aqua_compat.http.metrics import counter, gauge
from aqua_compat.settings import DnsSettings
from overlay.errors import CallFailed
from overlay.tasks import background
from registry.model.names import Names
from registry.node import Node

DATAGRAMS: Final = 32  # that are answered in one turn of the loop
TURN: Final = 0.004  # seconds after which a turn ends, though more are there
MOST_WAITING: Final = 256  # queries for which something is being found
_LARGEST: Final = 4096  # bytes of a datagram that are read; none that is longer than a query is answered
_BUFFER: Final = 1024 * 1024  # bytes that wait for the loop's turn
_LENGTH: Final = struct.Struct("!H")
_LOW_PORT: Final = 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DnsStatistics(NamedTuple):
    """What a server did since its start: counts by transport, rcode and reason; and what it has now."""

    queries: Mapping[str, int]
    answers: Mapping[str, int]
    dropped: Mapping[str, int]
    truncated: int
    followed: int
    waiting: int
    connections: int


class DnsServer:
    """A running server."""

    def __init__(self, udp: socket.socket, tcp: trio.SocketListener, responder: Responder, settings: DnsSettings,
                 followed: FollowedNames) -> None:  # fmt: skip
        self.address = Address(*udp.getsockname()[:2])
        """Where it answers, with the port that it got."""
        self._udp = udp
        self._tcp = tcp
        self.responder = responder
        """What makes its answers."""
        self._settings = settings
        self._followed = followed
        self._waiting = 0
        self._connections: Counter[str] = Counter()

    def statistics(self) -> DnsStatistics:
        """What it did and has."""
        responder = self.responder
        return DnsStatistics(
            dict(responder.queries),
            dict(responder.answered),
            dict(responder.dropped),
            responder.truncated,
            self._followed.followed,
            self._waiting,
            self._connections.total(),
        )

    def metrics(self) -> Iterator[Metric]:
        """The same for Prometheus."""
        now = self.statistics()
        yield counter("aqua_dns_queries_total", "Queries that were looked at.", "transport", now.queries)
        yield counter("aqua_dns_answers_total", "Answers by DNS.", "rcode", now.answers)
        yield counter("aqua_dns_dropped_total", "Messages and answers by DNS that were dropped.", "reason", now.dropped)
        truncated = CounterMetricFamily("aqua_dns_truncated_total", "Answers that told to ask by TCP.")
        truncated.add_metric([], now.truncated)
        yield truncated
        yield gauge("aqua_dns_followed_resources", "Resources watched for being asked for.", now.followed)
        yield gauge("aqua_dns_followed_resources_budget", "Of those, the most.", self._settings.max_followed)
        yield gauge("aqua_dns_waiting_queries", "Queries for which something is being found.", now.waiting)
        yield gauge("aqua_dns_connections", "Open connections by DNS.", now.connections)
        yield gauge("aqua_dns_connections_budget", "Of those, the most.", self._settings.max_connections)

    async def serve_udp(self) -> None:
        """Answers datagrams until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._udp.fileno())
                began = time.perf_counter()
                for _ in range(DATAGRAMS):
                    if not self._answer_one(nursery) or time.perf_counter() - began > TURN:
                        break
                await trio.lowlevel.checkpoint()

    def _answer_one(self, nursery: trio.Nursery) -> bool:
        """Answers the next datagram; whether there was one."""
        try:
            wire, source = self._udp.recvfrom(_LARGEST)
        except BlockingIOError:
            return False
        except OSError:  # what became of an earlier answer
            return True
        if not source[1]:  # nobody can be answered there
            return True
        try:
            answer = self.responder.answer(wire, source[0], trio.current_time(), by_tcp=False)
        except Exception:
            _log.exception("a DNS query failed for a reason of ours", query=wire[:64].hex())
            return True
        if isinstance(answer, Answerable):
            if self._waiting < MOST_WAITING:
                self._waiting += 1
                nursery.start_soon(self._find, answer, source)
                return True
            answer = self.responder.refused(answer)
        if answer is not None:
            self._send(answer, source)
        return True

    async def _find(self, query: Answerable, source: Any) -> None:
        try:
            self._send(await self.responder.find(query), source)
        except Exception:
            _log.exception("a DNS query failed for a reason of ours")
        finally:
            self._waiting -= 1

    def _send(self, answer: bytes, source: Any) -> None:
        try:
            self._udp.sendto(answer, source)
        except OSError:  # rule 2
            self.responder.dropped["not sent"] += 1

    async def serve_tcp(self) -> None:
        """Answers connections until cancelled."""
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._serve_connection, [self._tcp], handler_nursery=nursery)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # gone already
            await trio.aclose_forcefully(stream)
            return
        group = address if not ip_address(address.partition("%")[0]).is_loopback else LOCAL
        most = self._settings.max_connections
        if self._connections.total() >= most or (group != LOCAL and self._connections[group] >= max(most // 4, 1)):
            self.responder.dropped["connections"] += 1
            await trio.aclose_forcefully(stream)
            return
        self._connections[group] += 1
        try:
            await self._exchange(stream, address)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # gone, or too slow
        except Exception:
            _log.exception("a DNS connection failed for a reason of ours")
        finally:
            self._connections[group] -= 1
            if not self._connections[group]:
                del self._connections[group]
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: trio.SocketStream, address: str) -> None:
        received = bytearray()
        while True:
            with trio.fail_after(self._settings.idle_timeout):
                wire = await _message(stream, received)
                if wire is None:
                    return
                answer = self.responder.answer(wire, address, trio.current_time(), by_tcp=True)
                if isinstance(answer, Answerable):
                    answer = await self.responder.find(answer)
                if answer is None:
                    return
                await stream.send_all(_LENGTH.pack(len(answer)) + answer)


async def _message(stream: trio.SocketStream, received: bytearray) -> bytes | None:
    """The next message; None at the end, and for one that is longer than any query."""
    while len(received) < _LENGTH.size or len(received) < _LENGTH.size + _LENGTH.unpack_from(received)[0]:
        if len(received) >= _LENGTH.size and _LENGTH.unpack_from(received)[0] > LONGEST_QUERY:
            return None
        piece = await stream.receive_some(LONGEST_QUERY)
        if not piece:
            return None
        received += piece
    end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
    if end > _LENGTH.size + LONGEST_QUERY:
        return None
    wire = bytes(received[_LENGTH.size : end])
    del received[:end]
    return wire


def domain_of(text: str) -> dns.name.Name:
    """The domain of a setting. Raises Misconfigured."""
    try:
        domain = dns.name.from_text(text.removesuffix(".") + ".").canonicalize()
    except (dns.exception.DNSException, UnicodeError):
        raise Misconfigured(f"dns.domain is {text[:100]!r}, no name of a domain such as aqua.") from None
    if domain == dns.name.root or len(domain.to_text()) > 64:
        raise Misconfigured(f"dns.domain is {text[:100]!r}; give a name such as aqua., of 64 characters at most")
    return domain


async def _sockets(address: Address) -> tuple[socket.socket, trio.SocketListener]:
    """Both sockets, on the same port. Raises Misconfigured."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    tries = 1 if address.port else 16  # a free port for both may take some
    for attempt in range(tries):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            udp.bind((address.host, address.port))
            [tcp] = await trio.open_tcp_listeners(udp.getsockname()[1], host=address.host, backlog=64)
        except OSError as error:
            udp.close()
            if attempt < tries - 1:
                continue
            reason = error.strerror or str(error)
            hint = "ports below 1024 are for root" if 0 < address.port < _LOW_PORT else "choose another port"
            raise Misconfigured(f"can't listen on dns.listen {address}: {reason}; {hint}") from None
        else:
            return udp, tcp
    raise AssertionError("unreachable")


def ip_addresses(multiaddrs: list[str]) -> list[IpAddress]:
    """The IP addresses of a peer's multiaddrs, each once."""
    found: dict[IpAddress, None] = {}
    for each in multiaddrs:
        parts = each.split("/")
        if len(parts) > 2 and parts[1] in ("ip4", "ip6"):
            try:
                found[ip_address(parts[2])] = None
            except ValueError:
                continue
    return list(found)


@asynccontextmanager
async def open_dns_server(
    node: Node,
    settings: DnsSettings,
    names: Callable[[], Names] | None = None,
    randomness: random.Random | None = None,
) -> AsyncIterator[DnsServer]:
    """Answers DNS on `settings.listen` while the context is open. `names`: those of the moment, the same until they
    change; by default none but `me`.

    Raises `aqua_compat.http.listeners.Misconfigured`.
    """
    address = address_in(settings.listen, "dns.listen", "127.0.0.1:8600")
    domain = domain_of(settings.domain)
    chance = randomness or random.Random()  # noqa: S311 - whom to call first, not secrets
    peer, parts = node.peer, node.parts
    async with AsyncExitStack() as stack:
        udp, tcp = await _sockets(address)
        stack.callback(tcp.socket.close)
        stack.callback(udp.close)

        def addresses_of(peer_id: str) -> list[IpAddress]:
            return ip_addresses(peer.addresses_of(peer_id))

        async def find_node(peer_id: str) -> None:
            with trio.move_on_after(settings.timeout):
                try:
                    await peer.find(peer_id, timeout=settings.timeout)
                except CallFailed as error:
                    _log.debug("a peer's addresses weren't found", peer_id=peer_id, error=str(error))

        followed = FollowedNames(
            node.registry,
            parts.health_of_hosts,
            max_followed=settings.max_followed,
            max_resolving=settings.max_resolving,
            timeout=settings.timeout,
        )
        own = ip_address(address.host)

        known = Names()

        @lru_cache(1)
        def zone_of(those: Names) -> Zone:
            return Zone(those.aliases, peer.peer_id)

        answers = Answers(
            domain,
            ttl=settings.ttl,
            negative_ttl=settings.negative_ttl,
            most=settings.max_answers,
            serial=int(time.time()) & 0xFFFFFFFF,
            own=[] if own.is_unspecified else [own],
            addresses_of=addresses_of,
            randomness=chance,
        )
        responder = Responder(
            domain,
            lambda: zone_of(names() if names is not None else known),
            answers,
            followed,
            Sources(settings.queries, settings.queries_per_source),
            max_udp=settings.max_udp,
            max_finding=settings.max_resolving,
            addresses_of=addresses_of,
            find_node=find_node,
            randomness=chance,
        )
        server = DnsServer(udp, tcp, responder, settings, followed)
        tasks = await stack.enter_async_context(background())
        for run in (followed.run, server.serve_udp, server.serve_tcp):
            tasks.start_soon(run)
        yield server
