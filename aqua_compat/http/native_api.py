"""The native API, `/v1/aqua/...`: what each operation does; `native_operations` is their table.

What needs a key acts as the node's own; what is signed already goes to the network as it is.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import trio

from aqua_compat.api.services import Services
from aqua_compat.http.feeds import Feeds
from aqua_compat.http.message import JSON, HttpReply
from aqua_compat.http.metrics import Exposition
from aqua_compat.http.monitoring import Monitoring
from aqua_compat.http.network_view import network_view, resource_on_ring
from aqua_compat.http.operations import Items, OperationCall, Result
from aqua_compat.http.parameters import LONGEST, ME
from aqua_compat.http.problems import Problem
from aqua_compat.rpc.errors import NoProvider
from aqua_compat.schema.arguments import check_optional_string, check_peer_id, check_string
from aqua_compat.schema.json_codec import Json, to_json
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
from registry.client.registry import DEFAULT_TIMEOUT
from registry.client.results import Resolved
from registry.codes import Code
from registry.errors import InvalidValue
from registry.health.health_of_hosts import UNKNOWN_FOR
from registry.model.decoding import decode_key, decode_metadata
from registry.model.endpoints import Selection, by_distance, by_weight
from registry.model.names import OWN, Names
from registry.model.signing import key_id_of
from registry.model.trusted_issuers import Trusted
from registry.model.values import Key, encode
from registry.node import Node
from registry.protocol.error_info import texts
from registry.protocol.messages import Item

if TYPE_CHECKING:
    from aqua_compat.agent.agent import Agent

REACH: Final = 3.0  # seconds for each peer to answer, of those that are asked whether they are there
MOST_TRUSTED: Final = 64

Factor = Annotated[int, msgspec.Meta(ge=1, le=32_767)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]
TimeToLive = Annotated[float, msgspec.Meta(ge=0)]  # the host's settings say how long it may be
Base64 = Annotated[str, msgspec.Meta(max_length=180_000)]


class NewResource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A resource to create. `factor`: replicas that must have it on disk; `timeout`: seconds for all of it."""

    label: str
    factor: Factor = 1
    timeout: Seconds = DEFAULT_TIMEOUT


class NewRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service to register: on this node by default, with a value for its users. `ttl`: seconds for which it passes
    after each report of its health, and not before the first one."""

    value: str = ""
    peer_id: str | None = None
    service_id: str | None = None
    ttl: TimeToLive | None = None
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
        names: Callable[[], Names] | None = None,
        metrics: Exposition | None = None,
        agent: Agent | None = None,
    ) -> None:
        """`names`: what names mean at the moment, by default without aliases; `me` is the node. `metrics`: what figures
        there are. `agent`: keeps this machine's services registered."""
        self.agent = agent
        known = Names(None, node.peer.peer_id)
        self._names_now = names or (lambda: known)
        self._monitoring = Monitoring(node, self._names_now, metrics or Exposition())
        self._node = node
        self.registry = node.registry
        self.services = services
        self._feeds = feeds

    @property
    def names(self) -> Names:
        """What names mean at the moment."""
        return self._names_now()

    async def status(self, call: OperationCall) -> Result:
        """What the node says of itself."""
        return Result(to_json(await self.registry.status(timeout=call.parameters["timeout"])))

    async def members(self, call: OperationCall) -> Result:  # noqa: ARG002 - the row's signature
        """The members that the node is linked to."""
        return Result(list(self._node.peer.members()))

    async def network(self, call: OperationCall) -> Result:
        """The members that the node knows, where each is in the keyspace, and whose resources it can list."""
        given, resource = call.parameters["resource"], None
        if given is not None:
            resource_id = self._id_of(given)
            keepers = await self.registry.neighbours(resource_id, timeout=call.parameters["timeout"])
            resource = resource_on_ring(resource_id, keepers)
        return Result(to_json(network_view(self._node.peer, self.names, resource)))

    async def presence(self, call: OperationCall) -> Result:
        """Whether a peer is up."""
        peer_id, known = self.peer_of(call.parameters["peer_id"]), self._node.parts.health_of_hosts
        await known.settle([peer_id], min(call.parameters["timeout"], UNKNOWN_FOR))
        standing = None if peer_id == self._node.peer.peer_id else known.standing_of(peer_id)
        if standing is None:
            is_own = peer_id == self._node.peer.peer_id
            untold: dict[str, Json] = {"up": True, "up_or_down_for": None, "accusers": [], "stopped": False}
            return Result({"peer_id": peer_id, "known": is_own, **untold})
        lasted = round(standing.since, 1) if standing.since < math.inf else None
        return Result(
            {
                "peer_id": peer_id,
                "known": standing.is_known,
                "up": standing.is_up,
                "up_or_down_for": lasted,
                "accusers": list(standing.accusers),
                "stopped": standing.has_left,
            }
        )

    async def neighbours(self, call: OperationCall) -> Result:
        """The members that keep a resource."""
        found = await self.registry.neighbours(self.resource_id(call), timeout=call.parameters["timeout"])
        return Result(list(found))

    async def id_of(self, call: OperationCall) -> Result:
        """The id that a label has."""
        owner = self._owner(call.parameters["owner"] or OWN)
        label = call.parameters["label"]
        return Result(created_as_json(key_id_of(label, owner), self.names.name(label, owner)))

    def _owner(self, word: str) -> str:
        try:
            return self.names.owner(word)
        except InvalidValue as error:
            raise Problem.invalid(str(error)) from None

    async def create(self, call: OperationCall) -> Result:
        """Creates a resource."""
        body: NewResource = call.body
        created = await self.registry.create_resource(
            _text("label", body.label), factor=body.factor, timeout=body.timeout
        )
        if created.resource_id is None:
            raise Problem.failed(created.code, created.errors, "the resource wasn't created", stored=created.stored)
        name = self.names.name(body.label, self._node.peer.peer_id)
        return Result(created_as_json(created.resource_id, name), created.errors)

    async def list_resources(self, call: OperationCall) -> Result:
        """A page of an owner's resources."""
        given = call.parameters
        owner = self._owner(given["owner"])
        found = await self.registry.list_resources(
            owner, after=given["after"], limit=given["limit"], ack=given["ack"], timeout=given["timeout"]
        )
        if found.resources is None:
            raise Problem.failed(found.code, found.errors, f"the resources of {owner} weren't listed")
        return Result(listed_as_json(found.resources, found.after, self.names), found.errors)

    async def show(self, call: OperationCall) -> Result:
        """A resource's key."""
        key, errors = await self.key_of(call, call.parameters["ack"], call.parameters["timeout"])
        return Result(key_as_json(key, self.names), errors)

    async def policy(self, call: OperationCall) -> Result:
        """Who may register on a resource."""
        key, errors = await self.key_of(call, call.parameters["ack"], call.parameters["timeout"])
        return Result(policy_as_json(key, self.names), errors)

    async def remove(self, call: OperationCall) -> Result:
        """Removes a resource of the node's."""
        resource_id, options = self.resource_id(call), _write_options(call)
        done = await self.registry.remove_resource(resource_id, **options)
        if not done.success:
            raise Problem.failed(
                done.code, done.errors, f"the resource {_given(call)} wasn't removed", stored=done.stored
            )
        return Result(removed_as_json(resource_id), done.errors)

    async def history(self, call: OperationCall) -> Result:
        """What happened to a resource on the node."""
        events = await self.registry.explain(self.resource_id(call), timeout=call.parameters["timeout"])
        return Result(Items(events))

    async def records(self, call: OperationCall) -> Result:
        """The live records of a resource."""
        given, resource_id = call.parameters, self.resource_id(call)
        ack, timeout, trusted, everything = given["ack"], given["timeout"], _trusted(call), given["all"]
        wanted = Selection(tags=given["tag"], metadata=dict(given["meta"]))
        if everything and given["reachable"]:
            raise Problem.invalid("all and reachable exclude each other")
        if given["reachable"]:
            try:
                found = await self.services.reachable(resource_id, ack, timeout, REACH, trusted)
            except NoProvider as error:
                raise Problem(503, Code.FAILED, str(error)) from None
            resolved = Resolved(tuple(found), ())
        else:
            resolved = await self.registry.resolve_resource(
                resource_id, ack, timeout=timeout, trusted=trusted, include_down=everything
            )
        if resolved.records is None:
            raise Problem.failed(resolved.code, resolved.errors, f"{_given(call)} wasn't resolved")
        # To choose, all values are parsed: as much work as is too long for the loop.
        left_out = {} if everything else resolved.left_out
        hosts = {record.metadata.peer_id for record in resolved.records}
        distances = {host: self._node.peer.distance_to(host) for host in hosts}
        order = by_distance(distances.__getitem__) if given["near"] else by_weight
        is_chosen = bool(wanted) or given["near"]
        instances = await in_thread(chosen, resolved.records, wanted, left_out, order) if is_chosen else None
        health = resolved.health if everything else None
        return Result(Items(resolved_as_json(resolved.records, instances, health, left_out)), resolved.errors)

    async def register(self, call: OperationCall) -> Result:
        """Registers a service in the node's name."""
        body: NewRecord = call.body
        resource_id = self.resource_id(call)
        peer_id = self._node.peer.peer_id if body.peer_id is None else body.peer_id
        done = await self.registry.register_service(
            resource_id,
            _text("value", body.value),
            _checked(check_peer_id, "peer_id", peer_id),
            _checked(check_optional_string, "service_id", body.service_id),
            ttl=body.ttl,
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
        resource_id, peer_id = self.resource_id(call), call.parameters["peer_id"]
        peer_id = self.peer_of(peer_id)
        issuer, until = call.parameters["issuer"], call.parameters["until"]
        done = await self.registry.unregister_service(
            resource_id,
            peer_id,
            issuer=None if issuer is None else self.peer_of(issuer),
            until=until,
            **_write_options(call),
        )
        if not done.success:
            what = f"the service wasn't unregistered from {_given(call)}"
            raise Problem.failed(done.code, done.errors, what, stored=done.stored)
        return Result(unregistered_as_json(done, peer_id, until), done.errors)

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
        resource_id, trusted, everything = self.resource_id(call), _trusted(call), call.parameters["all"]
        last = call.parameters["last_event_id"] or call.request.headers.get("last-event-id", "")
        client = call.request.client
        self._feeds.check_room(client)

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                async with (
                    self._feeds.joined(resource_id, trusted, client, include_down=everything) as feed,
                    aclosing(feed.after(last)) as pieces,
                ):
                    async for piece in pieces:
                        yield piece
            except Problem as problem:  # others took the last places while the head was sent
                yield f": {problem.detail}\nretry: {1000 * problem.retry_after:.0f}\n\n".encode()

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

    async def key_of(self, call: OperationCall, ack: int, timeout: float) -> tuple[Key, tuple[str, ...]]:
        """The key of the resource that the path names, and warnings. Raises Problem."""
        found = await self.registry.get_resource(self.resource_id(call), ack=ack, timeout=timeout)
        if found.key is None:
            raise Problem.failed(found.code, found.errors, f"the resource {_given(call)} wasn't found")
        return found.key, found.errors

    def resource_id(self, call: OperationCall) -> str:
        """The id of the resource that the path names, by its id or its name. Raises Problem."""
        return self._id_of(_given(call))

    def peer_of(self, text: str) -> str:
        """The id of a peer that is given as such, or as `me`."""
        return self._node.peer.peer_id if text == ME else text

    def _id_of(self, text: str) -> str:
        try:
            return self.names.resource_id(text)
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
