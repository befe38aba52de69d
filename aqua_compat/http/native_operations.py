"""The table of the native API's operations."""

from __future__ import annotations

from typing import Final

from aqua_compat.http.agent_api import AGENT_OPERATIONS
from aqua_compat.http.calling_api import CALLING_OPERATIONS
from aqua_compat.http.health_api import HEALTH_OPERATIONS
from aqua_compat.http.json_shape import STRING, array_of, object_of, shape_of
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.metrics import MEDIA_TYPE as METRICS
from aqua_compat.http.native_api import NativeApi, NewRecord, NewResource, RecordToHost, SignedWrite
from aqua_compat.http.network_view import NetworkView
from aqua_compat.http.operations import HttpOperation, Parameter
from aqua_compat.http.parameters import (
    ACK,
    FACTOR,
    HOST,
    PEER,
    PEER_ID,
    RESOURCE,
    TIMEOUT,
    TRUST,
    WANTED,
    flag,
    moment,
    page_size,
    peer_or_me,
    plain,
    resource,
)
from aqua_compat.http.policy_api import POLICY_OPERATIONS
from aqua_compat.http.result_shapes import EVENT, ID, KEY, LISTED, POLICY_OF_RESOURCE, RESOLVED
from registry.client.node_status import NodeStatus
from registry.model.history import HistoryEvent
from registry.permission.policy import FOR_EVER
from registry.protocol.index_messages import MOST_LISTED

_READ, _WRITE = AccessLevel.READ, AccessLevel.WRITE
_OF_RESOURCE: Final = "/v1/aqua/resources/{resource_id}"

OPERATIONS: Final = (
    HttpOperation(
        "GET", "/v1/aqua/status", "status", "How the node is", _READ, (TIMEOUT,), None, "status",
        shape_of(NodeStatus), NativeApi.status, command="peers",
    ),
    HttpOperation(
        "GET", "/v1/aqua/peers", "peers", "The members that the node is linked to", _READ, (), None, "peers",
        array_of(PEER_ID), NativeApi.members,
    ),
    HttpOperation(
        "GET", "/v1/aqua/network", "network",
        "The members that the node knows, by their places on the ring of the keyspace, and the owners that it names",
        _READ,
        (
            Parameter("resource", "query", "id or name of a resource: also where it is, and who keeps it", STRING,
                      resource),
            TIMEOUT,
        ),
        None, "network", shape_of(NetworkView), NativeApi.network,
    ),
    HttpOperation(
        "GET", "/v1/aqua/resource-id", "resource_id", "The id that a label has; asks nobody", _READ,
        (
            Parameter("label", "query", "label of the resource", STRING, plain, is_required=True),
            Parameter("owner", "query", "alias or peer id of its owner; `me`, this node, by default", STRING, plain),
        ),
        None, "resource-id", ID, NativeApi.id_of, command="resource id",
    ),
    HttpOperation(
        "POST", "/v1/aqua/resources", "create_resource", "Create a resource that this node owns", _WRITE, (),
        NewResource, "resource-id", ID, NativeApi.create, 201, command="resource create",
    ),
    HttpOperation(
        "GET", "/v1/aqua/owners/{owner}/resources", "list_resources",
        "An owner's resources in order of their labels, removed and expired ones too, a page at a time", _READ,
        (
            Parameter("owner", "path", "alias or peer id of the owner; `me` for this node", STRING, plain,
                      is_required=True),
            Parameter("after", "query", "the `after` of the page before; the first page without", STRING, plain),
            Parameter("limit", "query", "resources at most",
                      {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": MOST_LISTED}, page_size,
                      MOST_LISTED),
            ACK, TIMEOUT,
        ),
        None, "resource-list",
        object_of({"resources": array_of(LISTED), "after": {"type": ["string", "null"]}}), NativeApi.list_resources,
        command="resource list",
    ),
    HttpOperation(
        "GET", _OF_RESOURCE, "show_resource", "A resource's key: owner, label and times", _READ,
        (RESOURCE, ACK, TIMEOUT), None, "key", KEY, NativeApi.show, command="resource show",
    ),
    HttpOperation(
        "DELETE", _OF_RESOURCE, "remove_resource", "Remove a resource that this node owns, and all on it", _WRITE,
        (RESOURCE, FACTOR, TIMEOUT), None, "removed", object_of({"removed": STRING}), NativeApi.remove,
        command="resource remove",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/history", "explain", "What happened to a resource on this node, and why", _READ,
        (RESOURCE, TIMEOUT), None, "history", array_of(shape_of(HistoryEvent)), NativeApi.history,
        command="resource explain",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/policy", "policy", "Who may register on a resource", _READ,
        (RESOURCE, ACK, TIMEOUT), None, "policy",
        POLICY_OF_RESOURCE, NativeApi.policy,
        command="resource policy",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/peers", "resource_peers", "The members that keep a resource, nearest first", _READ,
        (RESOURCE, TIMEOUT), None, "peers", array_of(PEER_ID), NativeApi.neighbours, command="peers",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/records", "resolve", "The live records of a resource", _READ,
        (
            RESOURCE, ACK, TIMEOUT, *TRUST,
            Parameter("reachable", "query", "only those whose peer answers now", {"type": "boolean"}, flag, False),
            Parameter("near", "query", "first those on this node, then those on peers that it is linked with",
                      {"type": "boolean"}, flag, False),
            Parameter("all", "query", "also those that are down or don't pass, and how each is", {"type": "boolean"},
                      flag, False),
            *WANTED,
        ),
        None, "records", array_of(RESOLVED), NativeApi.records, command="resolve",
    ),
    HttpOperation(
        "POST", f"{_OF_RESOURCE}/records", "register", "Register a service, in this node's name", _WRITE,
        (RESOURCE,), NewRecord, "registered", object_of({"success": {"const": True}}), NativeApi.register, 201,
        command="service register",
    ),
    HttpOperation(
        "DELETE", f"{_OF_RESOURCE}/records/{{peer_id}}", "unregister",
        "End what this node registered for a peer; on a resource of its own, deny what others did", _WRITE,
        (RESOURCE, HOST,
         Parameter("issuer", "query", "whose record is to end, and nobody else's; `me` for this node's", STRING,
                   peer_or_me),
         Parameter("until", "query", "in seconds since 1970, up to when what is issued is denied; none by default",
                   {"type": "integer", "minimum": 0}, moment, FOR_EVER),
         FACTOR, TIMEOUT),
        None, "unregistered",
        object_of(
            {
                "success": {"const": True},
                "was_registered": {"type": "boolean"},
                "denied": array_of(PEER_ID),
                "host": PEER_ID,
                "until": {"type": ["integer", "null"]},
            },
            optional=("denied", "host", "until"),
        ),
        NativeApi.unregister, command="service unregister",
    ),
    HttpOperation(
        "GET", f"{_OF_RESOURCE}/watch", "watch",
        "A snapshot of a resource's records, then each change: server-sent events, whose ids go on after a break",
        _READ,
        (RESOURCE, *TRUST,
         Parameter("all", "query", "tell also of those that are down or don't pass", {"type": "boolean"}, flag, False),
         Parameter("last_event_id", "query", "the last event that is known, where the header Last-Event-ID can't be"
                   " set", STRING, plain)),
        None, "watch-event", EVENT, NativeApi.watch, media_type="text/event-stream", command="watch",
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
    HttpOperation(
        "GET", "/v1/aqua/peers/{peer_id}/presence", "presence",
        "Whether a peer is up, for how long (null: not known), and by whose word it is down, or whether it said itself"
        " that it stops; each of which nothing is known counts as up",
        _READ, (PEER, TIMEOUT), None, "presence",
        object_of({"peer_id": PEER_ID, "known": {"type": "boolean"}, "up": {"type": "boolean"},
                   "up_or_down_for": {"type": ["number", "null"]}, "accusers": array_of(PEER_ID),
                   "stopped": {"type": "boolean"}}),
        NativeApi.presence,
    ),
    *CALLING_OPERATIONS,
    *POLICY_OPERATIONS,
    *HEALTH_OPERATIONS,
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
            Parameter("resource", "query", "id or name of a resource; some are given one by one", STRING, resource, (),
                      repeats=True),
            Parameter("all", "query", "also those that are down or don't pass", {"type": "boolean"}, flag, False),
            *WANTED,
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
