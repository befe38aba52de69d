"""Consul's `/v1/agent/...`: this node as the agent of its machine, which keeps registered and checks what programs ask
for.

1. What is registered here is one more service file: it is read and checked as those are (docs/agent.md), kept on disk,
   and registered by the agent. What a file defines is changed there alone.
2. A node that runs without services has no agent: it lists none, and says so to who registers.
3. Checks that run programs aren't taken: a token to write would run any as the node's user. Those that it registers
   ask at this machine alone (`check_targets`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import trio

from aqua_compat.agent.check_runner import CheckKey
from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import CheckDefinition, DefinedInstance, ServiceDefinition
from aqua_compat.agent.service_files import BadDefinitions
from aqua_compat.http.access import check_may
from aqua_compat.http.consul.check_targets import check_targets
from aqua_compat.http.consul.entries import (
    CHECK_EXAMPLE,
    SERVICE_EXAMPLE,
    STATES,
    EntryWriter,
    check_of,
    node_id,
)
from aqua_compat.http.consul.query import query_of
from aqua_compat.http.consul.registrations import (
    ConsulRegistration,
    check_registration_of,
    plain,
    registration_of,
    without_nulls,
)
from aqua_compat.http.consul.selection import filtered
from aqua_compat.http.message import JSON, AccessLevel, HttpReply, HttpRequest
from aqua_compat.http.problems import Problem
from registry.node import Node

MAX_BODY: Final = 65_536  # bytes
NO_AGENT: Final = (
    "this node isn't the agent of its machine: start it with --services and a folder, which may be empty"
    " (docs/agent.md), or register by /v1/aqua/resources/{id}/records"
)
_AGGREGATED: Final = {"passing": 200, "warning": 429, "critical": 503}
_NOT_HERE: Final = frozenset(
    {
        "connect",
        "force-leave",
        "host",
        "join",
        "leave",
        "maintenance",
        "metrics",
        "monitor",
        "reload",
        "token",
        "version",
    }
)


class LocalAgent(Protocol):
    """The agent as this uses it."""

    @property
    def owner(self) -> str:
        """Whose resources services are that name nobody else; empty for the node's own key."""
        ...

    @property
    def services(self) -> Mapping[str, ServiceDefinition]:
        """The services that it keeps, by their ids."""
        ...

    @property
    def registered(self) -> Mapping[str, ConsulRegistration]:
        """Those of them that programs registered."""
        ...

    def shown(self, key: CheckKey) -> CheckResult | None:
        """The state of a check."""
        ...

    def report(self, key: CheckKey, result: CheckResult) -> bool:
        """Takes what a program says for a `ttl` check; False for no such check."""
        ...

    async def put(self, service_id: str, registration: ConsulRegistration) -> None:
        """Registers a service, in place of what was registered by that id. Raises BadDefinitions."""
        ...

    async def remove(self, service_id: str) -> None:
        """Ends what was registered. Raises BadDefinitions."""
        ...


class _Local(NamedTuple):
    """One instance of a service of this machine."""

    id: str
    service: ServiceDefinition
    defined: DefinedInstance


class _LocalCheck(NamedTuple):
    """A check of one. `number`: of its checks, from 1; `is_only`: whether there is no other."""

    number: int
    is_only: bool
    of: _Local
    definition: CheckDefinition

    @property
    def id(self) -> str:
        """What it is called now."""
        return self.ids[not self.is_only]

    @property
    def ids(self) -> tuple[str, str]:
        """What a program may call it: whoever reports to the only check goes on when another one comes, or goes."""
        numbered = f"service:{self.of.id}:{self.number}"
        return f"service:{self.of.id}" if self.number == 1 else numbered, numbered

    @property
    def key(self) -> CheckKey:
        return CheckKey(self.of.service.id, self.of.defined.instance.id, self.definition.name)


class AgentApi:
    """Answers for this machine."""

    def __init__(self, datacenter: str, node: Node, agent: LocalAgent | None, *, checks_anywhere: bool = False) -> None:
        """`checks_anywhere`: whether who may only write may have any address checked."""
        self._checks_anywhere = checks_anywhere
        self._datacenter = datacenter
        self._node = node
        self._writer = EntryWriter(datacenter, node.peer.addresses_of)
        self._changing = trio.Lock()
        self.agent = agent

    @property
    def address(self) -> str:
        """Where this node is, as Consul tells of a server."""
        return f"{self._writer.node(self._node.peer.peer_id)['Address'] or '127.0.0.1'}:8300"

    async def answer(self, request: HttpRequest) -> HttpReply:  # noqa: C901, PLR0911 - one line per path
        """The answer to a request. Raises Problem."""
        await trio.lowlevel.checkpoint()
        match request.path[2:]:
            case ("self",):
                return self._read(request, self._self)
            case ("members",):
                return self._read(request, self._members)
            case ("services",):
                return await self._list(request, lambda: map(self._service, self._locals()), "ID", SERVICE_EXAMPLE)
            case ("service", service_id) if request.method in ("GET", "HEAD"):
                return self._read(request, lambda: self._service(self._local(service_id)))
            case ("checks",):
                return await self._list(request, lambda: map(self._check, self._checks()), "CheckID", CHECK_EXAMPLE)
            case "health", "service", ("name" | "id") as by, name:
                return self._health(request, by, name)
            case "service", "register":
                replaces = dict(request.query).get("replace-existing-checks") in ("", "true")
                return await self._write(request, lambda body: self._register(request, body, replaces_checks=replaces))
            case "service", "deregister", service_id:
                return await self._write(request, lambda _: self._deregister(service_id))
            case "check", "register":
                return await self._write(request, lambda body: self._register_check(request, body))
            case "check", "deregister", check_id:
                return await self._write(request, lambda _: self._deregister_check(check_id))
            case "check", ("pass" | "warn" | "fail" | "update") as verb, check_id:
                return await self._write(request, lambda body: self._report(verb, check_id, request, body))
            case (word, *_) if word in _NOT_HERE or word in ("service", "check", "health"):
                raise Problem(
                    501, "not-implemented", f"/v1/agent/{word} isn't answered here; docs/consul.md tells what is"
                )
        raise Problem(404, "path-unknown", "neither Consul's agent nor this one has anything here")

    def _read(self, request: HttpRequest, tell: Callable[[], Any]) -> HttpReply:
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "method-unknown", f"{request.method} isn't answered here", headers=[("Allow", "GET")])
        check_may(request, AccessLevel.READ)
        return _json(tell())

    async def _list(
        self, request: HttpRequest, tell: Callable[[], Iterable[Any]], key: str, example: Mapping[str, Any]
    ) -> HttpReply:
        """What is told, by its key, as far as the filter lets it through. `example`: as of `Query.term`."""
        term = query_of(request.query).term(example)
        kept = await filtered(list(tell()), term)
        return self._read(request, lambda: {one[key]: one for one in kept})

    async def _write(self, request: HttpRequest, do: Callable[[Any], Awaitable[None]]) -> HttpReply:
        if request.method != "PUT":
            raise Problem(405, "method-unknown", f"{request.method} isn't answered here", headers=[("Allow", "PUT")])
        check_may(request, AccessLevel.WRITE)
        if len(request.body) > MAX_BODY:
            raise Problem(413, "too-large", f"a body has at most {MAX_BODY} bytes here")
        try:
            body = msgspec.json.decode(request.body) if request.body.strip() else {}
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
            raise Problem.invalid(f"Request decode failed: {error}") from None
        if not isinstance(body, dict):
            raise Problem.invalid("Request decode failed: the body isn't a JSON object")
        async with self._changing:
            await do(without_nulls(body))
        return HttpReply(200, [("Content-Type", JSON)], b"")

    # What is told.

    def _self(self) -> Any:
        peer_id = self._node.peer.peer_id
        member = self._member(peer_id)
        config = {
            "Datacenter": self._datacenter,
            "PrimaryDatacenter": self._datacenter,
            "NodeName": peer_id,
            "NodeID": node_id(peer_id),
            "Server": True,
            "Revision": "",
            "Version": version("aqua-registry"),
        }
        return {"Config": config, "DebugConfig": {}, "Coord": None, "Member": member, "Stats": {}, "Meta": {}}

    def _members(self) -> Any:
        return [self._member(peer_id) for peer_id in (self._node.peer.peer_id, *sorted(self._node.peer.members()))]

    def _member(self, peer_id: str) -> Any:
        node = self._writer.node(peer_id)
        tags = {"dc": self._datacenter, "id": node["ID"], "role": "consul"}
        versions = {f"{kind}{end}": 1 for kind in ("Protocol", "Delegate") for end in ("Min", "Max", "Cur")}
        return {"Name": peer_id, "Addr": node["Address"], "Port": 0, "Tags": tags, "Status": 1, **versions}

    def _service(self, one: _Local) -> Any:
        instance = one.defined.instance
        return {
            "ID": one.id,
            "Service": one.service.label,
            "Tags": list(instance.tags),
            "Meta": dict(instance.metadata),
            "Port": instance.port,
            "Address": instance.address,
            "TaggedAddresses": {},
            "Weights": {"Passing": instance.weight, "Warning": instance.weight},
            "EnableTagOverride": False,
            "Datacenter": self._datacenter,
        }

    def _check(self, one: _LocalCheck) -> Any:
        shown = self._running.shown(one.key)
        state = "critical" if shown is None else str(shown.state)
        told = check_of(
            self._node.peer.peer_id,
            one.id,
            one.definition.name,
            state,
            "" if shown is None else shown.note,
            (one.of.id, one.of.service.label, one.of.defined.instance.tags),
        )
        kind = type(one.definition.probe).__name__.removesuffix("Check").lower()
        return told | {"Type": kind}

    def _health(self, request: HttpRequest, by: str, name: str) -> HttpReply:
        check_may(request, AccessLevel.READ)
        found = [one for one in self._locals() if name == (one.service.label if by == "name" else one.id)]
        if not found:
            return _json([] if by == "name" else {"AggregatedStatus": "critical"}, 404)
        told: list[dict[str, Any]] = []
        for one in found:
            checks = [self._check(check) for check in self._checks() if check.of.id == one.id]
            worst = max((check["Status"] for check in checks), key=STATES.index, default=STATES[0])
            told.append({"AggregatedStatus": worst, "Service": self._service(one), "Checks": checks})
        worst = max((each["AggregatedStatus"] for each in told), key=STATES.index)
        if ("format", "text") in request.query:
            return HttpReply(_AGGREGATED[worst], [("Content-Type", "text/plain; charset=utf-8")], worst.encode())
        return _json(told if by == "name" else told[0], _AGGREGATED[worst])

    # What is done.

    async def _register(self, request: HttpRequest, body: dict[str, Any], *, replaces_checks: bool) -> None:
        registration = registration_of(body)
        check_targets(registration.form.check, request.grant, anywhere=self._checks_anywhere)
        service_id = registration.form.id or registration.form.name
        self._check_not_in_file(service_id)
        before = self._running.registered.get(service_id)
        if before is not None and not replaces_checks:
            registration = registration.after(before)
        await self._put(service_id, registration)

    async def _deregister(self, service_id: str) -> None:
        if service_id not in self._running.registered:
            self._check_not_in_file(service_id)
            raise Problem(404, "path-unknown", f"Unknown service ID {service_id[:80]!r}")
        try:
            await self._running.remove(service_id)
        except BadDefinitions as error:
            raise Problem.invalid("; ".join(error.errors)) from None

    async def _register_check(self, request: HttpRequest, body: dict[str, Any]) -> None:
        service_id, check = check_registration_of(body)
        check_targets([check], request.grant, anywhere=self._checks_anywhere)
        await self._put(service_id, self._registered(service_id).with_check(check))

    async def _deregister_check(self, check_id: str) -> None:
        found = self._found(check_id)
        registered = self._registered(found.of.service.id)
        names = [check.name for check in found.of.defined.checks]
        checks = zip(names, registered.form.check, registered.places, strict=True)
        kept = [(check, place) for name, check, place in checks if name != found.definition.name]
        await self._put(found.of.service.id, registered.with_checks(kept))

    async def _report(self, verb: str, check_id: str, request: HttpRequest, body: dict[str, Any]) -> None:
        note = dict(request.query).get("note", "")
        state = {"pass": "passing", "warn": "warning", "fail": "critical"}.get(verb, "")
        if verb == "update":
            fields = {plain(key): value for key, value in body.items()}
            state, note = fields.get("status", ""), fields.get("output", "")
            if state not in STATES or not isinstance(note, str):
                raise Problem.invalid(f"Status is one of {', '.join(STATES)}, and Output a text")
        found = self._found(check_id)
        await trio.lowlevel.checkpoint()
        if not self._running.report(found.key, CheckResult(CheckState[state.upper()], note)):
            raise Problem.invalid(f"CheckID {check_id[:80]!r} is no TTL check: this node does it itself")

    async def _put(self, service_id: str, registration: ConsulRegistration) -> None:
        try:
            await self._running.put(service_id, registration)
        except BadDefinitions as error:
            raise Problem.invalid("; ".join(error.errors)) from None

    @property
    def _running(self) -> LocalAgent:
        if self.agent is None:
            raise Problem(501, "not-implemented", NO_AGENT)
        return self.agent

    def _check_not_in_file(self, service_id: str) -> None:
        defined = self._running.services.get(service_id)
        if defined is not None and service_id not in self._running.registered:
            raise Problem.invalid(f"the service {service_id[:80]!r} is defined in {defined.source}; change it there")

    def _registered(self, service_id: str) -> ConsulRegistration:
        self._check_not_in_file(service_id)
        registered = self._running.registered.get(service_id)
        if registered is None:
            raise Problem(404, "path-unknown", f"ServiceID {service_id[:80]!r} does not exist")
        return registered

    def _found(self, check_id: str) -> _LocalCheck:
        checks = self._checks()
        for is_it in (lambda check: check_id in check.ids, lambda check: check_id == check.definition.name):
            if (found := next(filter(is_it, checks), None)) is not None:
                return found
        if self.agent is None:
            raise Problem(501, "not-implemented", NO_AGENT)
        raise Problem(404, "path-unknown", f"Unknown check ID {check_id[:80]!r}")

    def _local(self, service_id: str) -> _Local:
        for one in self._locals():
            if one.id == service_id:
                return one
        raise Problem(404, "path-unknown", f"unknown service ID: {service_id[:80]}")

    def _locals(self) -> list[_Local]:
        if self.agent is None:
            return []
        return [
            _Local(service.id if len(service.instances) == 1 else f"{service.id}/{one.instance.id}", service, one)
            for service in self.agent.services.values()
            for one in service.instances
        ]

    def _checks(self) -> list[_LocalCheck]:
        found: list[_LocalCheck] = []
        for one in self._locals():
            checks = one.defined.checks
            for number, check in enumerate(checks, 1):
                found.append(_LocalCheck(number, len(checks) == 1, one, check))
        return found


def _json(value: object, status: int = 200) -> HttpReply:
    return HttpReply(status, [("Content-Type", JSON)], msgspec.json.encode(value))
