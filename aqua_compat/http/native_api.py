"""The native API, `/v1/aqua/...`: its table of operations, and what each does.

What needs a key acts as the node's own; what is signed already goes to the network as it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import trio

from aqua_compat.api.services import Services
from aqua_compat.http.agent_api import AGENT_OPERATIONS
from aqua_compat.http.feeds import Feeds
from aqua_compat.http.json_shape import STRING, Schema, array_of, object_of, shape_of
from aqua_compat.http.message import JSON, AccessLevel, HttpReply
from aqua_compat.http.metrics import MEDIA_TYPE as METRICS
from aqua_compat.http.metrics import Exposition
from aqua_compat.http.monitoring import Monitoring
from aqua_compat.http.network_view import NetworkView, network_view, resource_on_ring
from aqua_compat.http.operations import HttpOperation, Items, OperationCall, Parameter, Result
from aqua_compat.http.problems import Problem
from aqua_compat.rpc.errors import NoProvider
from aqua_compat.schema.arguments import check_ack, check_optional_string, check_peer_id, check_string
from aqua_compat.schema.json_codec import to_json
from aqua_compat.schema.shapes import (
    chosen,
    created_as_json,
    key_as_json,
    listed_as_json,
    policy_as_json,
    registered_as_json,
    removed_as_json,
    resolved_as_json,
    unregistered_as_json,
)
from overlay.tasks import in_thread
from registry.client.node_status import NodeStatus
from registry.client.registry import DEFAULT_TIMEOUT
from registry.client.results import Resolved
from registry.codes import Code
from registry.errors import InvalidValue
from registry.health.state import HealthState
from registry.model.decoding import decode_key, decode_metadata
from registry.model.endpoints import Instance, Selection
from registry.model.history import HistoryEvent
from registry.model.names import Names
from registry.model.owner_index import ListedResource
from registry.model.signing import key_id_of
from registry.model.trusted_issuers import Trusted
from registry.model.values import MAX_LABEL, Key, Record, encode
from registry.node import Node
from registry.protocol.error_info import texts
from registry.protocol.index_messages import MOST_LISTED
from registry.protocol.messages import Item
from registry.watch.watch_event import EventKind

if TYPE_CHECKING:
    from aqua_compat.agent.agent import Agent

REACH: Final = 3.0  # seconds for each peer to answer, of those that are asked whether they are there
ME: Final = "me"  # the node itself, where a peer is named
LONGEST: Final = 600.0  # seconds that a request may ask for
MOST_TRUSTED: Final = 64
LONGEST_NAME: Final = MAX_LABEL + 65  # characters of an id or a name in a path

Factor = Annotated[int, msgspec.Meta(ge=1, le=32_767)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]
Base64 = Annotated[str, msgspec.Meta(max_length=180_000)]


class NewResource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A resource to create. `factor`: replicas that must have it on disk; `timeout`: seconds for all of it."""

    label: str
    factor: Factor = 1
    timeout: Seconds = DEFAULT_TIMEOUT


class NewRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service to register: on this node by default, with a value for its users."""

    value: str = ""
    peer_id: str | None = None
    service_id: str | None = None
    factor: Factor = 1
    timeout: Seconds = DEFAULT_TIMEOUT


class SignedWrite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody signed: a key and under it a record or tombstone, or a key alone, or a key tombstone; each as its
    CBOR in base64."""

    key_or_tombstone: Base64
    state: Base64 = ""
    factor: Factor = 1
    timeout: Seconds = DEFAULT_TIMEOUT


class RecordToHost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metadata of a record, signed by its issuer, for its host to sign; each as its CBOR in base64."""

    key: Base64
    metadata: Base64
    timeout: Seconds = DEFAULT_TIMEOUT


class NativeApi:
    """Answers the operations of `OPERATIONS` on one node."""

    def __init__(
        self,
        node: Node,
        services: Services,
        feeds: Feeds,
        names: Mapping[str, str] | None = None,
        metrics: Exposition | None = None,
        agent: Agent | None = None,
    ) -> None:
        """`names`: the aliases of owners; `me` is the node. `metrics`: what figures there are. `agent`: keeps this
        machine's services registered."""
        self.agent = agent
        self._names = Names(names, node.peer.peer_id)
        self._monitoring = Monitoring(node, self._names, metrics or Exposition())
        self._node = node
        self._registry = node.registry
        self._services = services
        self._feeds = feeds

    async def status(self, call: OperationCall) -> Result:
        """What the node says of itself."""
        return Result(to_json(await self._registry.status(timeout=call.parameters["timeout"])))

    async def members(self, call: OperationCall) -> Result:  # noqa: ARG002 - the row's signature
        """The members that the node is linked to."""
        return Result(list(self._node.peer.members()))

    async def network(self, call: OperationCall) -> Result:
        """The members that the node knows, where each is in the keyspace, and whose resources it can list."""
        given, resource = call.parameters["resource"], None
        if given is not None:
            resource_id = self._id_of(given)
            keepers = await self._registry.neighbours(resource_id, timeout=call.parameters["timeout"])
            resource = resource_on_ring(resource_id, keepers)
        return Result(to_json(network_view(self._node.peer, self._names, resource)))

    async def neighbours(self, call: OperationCall) -> Result:
        """The members that keep a resource."""
        found = await self._registry.neighbours(self._resource_id(call), timeout=call.parameters["timeout"])
        return Result(list(found))

    async def id_of(self, call: OperationCall) -> Result:
        """The id that a label has."""
        owner = call.parameters["owner"] or self._node.peer.peer_id
        label = call.parameters["label"]
        return Result(created_as_json(key_id_of(label, owner), self._names.name(label, owner)))

    async def create(self, call: OperationCall) -> Result:
        """Creates a resource."""
        body: NewResource = call.body
        created = await self._registry.create_resource(
            _text("label", body.label), factor=body.factor, timeout=body.timeout
        )
        if created.resource_id is None:
            raise Problem.failed(created.code, created.errors, "the resource wasn't created", stored=created.stored)
        name = self._names.name(body.label, self._node.peer.peer_id)
        return Result(created_as_json(created.resource_id, name), created.errors)

    async def list_resources(self, call: OperationCall) -> Result:
        """A page of an owner's resources."""
        given = call.parameters
        try:
            owner = self._names.owner(given["owner"])
        except InvalidValue as error:
            raise Problem.invalid(str(error)) from None
        found = await self._registry.list_resources(
            owner, after=given["after"], limit=given["limit"], ack=given["ack"], timeout=given["timeout"]
        )
        if found.resources is None:
            raise Problem.failed(found.code, found.errors, f"the resources of {owner} weren't listed")
        return Result(listed_as_json(found.resources, found.after, self._names), found.errors)

    async def show(self, call: OperationCall) -> Result:
        """A resource's key."""
        key, errors = await self._key(call)
        return Result(key_as_json(key, self._names), errors)

    async def policy(self, call: OperationCall) -> Result:
        """Who may register on a resource."""
        key, errors = await self._key(call)
        return Result(policy_as_json(key), errors)

    async def remove(self, call: OperationCall) -> Result:
        """Removes a resource of the node's."""
        resource_id, options = self._resource_id(call), _write_options(call)
        done = await self._registry.remove_resource(resource_id, **options)
        if not done.success:
            raise Problem.failed(
                done.code, done.errors, f"the resource {_given(call)} wasn't removed", stored=done.stored
            )
        return Result(removed_as_json(resource_id), done.errors)

    async def history(self, call: OperationCall) -> Result:
        """What happened to a resource on the node."""
        events = await self._registry.explain(self._resource_id(call), timeout=call.parameters["timeout"])
        return Result(Items(events))

    async def records(self, call: OperationCall) -> Result:
        """The live records of a resource."""
        given, resource_id = call.parameters, self._resource_id(call)
        ack, timeout, trusted, everything = given["ack"], given["timeout"], _trusted(call), given["all"]
        wanted = Selection(tags=given["tag"], metadata=dict(given["meta"]))
        if everything and given["reachable"]:
            raise Problem.invalid("all and reachable exclude each other")
        if given["reachable"]:
            try:
                found = await self._services.reachable(resource_id, ack, timeout, REACH, trusted)
            except NoProvider as error:
                raise Problem(503, Code.FAILED, str(error)) from None
            resolved = Resolved(tuple(found), ())
        else:
            resolved = await self._registry.resolve_resource(
                resource_id, ack, timeout=timeout, trusted=trusted, include_down=everything
            )
        if resolved.records is None:
            raise Problem.failed(resolved.code, resolved.errors, f"{_given(call)} wasn't resolved")
        # To choose, all values are parsed: as much work as is too long for the loop.
        left_out = {} if everything else resolved.left_out
        instances = await in_thread(chosen, resolved.records, wanted, left_out) if wanted else None
        health = resolved.health if everything else None
        return Result(Items(resolved_as_json(resolved.records, instances, health, left_out)), resolved.errors)

    async def register(self, call: OperationCall) -> Result:
        """Registers a service in the node's name."""
        body: NewRecord = call.body
        resource_id = self._resource_id(call)
        peer_id = self._node.peer.peer_id if body.peer_id is None else body.peer_id
        done = await self._registry.register_service(
            resource_id,
            _text("value", body.value),
            _checked(check_peer_id, "peer_id", peer_id),
            _checked(check_optional_string, "service_id", body.service_id),
            factor=body.factor,
            timeout=body.timeout,
        )
        if not done.success:
            raise Problem.failed(
                done.code, done.errors, f"the service wasn't registered on {_given(call)}", stored=done.stored
            )
        return Result(registered_as_json(), done.errors)

    async def unregister(self, call: OperationCall) -> Result:
        """Ends a registration of the node's."""
        resource_id, peer_id = self._resource_id(call), call.parameters["peer_id"]
        peer_id = self._node.peer.peer_id if peer_id == ME else peer_id
        done = await self._registry.unregister_service(resource_id, peer_id, **_write_options(call))
        if not done.success:
            what = f"the service wasn't unregistered from {_given(call)}"
            raise Problem.failed(done.code, done.errors, what, stored=done.stored)
        return Result(unregistered_as_json(done), done.errors)

    async def write(self, call: OperationCall) -> Result:
        """Writes what somebody signed, as it is."""
        body: SignedWrite = call.body
        item = Item.decoded(_bytes("key_or_tombstone", body.key_or_tombstone), _bytes("state", body.state))
        outcome = await self._node.parts.node_api.write(item, factor=body.factor, timeout=body.timeout)
        if outcome.stored < body.factor:
            codes = [error.known_code for error in outcome.errors]
            code = Code.TOO_FEW_REPLICAS if outcome.stored or not codes else codes[0]
            raise Problem.failed(
                code, texts(outcome.errors), "it wasn't written to as many replicas as asked for", stored=outcome.stored
            )
        written = {"resource_id": item.key_id, "stored": outcome.stored, "write_id": outcome.write_id}
        return Result(to_json(written), texts(outcome.errors))

    async def countersign(self, call: OperationCall) -> Result:
        """Has a record signed by its host."""
        body: RecordToHost = call.body
        key, metadata = decode_key(_bytes("key", body.key)), decode_metadata(_bytes("metadata", body.metadata))
        record = await self._node.parts.node_api.countersign(key, metadata, timeout=body.timeout)
        return Result({"record": base64.b64encode(encode(record)).decode()})

    async def watch(self, call: OperationCall) -> HttpReply:
        """The changes of a resource, as server-sent events."""
        resource_id, trusted = self._resource_id(call), _trusted(call)
        last = call.parameters["last_event_id"] or call.request.headers.get("last-event-id", "")
        self._feeds.check_room()

        async def events() -> AsyncGenerator[bytes, None]:
            async with self._feeds.joined(resource_id, trusted) as feed, aclosing(feed.after(last)) as pieces:
                async for piece in pieces:
                    yield piece

        return HttpReply(200, [("Content-Type", "text/event-stream")], events(), is_endless=True)

    async def metrics(self, call: OperationCall) -> HttpReply:  # noqa: ARG002 - the row's signature
        """The node's figures, for Prometheus."""
        return await self._monitoring.metrics()

    async def alive(self, call: OperationCall) -> HttpReply:  # noqa: ARG002 - the row's signature
        """That the node answers."""
        await trio.lowlevel.checkpoint()
        return HttpReply(200, [("Content-Type", JSON)], b'{"alive":true}')

    async def ready(self, call: OperationCall) -> HttpReply:  # noqa: ARG002 - the row's signature
        """Whether requests should be sent to the node."""
        return await self._monitoring.ready()

    async def targets(self, call: OperationCall) -> HttpReply:
        """Where the instances of resources are, for Prometheus."""
        given = call.parameters
        wanted = Selection(tags=given["tag"], metadata=dict(given["meta"]))
        try:
            return await self._monitoring.targets(given["resource"], wanted, everything=given["all"])
        except InvalidValue as error:
            raise Problem.invalid(str(error)) from None

    async def description(self, call: OperationCall) -> HttpReply:  # noqa: ARG002 - the row's signature
        """This API's own description."""
        from aqua_compat.http.openapi import description  # noqa: PLC0415 - it is made from the table below

        return HttpReply(200, [("Content-Type", "application/json")], description())

    async def _key(self, call: OperationCall) -> tuple[Key, tuple[str, ...]]:
        resource_id, given = self._resource_id(call), call.parameters
        found = await self._registry.get_resource(resource_id, ack=given["ack"], timeout=given["timeout"])
        if found.key is None:
            raise Problem.failed(found.code, found.errors, f"the resource {_given(call)} wasn't found")
        return found.key, found.errors

    def _resource_id(self, call: OperationCall) -> str:
        """The id of the resource that the path names, by its id or its name. Raises Problem."""
        return self._id_of(_given(call))

    def _id_of(self, text: str) -> str:
        try:
            return self._names.resource_id(text)
        except InvalidValue as error:
            raise Problem.invalid(str(error)) from None


def _given(call: OperationCall) -> str:
    """The resource as the path names it."""
    given: str = call.parameters["resource_id"]
    return given


def _checked(check: Any, name: str, value: object) -> Any:
    try:
        return check(name, value)
    except (ValueError, TypeError) as error:
        raise Problem.invalid(str(error)) from None


def _text(name: str, value: str) -> str:
    text: str = _checked(check_string, name, value)
    return text


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem.invalid(f"{name} isn't base64") from None


def _trusted(call: OperationCall) -> Trusted | None:
    issuers, roots = call.parameters["trust"], call.parameters["trust_root"]
    if len(issuers) + len(roots) > MOST_TRUSTED:
        raise Problem.invalid(f"trust and trust_root name more than {MOST_TRUSTED} peers")
    if not issuers and not roots:
        return None
    return Trusted(issuers=tuple(sorted(set(issuers))), roots=tuple(sorted(set(roots))))


def _write_options(call: OperationCall) -> dict[str, Any]:
    return {"factor": call.parameters["factor"], "timeout": call.parameters["timeout"]}


def _resource(text: str) -> str:
    if len(text) > LONGEST_NAME:
        raise ValueError(f"has {len(text)} characters, more than {LONGEST_NAME}")
    return check_string("it", text)


def _entry(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"is {text[:80]!r}, without `=`; give KEY=VALUE, as in zone=eu")
    return key, value


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= LONGEST:  # false of what is no number, too
        raise ValueError(f"is {text[:20]}, not seconds within 0 and {LONGEST:g}")
    return seconds


def _page_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= MOST_LISTED):
        raise ValueError(f"is {text[:20]!r}, not a number from 1 to {MOST_LISTED}")
    return int(text)


def _count(least: int) -> Any:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            raise ValueError(f"is {text[:20]!r}, not a number from {least} to 32767")
        count = check_ack("it", int(text))
        if count < least:
            raise ValueError(f"is {count}, less than {least}")
        return count

    return parse


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"is {text[:20]!r}, neither true nor false")
    return text == "true"


def _peer(text: str) -> str:
    return check_peer_id("it", text)


def _peer_or_me(text: str) -> str:
    return ME if text == ME else check_peer_id("it", text)


def _plain(text: str) -> str:
    return check_string("it", text)


_PEER_ID: Final[Schema] = {"type": "string", "description": "base58 of a peer id"}
_RESOURCE: Final = Parameter("resource_id", "path", "id or name of the resource", STRING, _resource, is_required=True)
_TIMEOUT: Final = Parameter(
    "timeout",
    "query",
    "seconds for the whole operation",
    {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST, "default": DEFAULT_TIMEOUT},
    _seconds,
    DEFAULT_TIMEOUT,
)
_FACTOR: Final = Parameter(
    "factor",
    "query",
    "replicas that must have the write on disk",
    {"type": "integer", "minimum": 1, "maximum": 32_767, "default": 1},
    _count(1),
    1,
)
_ACK: Final = Parameter(
    "ack",
    "query",
    "replicas that must have answered",
    {"type": "integer", "minimum": 0, "maximum": 32_767, "default": 1},
    _count(0),
    1,
)
_TRUST: Final = (
    Parameter("trust", "query", "show only what this peer registered, or is trusted otherwise", _PEER_ID, _peer, (),
              repeats=True),
    Parameter("trust_root", "query", "show only what comes with a certificate of this peer, or is trusted otherwise",
              _PEER_ID, _peer, (), repeats=True),
)  # fmt: skip
_WANTED: Final = (
    Parameter("tag", "query", "only instances with this tag, the heaviest first; of several with all", STRING, _plain,
              (), repeats=True),
    Parameter("meta", "query", "only instances with this metadata, as KEY=VALUE; of several with all", STRING, _entry,
              (), repeats=True),
)  # fmt: skip
_RECORD: Final = shape_of(Record)
_KEY: Final = object_of({**shape_of(Key)["properties"], "name": STRING})
_STATE: Final[dict[str, Schema]] = {
    "state": {"enum": [str(state) for state in HealthState]},
    "since": {"type": "integer"},
    "note": STRING,
}
_HEALTH: Final = object_of(
    {
        "up": {"type": "boolean"},
        "up_or_down_for": {"type": ["number", "null"]},
        "accusers": array_of(_PEER_ID),
        **_STATE,
        "instances": {"type": "object", "additionalProperties": object_of(_STATE)},
    },
    optional=("instances",),
)
_TOLD: Final = object_of({**_RECORD["properties"], "instances": array_of(shape_of(Instance))})
_RESOLVED: Final[Schema] = {"anyOf": [_TOLD, object_of({"record": _TOLD, "health": _HEALTH})]}
_NULLABLE_ID: Final[Schema] = {"type": ["string", "null"]}
_POLICY: Final[Schema] = {
    "anyOf": [
        {"type": "null"},
        object_of({"revision": {"type": "integer"}, "known": {"const": False}}),
        object_of(
            {
                "revision": {"type": "integer"},
                "known": {"const": True},
                "open": {"type": "boolean"},
                "allow": array_of(_PEER_ID),
                "roots": array_of(_PEER_ID),
                "deny": array_of(
                    object_of({"issuer": _PEER_ID, "host": _NULLABLE_ID, "until": {"type": ["integer", "null"]}})
                ),
                "hosts": array_of(_PEER_ID),
                "longest_chain": {"type": "integer"},
            }
        ),
    ]
}
_ID: Final = object_of({"resource_id": STRING, "name": STRING})
_LISTED: Final = object_of({**shape_of(ListedResource)["properties"], "name": STRING})
_EVENT: Final[Schema] = {
    "anyOf": [
        object_of({"event": {"const": "snapshot"}, "records": array_of(_RECORD)}),
        object_of(
            {
                "event": {"enum": [kind.value for kind in EventKind if kind is not EventKind.SNAPSHOT]},
                "record": _RECORD,
                "coalesced": {"type": "integer"},
                "reason": STRING,
                "health": _HEALTH,
            },
            optional=("reason", "health"),
        ),
    ]
}
_READ, _WRITE = AccessLevel.READ, AccessLevel.WRITE
_OF_RESOURCE: Final = "/v1/aqua/resources/{resource_id}"

OPERATIONS: Final = (
    HttpOperation(
        "GET", "/v1/aqua/status", "status", "How the node is", _READ, (_TIMEOUT,), None, "status",
        shape_of(NodeStatus), NativeApi.status, command="peers",
    ),
    HttpOperation(
        "GET", "/v1/aqua/peers", "peers", "The members that the node is linked to", _READ, (), None, "peers",
        array_of(_PEER_ID), NativeApi.members,
    ),
    HttpOperation(
        "GET", "/v1/aqua/network", "network",
        "The members that the node knows, by their places on the ring of the keyspace, and the owners that it names",
        _READ,
        (
            Parameter("resource", "query", "id or name of a resource: also where it is, and who keeps it", STRING,
                      _resource),
            _TIMEOUT,
        ),
        None, "network", shape_of(NetworkView), NativeApi.network,
    ),
    HttpOperation(
        "GET", "/v1/aqua/resource-id", "resource_id", "The id that a label has; asks nobody", _READ,
        (
            Parameter("label", "query", "label of the resource", STRING, _plain, is_required=True),
            Parameter("owner", "query", "peer id of its owner; this node by default", _PEER_ID, _peer),
        ),
        None, "resource-id", _ID, NativeApi.id_of, command="resource id",
    ),
    HttpOperation(
        "POST", "/v1/aqua/resources", "create_resource", "Create a resource that this node owns", _WRITE, (),
        NewResource, "resource-id", _ID, NativeApi.create, 201, command="resource create",
    ),
    HttpOperation(
        "GET", "/v1/aqua/owners/{owner}/resources", "list_resources",
        "An owner's resources in order of their labels, removed and expired ones too, a page at a time", _READ,
        (
            Parameter("owner", "path", "alias or peer id of the owner; `me` for this node", STRING, _plain,
                      is_required=True),
            Parameter("after", "query", "the `after` of the page before; the first page without", STRING, _plain),
            Parameter("limit", "query", "resources at most",
                      {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": MOST_LISTED}, _page_size,
                      MOST_LISTED),
            _ACK, _TIMEOUT,
        ),
        None, "resource-list",
        object_of({"resources": array_of(_LISTED), "after": {"type": ["string", "null"]}}), NativeApi.list_resources,
        command="resource list",
    ),
    HttpOperation(
        "GET", _OF_RESOURCE, "show_resource", "A resource's key: owner, label and times", _READ,
        (_RESOURCE, _ACK, _TIMEOUT), None, "key", _KEY, NativeApi.show, command="resource show",
    ),
    HttpOperation(
        "DELETE", _OF_RESOURCE, "remove_resource", "Remove a resource that this node owns, and all on it", _WRITE,
        (_RESOURCE, _FACTOR, _TIMEOUT), None, "removed", object_of({"removed": STRING}), NativeApi.remove,
        command="resource remove",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/history", "explain", "What happened to a resource on this node, and why", _READ,
        (_RESOURCE, _TIMEOUT), None, "history", array_of(shape_of(HistoryEvent)), NativeApi.history,
        command="resource explain",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/policy", "policy", "Who may register on a resource", _READ,
        (_RESOURCE, _ACK, _TIMEOUT), None, "policy",
        object_of({"resource_id": STRING, "label": STRING, "owner": _PEER_ID, "policy": _POLICY}), NativeApi.policy,
        command="resource policy",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/peers", "resource_peers", "The members that keep a resource, nearest first", _READ,
        (_RESOURCE, _TIMEOUT), None, "peers", array_of(_PEER_ID), NativeApi.neighbours, command="peers",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/records", "resolve", "The live records of a resource", _READ,
        (
            _RESOURCE, _ACK, _TIMEOUT, *_TRUST,
            Parameter("reachable", "query", "only those whose peer answers now", {"type": "boolean"}, _flag, False),
            Parameter("all", "query", "also those that are down or don't pass, and how each is", {"type": "boolean"},
                      _flag, False),
            *_WANTED,
        ),
        None, "records", array_of(_RESOLVED), NativeApi.records, command="resolve",
    ),
    HttpOperation(
        "POST", f"{_OF_RESOURCE}/records", "register", "Register a service, in this node's name", _WRITE,
        (_RESOURCE,), NewRecord, "registered", object_of({"success": {"const": True}}), NativeApi.register, 201,
        command="service register",
    ),
    HttpOperation(
        "DELETE", f"{_OF_RESOURCE}/records/{{peer_id}}", "unregister",
        "End what this node registered for a peer; on a resource of its own, deny what others did", _WRITE,
        (_RESOURCE, Parameter("peer_id", "path", "peer that the record names; `me` for this node", STRING, _peer_or_me,
                   is_required=True),
         _FACTOR, _TIMEOUT),
        None, "unregistered",
        object_of(
            {"success": {"const": True}, "was_registered": {"type": "boolean"}, "denied": array_of(_PEER_ID)},
            optional=("denied",),
        ),
        NativeApi.unregister, command="service unregister",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/watch", "watch",
        "A snapshot of a resource's records, then each change: server-sent events, whose ids go on after a break",
        _READ,
        (_RESOURCE, *_TRUST,
         Parameter("last_event_id", "query", "the last event that is known, where the header Last-Event-ID can't be"
                   " set", STRING, _plain)),
        None, "watch-event", _EVENT, NativeApi.watch, media_type="text/event-stream", command="watch",
    ),
    HttpOperation(
        "POST", "/v1/aqua/writes", "write", "Write what a client signed with its own key, as it is", _WRITE, (),
        SignedWrite, "written",
        object_of({"resource_id": STRING, "stored": {"type": "integer"}, "write_id": STRING}), NativeApi.write, 201,
    ),
    HttpOperation(
        "POST", "/v1/aqua/host-signatures", "countersign",
        "Have a record signed by the peer that it names as host, this one or another", _WRITE, (), RecordToHost,
        "host-signature", object_of({"record": STRING}), NativeApi.countersign,
    ),
    *AGENT_OPERATIONS,
    HttpOperation(
        "GET", "/metrics", "metrics", "The node's figures, as Prometheus reads them", _READ, (), None, "metrics",
        STRING, NativeApi.metrics, media_type=METRICS,
    ),
    HttpOperation(
        "GET", "/healthz", "healthz", "That the node answers", _READ, (), None, "healthz",
        object_of({"alive": {"const": True}}), NativeApi.alive, is_bare=True,
    ),
    HttpOperation(
        "GET", "/readyz", "readyz",
        "Whether requests should be sent to the node: it is a member, linked to others, has caught up, and its clock is"
        " right; 503 where not",
        _READ, (), None, "readyz",
        object_of({"ready": {"type": "boolean"}, "not_ready": array_of(STRING)}), NativeApi.ready, is_bare=True,
    ),
    HttpOperation(
        "GET", "/v1/http_sd", "http_sd", "Where instances are, as `http_sd_configs` of Prometheus has it", _READ,
        (
            Parameter("resource", "query", "id or name of a resource; some are given one by one", STRING, _resource, (),
                      repeats=True),
            Parameter("all", "query", "also those that are down or don't pass", {"type": "boolean"}, _flag, False),
            *_WANTED,
        ),
        None, "http_sd",
        array_of(object_of({"targets": array_of(STRING),
                            "labels": {"type": "object", "additionalProperties": STRING}})),
        NativeApi.targets, is_bare=True,
    ),
    HttpOperation(
        "GET", "/v1/aqua/openapi.json", "openapi", "This description", _READ, (), None, "openapi", {"type": "object"},
        NativeApi.description, is_bare=True,
    ),
)  # fmt: skip
"""Every operation."""
