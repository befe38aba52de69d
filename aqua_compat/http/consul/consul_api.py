"""Consul's API, `/v1/...` beside `/v1/aqua/`: what each path answers.

Rules:
1. A datacenter is an owner: the default one, or another by its alias. A service is the label of a resource of that
   owner.
2. Every answer has an index of its own, which grows when it changes, before filters. A query that names it waits for
   another one; one that names any other index is answered at once.
3. What Consul has and this hasn't is a 501 with a sentence, what neither has a 404. Errors are plain texts, as there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

import trio

from aqua_compat.http.access import check_may
from aqua_compat.http.consul.agent_api import AgentApi, LocalAgent
from aqua_compat.http.consul.catalog import Catalog, Survey
from aqua_compat.http.consul.datacenters import Datacenters
from aqua_compat.http.consul.entries import (
    CHECK_EXAMPLE,
    NODE_EXAMPLE,
    SERVICE_EXAMPLE,
    STATES,
    Entry,
    EntryWriter,
)
from aqua_compat.http.consul.expression import Term
from aqua_compat.http.consul.followed import KEPT_BYTES, FollowedService, FollowedServices
from aqua_compat.http.consul.index_book import IndexBook
from aqua_compat.http.consul.known_names import KnownNames, StoredNames
from aqua_compat.http.consul.patience import WaitingQueries
from aqua_compat.http.consul.query import Query, query_of
from aqua_compat.http.consul.replies import Answer, encoded, json_reply, reply, told
from aqua_compat.http.consul.selection import KINDS, filtered
from aqua_compat.http.consul.surveyed import checks_in, checks_of_node, nodes_in, services_in, services_of_node
from aqua_compat.http.listeners import Misconfigured
from aqua_compat.http.message import AccessLevel, HttpReply, HttpRequest
from aqua_compat.http.places import WatchPlaces
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
    "snapshot": "there are no snapshots; see `aqua-registry data backup`",
    "txn": "there are no transactions",
}
"""What Consul has and this hasn't."""


def consul_api(
    node: Node,
    settings: HttpSettings,
    data_dir: Path,
    names: Callable[[], Names] | None,
    places: WatchPlaces,
    agent: LocalAgent | None,
) -> ConsulApi:
    """What answers Consul's clients on a node. `agent`: that of this machine; other arguments as of `ConsulApi`. Raises
    Misconfigured for a default owner who is unknown."""
    known = Names(None, node.peer.peer_id)
    names = names or (lambda: known)
    owner = settings.consul.owner or (agent.owner if agent is not None else "") or OWN
    try:
        datacenters = Datacenters(settings.consul.datacenter, owner, names, node.peer.peer_id)
    except InvalidValue as error:
        raise Misconfigured(f"http.consul.owner: {error}") from None
    book = IndexBook(data_dir, node.parts.watches.clock())
    of_agent = AgentApi(datacenters.default, node, agent, checks_anywhere=settings.consul.checks_anywhere)
    return ConsulApi(node, datacenters, StoredNames(node.store), book, places, of_agent)


_Handler = Callable[[HttpRequest, Query, str], Awaitable[HttpReply]]


class ConsulApi:
    """Answers Consul's clients on one node. `run` owns what it follows."""

    def __init__(
        self,
        node: Node,
        datacenters: Datacenters,
        known_names: KnownNames,
        book: IndexBook,
        places: WatchPlaces,
        agent: AgentApi,
    ) -> None:
        """`places`: of queries that wait."""
        self._node = node
        self._peer = node.peer
        self._book = book
        self._waiting = WaitingQueries(places)
        parts = node.parts
        self._followed = FollowedServices(
            lambda key_id: node.registry.watch(key_id, include_down=True), parts.health_of_hosts, self._note_change
        )
        self._known_names = known_names
        self._datacenters = datacenters
        self._default = datacenters.default
        self._catalogs: dict[str, Catalog] = {}
        self._writers: dict[tuple[str, str], EntryWriter] = {}
        self._paths: dict[tuple[str, ...], _Handler] = {
            ("status", "leader"): self._leader,
            ("status", "peers"): self._peers,
            ("catalog", "datacenters"): self._list_datacenters,
            ("catalog", "services"): self._services,
            ("catalog", "nodes"): self._nodes,
            ("catalog", "node", "*"): partial(self._of_node, checks=False),
            ("catalog", "service", "*"): partial(self._of_service, kind="catalog"),
            ("health", "service", "*"): partial(self._of_service, kind="health"),
            ("health", "checks", "*"): partial(self._of_service, kind="checks"),
            ("health", "node", "*"): partial(self._of_node, checks=True),
            ("health", "state", "*"): self._of_state,
        }
        self.agent = agent
        parts.health_of_hosts.on_change(lambda host: self._note_change())  # noqa: ARG005 - any host's may be told of
        known_names.on_change(self._note_change)
        self._peer.on_membership_change(self._note_change)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps up to date what is asked for, until cancelled."""
        await self._followed.run(task_status=task_status)

    def stop(self) -> None:
        """Answers all who wait with what there is, now and from now on."""
        self._waiting.stop()

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
        owner = self._datacenters.owners().get(datacenter)
        followed = owner and self._followed.known((datacenter, _key_id_of(path[3], owner)))
        return self._ready(followed, query.known, part) if followed else None

    def _ready(self, followed: FollowedService, known: int, part: Query) -> ReadyReply | None:
        index, body = self._index_of(followed), followed.bodies.get(("health", part))
        if index == known or body is None:
            return None
        ready = followed.ready.get(part)
        if ready is None or ready.index != index:
            ready = followed.ready[part] = ReadyReply(reply(Answer(index, body)), index)
        return ready

    async def answer(self, request: HttpRequest) -> HttpReply:
        """The answer to any request; what is wrong is told in a text, as Consul does."""
        try:
            return await self._answer(request)
        except Problem as problem:
            return told(problem)
        except RegistryError as error:
            return told(Problem.of(error))

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
        example, select = KINDS[kind]
        term, query = query.term(example), query.of_kind(kind)
        datacenter, owner = self._owner(query)
        try:
            check_text("the label", label, MAX_LABEL)
            key_id = _key_id_of(label, owner)
            async with self._followed.used(label, key_id, self._writer(datacenter, owner)) as followed:
                with trio.move_on_after(KNOWN_WITHIN) as waiting:
                    await followed.wait_beyond(0)
                if waiting.cancelled_caught:
                    raise Problem(503, "failed", f"who keeps {label!r} hasn't answered yet", retry_after=1.0)
                async with self._waiting.patience(request.client, query, self._index_of(followed)) as patience:
                    while self._index_of(followed) == query.known and not patience.is_over:
                        await patience.wait(partial(followed.wait_beyond, followed.version))
                index = self._index_of(followed)
                key = kind, query.part
                body = followed.bodies.get(key)
                if body is None:
                    version = followed.version
                    body = await encoded(await self._selected(followed.entries, query, term, select))
                    if followed.version == version and len(body) <= KEPT_BYTES:
                        followed.bodies[key] = body
                return reply(Answer(index, body))
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
        return await filtered([one for entry in found for one in select(entry)], term)

    def _distance(self, near: str, host: str) -> int:
        """How far a host is from a node, of another one as far as is known."""
        if near == self._peer.peer_id:
            return self._peer.distance_to(host)
        return 0 if host == near else 2

    # What is asked of all services.

    async def _services(self, request: HttpRequest, query: Query, name: str) -> HttpReply:  # noqa: ARG002 - as all that answer
        term = query.term(SERVICE_EXAMPLE)
        return await self._of_all(request, query, "services", partial(services_in, term=term), {})

    async def _nodes(self, request: HttpRequest, query: Query, name: str) -> HttpReply:  # noqa: ARG002 - as all that answer
        term = query.term(NODE_EXAMPLE)
        tell = partial(nodes_in, members=self._members, node=self._node_writer(query), term=term)
        return await self._of_all(request, query, "nodes", tell, [])

    async def _of_node(self, request: HttpRequest, query: Query, name: str, *, checks: bool) -> HttpReply:
        name = self._peer.peer_id if name == OWN else name
        tell: Callable[[Survey], Awaitable[Any]]
        if checks:
            tell = partial(checks_of_node, name=name, members=self._members, term=query.term(CHECK_EXAMPLE))
        else:
            node = self._node_writer(query)
            term = query.term(SERVICE_EXAMPLE)
            tell = partial(services_of_node, name=name, members=self._members, node=node, term=term)
        return await self._of_all(request, query, ("node", name, checks), tell)

    async def _of_state(self, request: HttpRequest, query: Query, state: str) -> HttpReply:
        if state not in (*STATES, "any"):
            raise Problem.invalid(f"{state[:32]!r} is no state: there are {', '.join(STATES)} and any")
        tell = partial(checks_in, state=state, members=self._members, term=query.term(CHECK_EXAMPLE))
        return await self._of_all(request, query, ("state", state), tell, [])

    def _members(self) -> tuple[str, ...]:
        return (self._peer.peer_id, *self._peer.members())

    def _node_writer(self, query: Query) -> Callable[[str], Any]:
        return self._writer(*self._owner(query)).node

    async def _of_all(
        self,
        request: HttpRequest,
        query: Query,
        key: object,
        tell: Callable[[Survey], Awaitable[Any]],
        nothing: Any = None,
    ) -> HttpReply:
        """`nothing`: what is told where only nodes with some metadata are wanted, since none has any; None where
        `node-meta` means nothing."""
        is_none_wanted = bool(query.meta) and nothing is not None
        catalog = self._catalog(query)
        full_key = (catalog.owner, catalog.writer.datacenter, key, query.expression, is_none_wanted)

        async def answer(survey: Survey) -> Answer:
            ready = survey.answers.get(full_key)
            if ready is None:
                body = await encoded(nothing if is_none_wanted else await tell(survey))
                if (latest := catalog.latest) is not None and (newer := latest.answers.get(full_key)) is not None:
                    return cast("Answer", newer)  # made meanwhile: an index must not be of what was before
                ready = Answer(self._book.index_of(full_key, sha256(body).digest()), body)
                if len(body) <= survey.answers.maxsize:
                    survey.answers[full_key] = ready
            known: Answer = ready
            return known

        survey = await catalog.survey()
        found = await answer(survey)
        async with self._waiting.patience(request.client, query, found.number) as patience:
            while found.number == query.known and not patience.is_over:
                await patience.wait(partial(catalog.wait_beyond, survey))
                survey = await catalog.survey()
                found = await answer(survey)
        return reply(found)

    # What needs no waiting.

    async def _leader(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        return json_reply(self.agent.address)

    async def _peers(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        writer = self._writer(self._default, self._datacenters.owners()[self._default])
        members = [writer.node(peer_id)["Address"] for peer_id in self._peer.members()]
        return json_reply([self.agent.address, *(f"{address}:0" for address in members if address)])

    async def _list_datacenters(self, *_: object) -> HttpReply:
        await trio.lowlevel.checkpoint()
        return json_reply([self._default, *sorted(self._datacenters.owners().keys() - {self._default})])

    def _owner(self, query: Query) -> tuple[str, str]:
        """The datacenter that is asked for, and the owner whose it is. Raises Problem."""
        datacenter, owners = (query.datacenter or self._default).lower(), self._datacenters.owners()
        owner = owners.get(datacenter)
        if owner is None:
            known = ", ".join(list(owners)[:10])
            raise Problem.invalid(
                f"No path to datacenter: {query.datacenter[:80]!r} is no alias of an owner that this node knows;"
                f" known here: {known}"
            )
        return datacenter, owner

    def _writer(self, datacenter: str, owner: str) -> EntryWriter:
        """Each owner that a datacenter has been of has its own: what was written of another isn't told of any more."""
        writer = self._writers.get((datacenter, owner))
        if writer is None:
            writer = self._writers[datacenter, owner] = EntryWriter(datacenter, self._peer.addresses_of)
        return writer

    def _catalog(self, query: Query) -> Catalog:
        datacenter, owner = self._owner(query)
        catalog = self._catalogs.get(datacenter)
        if catalog is None or catalog.owner != owner:
            parts, settings = self._node.parts, self._node.parts.watches.settings
            clock = parts.watches.clock
            catalog = self._catalogs[datacenter] = Catalog(
                owner,
                self._writer(datacenter, owner),
                self._known_names,
                self._followed,
                self._node.store.resource,
                lambda state: state.records(int(clock()), settings),
                parts.health_of_hosts.health_of,
            )
        return catalog

    def _note_change(self, owner: str = "") -> None:
        for catalog in self._catalogs.values():
            if not owner or catalog.owner == owner:
                catalog.note_change()


_HEALTH_OF_SERVICE: Final = ("v1", "health", "service")


@lru_cache(256)
def _query_and_part(given: tuple[tuple[str, str], ...]) -> tuple[Query, Query]:
    query = query_of(given)
    return query, query.part


_key_id_of = lru_cache(4_096)(key_id_of)  # it takes longer than all else of an answer that is ready
