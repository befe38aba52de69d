"""Consul's API, `/v1/...` beside `/v1/aqua/`: what each path answers.

Rules:
1. A datacenter is an owner: the default one, or another by its alias. A service is the label of a resource of that
   owner.
2. Every answer has an index of its own, which grows when it changes, before filters. A query that names it waits for
   another one; one that names any other index is answered at once.
3. What Consul has and this hasn't is a 501 with a sentence, what neither has a 404. Errors are plain texts, as there.
"""

from __future__ import annotations

import ipaddress
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import trio

from aqua_compat.http.access import check_may
from aqua_compat.http.consul.agent_api import AgentApi, LocalAgent
from aqua_compat.http.consul.catalog import Catalog, Survey
from aqua_compat.http.consul.entries import (
    CATALOG_EXAMPLE,
    CHECK_EXAMPLE,
    HEALTH_EXAMPLE,
    NODE_CHECK,
    NODE_EXAMPLE,
    SERVICE_EXAMPLE,
    STATES,
    Entry,
    EntryWriter,
    node_check,
)
from aqua_compat.http.consul.expression import Term, comparisons
from aqua_compat.http.consul.followed import FollowedService, FollowedServices
from aqua_compat.http.consul.index_book import IndexBook
from aqua_compat.http.consul.known_names import KnownNames, StoredNames
from aqua_compat.http.consul.query import JITTER, Query, query_of
from aqua_compat.http.listeners import Misconfigured
from aqua_compat.http.message import JSON, AccessLevel, HttpReply, HttpRequest
from aqua_compat.http.problems import Problem
from aqua_compat.http.ready import ReadyReply
from aqua_compat.settings import HttpSettings
from overlay.tasks import TaskStatus
from registry.errors import InvalidValue, RegistryError
from registry.model.fields import check_text
from registry.model.names import OWN, Names
from registry.model.signing import key_id_of
from registry.model.values import MAX_LABEL
from registry.node import Node

KNOWN_WITHIN: Final = 6.0  # seconds in which it has to be known which instances a service has
FILTER_SLICE: Final = 2_000  # comparisons before others have their turn: fewer than 5 ms
PER_CLIENT: Final = 2  # a client elsewhere has this part of the open watches at most

NOT_HERE: Final = {
    "acl": "access is by tokens of this node (`aqua-registry http token`)",
    "config": "there are no configuration entries",
    "connect": "there is no service mesh",
    "coordinate": "there are no network coordinates",
    "discovery-chain": "there is no service mesh",
    "event": "there are no user events",
    "exported-services": "there are no partitions",
    "internal": "there is no page of Consul's here",
    "kv": "there is no key/value store: this is a registry of services",
    "operator": "there are no servers to operate",
    "peering": "there are no cluster peerings; a datacenter here is an owner's alias",
    "query": "there are no prepared queries",
    "session": "there are no sessions and no locks",
    "snapshot": "there are no snapshots; see `aqua-registry backup`",
    "txn": "there are no transactions",
}
"""What Consul has and this hasn't."""


def consul_api(
    node: Node,
    settings: HttpSettings,
    data_dir: Path,
    names: Mapping[str, str] | None,
    others: Callable[[], int],
    agent: LocalAgent | None,
) -> ConsulApi:
    """What answers Consul's clients on a node; arguments as of `ConsulApi`. Raises Misconfigured for a default owner
    who is unknown."""
    known = Names(names, node.peer.peer_id)
    try:
        owner = known.owner(settings.consul.owner or (agent.owner if agent is not None else "") or OWN)
    except InvalidValue as error:
        raise Misconfigured(f"http.consul.owner: {error}") from None
    book = IndexBook(data_dir, node.parts.watches.clock())
    return ConsulApi(
        node,
        settings.consul.datacenter,
        owner,
        known,
        StoredNames(node.store),
        book,
        settings.max_watches,
        others,
        agent,
    )


_Handler = Callable[[HttpRequest, Query, str], Awaitable[HttpReply]]


class _Answer(NamedTuple):
    """What is known of what is asked: its index, and all of it, to choose from."""

    number: int
    body: bytes


class Patience:
    """How long one query waits for a change."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._scope: trio.CancelScope | None = None
        self.is_over = deadline == -math.inf
        """Whether it is to be answered with what there is."""

    async def wait(self, change: Callable[[], Awaitable[None]]) -> None:
        """Waits for a change, or until it is over."""
        with trio.CancelScope(deadline=self._deadline) as self._scope:
            await change()
        self.is_over = self.is_over or self._scope.cancelled_caught

    def end(self) -> None:
        """Is over now."""
        self.is_over = True
        if self._scope is not None:
            self._scope.cancel()


class ConsulApi:
    """Answers Consul's clients on one node. `run` owns what it follows."""

    def __init__(
        self,
        node: Node,
        datacenter: str,
        owner: str,
        names: Names,
        known_names: KnownNames,
        book: IndexBook,
        max_watches: int,
        others: Callable[[], int],
        agent: LocalAgent | None,
    ) -> None:
        """`datacenter`: the name of the default one, which is `owner`'s. `names`: the aliases of owners, and who `me`
        is. `max_watches`: queries that wait at the same time, together with the watches that `others` counts. `agent`:
        that of this machine."""
        self._node = node
        self._peer = node.peer
        self._names = names
        self._book = book
        self._max_watches = max_watches
        self._others = others
        self._waiting: Counter[str] = Counter()
        self._patient: set[Patience] = set()
        self._is_stopping = False
        parts = node.parts
        self._followed = FollowedServices(
            lambda key_id: node.registry.watch(key_id, include_down=True), parts.health_of_hosts, self._note_change
        )
        self._known_names = known_names
        self._default = datacenter.lower()
        self._owners = {self._default: owner}
        for alias, peer_id in {**names.aliases, OWN: self._peer.peer_id}.items():
            self._owners.setdefault(alias.lower(), peer_id)
        self._catalogs: dict[str, Catalog] = {}
        self._writers: dict[str, EntryWriter] = {}
        self._paths: dict[tuple[str, ...], _Handler] = {
            ("status", "leader"): self._leader,
            ("status", "peers"): self._peers,
            ("catalog", "datacenters"): self._datacenters,
            ("catalog", "services"): self._services,
            ("catalog", "nodes"): self._nodes,
            ("catalog", "node", "*"): partial(self._of_node, checks=False),
            ("catalog", "service", "*"): partial(self._of_service, kind="catalog"),
            ("health", "service", "*"): partial(self._of_service, kind="health"),
            ("health", "checks", "*"): partial(self._of_service, kind="checks"),
            ("health", "node", "*"): partial(self._of_node, checks=True),
            ("health", "state", "*"): self._of_state,
        }
        self.agent = AgentApi(self._default, node, agent)
        parts.health_of_hosts.on_change(lambda host: self._note_change())  # noqa: ARG005 - any host's may be told of
        known_names.on_change(self._note_change)
        self._peer.on_membership_change(self._note_change)

    @property
    def waiting(self) -> int:
        """How many queries wait for a change."""
        return self._waiting.total()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps up to date what is asked for, until cancelled."""
        await self._followed.run(task_status=task_status)

    def stop(self) -> None:
        """Answers all who wait with what there is, now and from now on."""
        self._is_stopping = True
        for patience in self._patient:
            patience.end()

    def at_hand(self, request: HttpRequest) -> ReadyReply | None:
        """The answer where it is ready and needs no waiting: the query that is asked most, of a service that is
        followed. None otherwise, also for what is wrong."""
        path = request.path
        if len(path) != 4 or path[:3] != _HEALTH_OF_SERVICE or request.method != "GET":
            return None
        try:
            query, part = _query_and_part(request.query)
        except Problem:
            return None
        datacenter = query.datacenter or self._default
        owner = self._owners.get(datacenter)
        followed = owner and self._followed.known((datacenter, _key_id_of(path[3], owner)))
        return self._ready(followed, query.known, part) if followed else None

    def _ready(self, followed: FollowedService, known: int, part: Query) -> ReadyReply | None:
        index, body = self._index_of(followed), followed.bodies.get(("health", part))
        if index == known or body is None:
            return None
        ready: ReadyReply | None = followed.ready.get(part)
        if ready is None or ready.index != index:
            ready = followed.ready[part] = ReadyReply(_reply(_Answer(index, body)), index)
        return ready

    async def answer(self, request: HttpRequest) -> HttpReply:
        """The answer to any request; what is wrong is told in a text, as Consul does."""
        try:
            return await self._answer(request)
        except Problem as problem:
            return _told(problem)
        except RegistryError as error:
            return _told(Problem.of(error))

    async def _answer(self, request: HttpRequest) -> HttpReply:
        area, *rest = request.path[1:] or ("",)
        check_may(request, AccessLevel.READ)
        if area == "agent":
            return await self.agent.answer(request)
        answer, name = self._answering(area, tuple(rest))
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "method-unknown", f"{request.method} isn't answered here", headers=[("Allow", "GET")])
        return await answer(request, query_of(request.query), name)

    def _answering(self, area: str, rest: tuple[str, ...]) -> tuple[_Handler, str]:
        """What answers a path, and the name in it."""
        if (found := self._paths.get((area, *rest))) is not None:
            return found, ""
        if rest and rest[-1] and (found := self._paths.get((area, *rest[:-1], "*"))) is not None:
            return found, rest[-1]
        if area in NOT_HERE:
            raise Problem(501, "not-implemented", f"/v1/{area} isn't answered here: {NOT_HERE[area]}")
        if area in ("catalog", "health"):
            what = "/".join((area, *rest[:1]))
            raise Problem(501, "not-implemented", f"/v1/{what} isn't answered here; docs/consul.md tells what is")
        raise Problem(404, "path-unknown", "neither Consul nor this node has anything here")

    # What is asked of one service.

    async def _of_service(self, request: HttpRequest, query: Query, label: str, *, kind: str) -> HttpReply:
        example, select = _KINDS[kind]
        term = query.term(example)
        datacenter, owner = self._owner(query)
        try:
            check_text("the label", label, MAX_LABEL)
            key_id = _key_id_of(label, owner)
            async with self._followed.used(label, key_id, self._writer(datacenter)) as followed:
                with trio.move_on_after(KNOWN_WITHIN) as waiting:
                    await followed.wait_beyond(0)
                if waiting.cancelled_caught:
                    raise Problem(503, "failed", f"who keeps {label!r} hasn't answered yet", retry_after=1.0)
                async with self._patience(request, query) as patience:
                    while self._index_of(followed) == query.known and not patience.is_over:
                        await patience.wait(partial(followed.wait_beyond, followed.version))
                index = self._index_of(followed)
                key = kind, query.part
                body = followed.bodies.get(key)
                if body is None:
                    version = followed.version
                    chosen = await self._selected(followed.entries, query, term, select)
                    body = msgspec.json.encode(chosen)
                    if followed.version == version:
                        followed.bodies[key] = body
                return _reply(_Answer(index, body))
        except InvalidValue as error:
            raise Problem.invalid(str(error)) from None

    def _index_of(self, followed: FollowedService) -> int:
        return self._book.index_of(("service", followed.key), followed.digest)

    async def _selected(
        self, entries: Sequence[Entry], query: Query, term: Term | None, select: Callable[[Entry], list[Any]]
    ) -> list[Any]:
        found = [
            entry
            for entry in entries
            if (not query.passing or entry.status == STATES[0]) and query.tags <= entry.tags and not query.meta
        ]
        if query.near:
            near = self._peer.peer_id if query.near == "_agent" else query.near
            found.sort(key=lambda entry: self._distance(near, entry.host))
        return await _filtered([one for entry in found for one in select(entry)], term)

    def _distance(self, near: str, host: str) -> int:
        """How far a host is from a node: the node itself, those that this node is linked to, others."""
        if host == near:
            return 0
        return 1 if near == self._peer.peer_id and self._peer.is_linked(host) else 2

    # What is asked of all services.

    async def _services(self, request: HttpRequest, query: Query, name: str) -> HttpReply:  # noqa: ARG002 - as all that answer
        term = query.term(SERVICE_EXAMPLE)

        async def services(survey: Survey) -> Any:
            told: dict[str, list[str]] = {}
            for label, entries in survey.services.items():
                kept = entries
                if term is not None:
                    passed = await _filtered([entry.health["Service"] for entry in entries], term)
                    kept = tuple(entry for entry in entries if entry.health["Service"] in passed)
                if kept:
                    tags = (tag for entry in kept for tag in entry.health["Service"]["Tags"])
                    told[label] = list(dict.fromkeys(sorted(tags)))
            return told

        return await self._of_all(request, query, "services", services)

    async def _nodes(self, request: HttpRequest, query: Query, name: str) -> HttpReply:  # noqa: ARG002 - as all that answer
        term = query.term(NODE_EXAMPLE)

        async def nodes(survey: Survey) -> Any:
            found = {entry.host: entry.health["Node"] for entries in survey.services.values() for entry in entries}
            writer = self._writer(self._owner(query)[0])
            for peer_id in (self._peer.peer_id, *self._peer.members()):
                found.setdefault(peer_id, writer.node(peer_id))
            return await _filtered([found[peer_id] for peer_id in sorted(found)], term)

        return await self._of_all(request, query, "nodes", nodes)

    async def _of_node(self, request: HttpRequest, query: Query, name: str, *, checks: bool) -> HttpReply:
        term = query.term(CHECK_EXAMPLE if checks else SERVICE_EXAMPLE)
        name = self._peer.peer_id if name == OWN else name

        async def of_node(survey: Survey) -> Any:
            entries = [entry for all_of in survey.services.values() for entry in all_of if entry.host == name]
            is_there = name == self._peer.peer_id or self._peer.is_linked(name)
            if checks:
                own = [entry.health["Checks"][1] for entry in entries]
                of_host = [entry.health["Checks"][0] for entry in entries[:1]]
                if is_there and not of_host:
                    of_host = [node_check(name, is_up=True)]
                return await _filtered([*of_host, *own], term)
            if not entries and not is_there:
                return None
            services: dict[str, Any] = {}
            for entry in entries:
                service = entry.health["Service"]
                key = service["ID"] if service["ID"] not in services else f"{service['Service']}/{service['ID']}"
                services[key] = service
            kept = await _filtered(list(services.values()), term)
            node = entries[0].health["Node"] if entries else self._writer(self._owner(query)[0]).node(name)
            return {"Node": node, "Services": {key: one for key, one in services.items() if one in kept}}

        return await self._of_all(request, query, ("node", name, checks), of_node)

    async def _of_state(self, request: HttpRequest, query: Query, state: str) -> HttpReply:
        if state not in (*STATES, "any"):
            raise Problem.invalid(f"{state[:32]!r} is no state: there are {', '.join(STATES)} and any")
        term = query.term(CHECK_EXAMPLE)

        async def of_state(survey: Survey) -> Any:
            checks: list[Any] = []
            hosts: dict[str, Any] = {}
            for entries in survey.services.values():
                for entry in entries:
                    hosts[entry.host] = entry.health["Checks"][0]
                    checks.append(entry.health["Checks"][1])
            told = [*(hosts[host] for host in sorted(hosts)), *checks]
            return await _filtered([one for one in told if state in ("any", one["Status"])], term)

        return await self._of_all(request, query, ("state", state), of_state)

    async def _of_all(
        self, request: HttpRequest, query: Query, key: object, tell: Callable[[Survey], Awaitable[Any]]
    ) -> HttpReply:
        catalog = self._catalog(query)
        full_key = (catalog.owner, catalog.writer.datacenter, key, query.expression)

        async def answer(survey: Survey) -> _Answer:
            ready = survey.answers.get(full_key)
            if ready is None:
                body = msgspec.json.encode(await tell(survey))
                ready = _Answer(self._book.index_of(full_key, sha256(body).digest()), body)
                survey.answers[full_key] = ready
            known: _Answer = ready
            return known

        survey = await catalog.survey()
        found = await answer(survey)
        async with self._patience(request, query) as patience:
            while found.number == query.known and not patience.is_over:
                await patience.wait(partial(catalog.wait_beyond, survey))
                survey = await catalog.survey()
                found = await answer(survey)
        return _reply(found)

    # What needs no waiting.

    async def _leader(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        return _json(self.agent.address)

    async def _peers(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        writer = self._writer(self._default)
        members = [writer.node(peer_id)["Address"] for peer_id in self._peer.members()]
        return _json([self.agent.address, *(f"{address}:0" for address in members if address)])

    async def _datacenters(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        return _json([self._default, *sorted(self._owners.keys() - {self._default})])

    def _owner(self, query: Query) -> tuple[str, str]:
        """The datacenter that is asked for, and the owner whose it is. Raises Problem."""
        datacenter = (query.datacenter or self._default).lower()
        owner = self._owners.get(datacenter)
        if owner is None:
            known = ", ".join(list(self._owners)[:10])
            raise Problem.invalid(
                f"No path to datacenter: {query.datacenter[:80]!r} is no alias of an owner in this node's settings;"
                f" known here: {known}"
            )
        return datacenter, owner

    def _writer(self, datacenter: str) -> EntryWriter:
        if datacenter not in self._writers:
            self._writers[datacenter] = EntryWriter(datacenter, self._peer.addresses_of)
        return self._writers[datacenter]

    def _catalog(self, query: Query) -> Catalog:
        datacenter, owner = self._owner(query)
        if datacenter not in self._catalogs:
            parts, settings = self._node.parts, self._node.parts.watches.settings
            clock = parts.watches.clock
            self._catalogs[datacenter] = Catalog(
                owner,
                self._writer(datacenter),
                self._known_names,
                self._followed,
                self._node.store.resource,
                lambda state: state.records(int(clock()), settings),
                parts.health_of_hosts.health_of,
            )
        return self._catalogs[datacenter]

    def _note_change(self, owner: str = "") -> None:
        for catalog in self._catalogs.values():
            if not owner or catalog.owner == owner:
                catalog.note_change()

    @asynccontextmanager
    async def _patience(self, request: HttpRequest, query: Query) -> AsyncIterator[Patience]:
        """What a query has, none where it is none that waits. Raises Problem where as many wait as may."""
        if not query.known or self._is_stopping:
            yield Patience(-math.inf)
            return
        client = request.client
        total = self._others() + self._waiting.total()
        if total >= self._max_watches:
            raise Problem(503, "overloaded", f"{total} watches are open, as many as may be", retry_after=10.0)
        if not _is_near(client) and self._waiting[client] >= max(self._max_watches // PER_CLIENT, 1):
            raise Problem(429, "overloaded", f"{self._waiting[client]} queries of yours wait already", retry_after=10.0)
        wait = query.wait * (1 + JITTER * random.random())  # noqa: S311 - jitter, not secrets
        patience = Patience(trio.current_time() + wait)
        self._waiting[client] += 1
        self._patient.add(patience)
        try:
            yield patience
        finally:
            self._patient.discard(patience)
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]


_HEALTH_OF_SERVICE: Final = ("v1", "health", "service")


@lru_cache(256)
def _query_and_part(given: tuple[tuple[str, str], ...]) -> tuple[Query, Query]:
    query = query_of(given)
    return query, query.part


_key_id_of = lru_cache(4_096)(key_id_of)  # it takes longer than all else of an answer that is ready


_HEADERS: Final = (
    ("Content-Type", JSON),
    ("X-Consul-KnownLeader", "true"),
    ("X-Consul-LastContact", "0"),
    ("X-Consul-Effective-Consistency", "stale"),
)


def _reply(answer: _Answer) -> HttpReply:
    return HttpReply(200, [*_HEADERS, ("X-Consul-Index", str(answer.number))], answer.body)


def _is_near(client: str) -> bool:
    """Whether a client is on this machine, where all share one address."""
    try:
        return not client or ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


async def _filtered(values: list[Any], term: Term | None) -> list[Any]:
    if term is None:
        return values
    cost, done = sum(1 for _ in comparisons(term)), 0
    kept: list[Any] = []
    for value in values:
        done += cost
        if done >= FILTER_SLICE:
            done = 0
            await trio.lowlevel.checkpoint()
        if term.matches(value):
            kept.append(value)
    return kept


def _health_of(entry: Entry) -> list[Any]:
    return [entry.health]


def _catalog_of(entry: Entry) -> list[Any]:
    return [entry.catalog]


def _checks_of(entry: Entry) -> list[Any]:
    return [check for check in entry.health["Checks"] if check["CheckID"] != NODE_CHECK]


_KINDS: Final[Mapping[str, tuple[Mapping[str, Any], Callable[[Entry], list[Any]]]]] = {
    "health": (HEALTH_EXAMPLE, _health_of),
    "catalog": (CATALOG_EXAMPLE, _catalog_of),
    "checks": (CHECK_EXAMPLE, _checks_of),
}


def _json(value: object) -> HttpReply:
    return HttpReply(200, [("Content-Type", JSON)], msgspec.json.encode(value))


def _told(problem: Problem) -> HttpReply:
    headers = [each for each in problem.all_headers() if each[0] != "Content-Type"]
    return HttpReply(
        problem.status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{problem.detail}\n".encode()
    )
