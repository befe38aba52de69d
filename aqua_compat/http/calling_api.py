"""The part of the native API that calls services: on one peer, or on those registered on a resource.

A call is carried to its end when its asker leaves, since what it does can't be taken back; its deadline bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from aqua_compat.http.json_shape import STRING, Schema, array_of, object_of
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.operations import HttpOperation, OperationCall, Result
from aqua_compat.http.parameters import LONGEST, PEER, PEER_ID, RESOURCE, TIMEOUT
from aqua_compat.http.problems import Problem
from aqua_compat.rpc.errors import (
    BadAnswer,
    BadArguments,
    CallInterrupted,
    NoProvider,
    NoSuchFunction,
    NoSuchService,
    PeerOverloaded,
    PeerUnreachable,
    RaisedByService,
    ServiceError,
    TooSlow,
)
from aqua_compat.schema.arguments import check_peer_id
from aqua_compat.schema.json_codec import to_json
from overlay.tasks import in_thread
from registry.client.registry import DEFAULT_TIMEOUT
from registry.codes import Code, Kind
from registry.model.trusted_issuers import Trusted

if TYPE_CHECKING:
    from aqua_compat.http.native_api import NativeApi

_MOST_ARGUMENTS: Final = 64
_MOST_PEERS: Final = 64

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Arguments = Annotated[list[Any], msgspec.Meta(max_length=_MOST_ARGUMENTS)]
Peers = Annotated[list[str], msgspec.Meta(max_length=_MOST_PEERS)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]


class PeerCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function of a service of one peer. `via`: relays to reach it through, looked up without; `timeout`: seconds."""

    service_id: Name
    function: Name
    arguments: Arguments = []
    via: Peers = []
    timeout: Seconds = DEFAULT_TIMEOUT


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function of what is registered on a resource: of one provider, or with `all` of each. `service_id`: where the
    record names none. `idempotent`: the next provider is called also when a call that failed may have been carried
    out. `trust`, `trust_root`: only providers that these registered, or certified."""

    function: Name
    arguments: Arguments = []
    service_id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    all: bool = False
    strategy: Literal["random", "round robin", "least latency", "weighted"] = "random"
    idempotent: bool = False
    ack: Annotated[int, msgspec.Meta(ge=0, le=32_767)] = 1
    trust: Peers = []
    trust_root: Peers = []
    timeout: Seconds = DEFAULT_TIMEOUT


_TOLD: Final[tuple[tuple[type[ServiceError], int, str, Kind], ...]] = (
    (CallInterrupted, 502, "interrupted", Kind.UNKNOWN),
    (PeerUnreachable, 504, Code.UNREACHABLE, Kind.NETWORK),
    (NoSuchService, 404, "no-service", Kind.FINAL),
    (NoSuchFunction, 404, "no-function", Kind.FINAL),
    (BadArguments, 422, "bad-arguments", Kind.FINAL),
    (RaisedByService, 502, "raised", Kind.FINAL),
    (TooSlow, 504, "too-slow", Kind.UNKNOWN),
    (PeerOverloaded, 503, Code.OVERLOADED, Kind.LOAD),
    (BadAnswer, 502, "bad-answer", Kind.FINAL),
)
"""How each failure of a call is told: status, code, and what asking again may come to. Derived classes come first."""


def _problem(error: ServiceError) -> Problem:
    status, code, kind = next((told[1:] for told in _TOLD if isinstance(error, told[0])), (502, "failed", Kind.UNKNOWN))
    return Problem(status, code, str(error), extra={"kind": kind.value, "peer_id": error.peer_id})


async def _call_peer(api: NativeApi, call: OperationCall) -> Result:
    body: PeerCall = call.body
    on_peer = api.services.on(api.peer_of(call.parameters["peer_id"]), _peers("via", body.via), body.timeout)
    try:
        result = await on_peer.call(body.service_id, body.function, *body.arguments)
    except ServiceError as error:
        raise _problem(error) from error
    return Result(await in_thread(to_json, result))


async def _call_providers(api: NativeApi, call: OperationCall) -> Result:
    body: ProviderCall = call.body
    resource_id = api.resource_id(call)
    issuers, roots = _peers("trust", body.trust), _peers("trust_root", body.trust_root)
    trusted = Trusted(issuers=issuers, roots=roots) if issuers or roots else None
    try:
        if body.all:
            called = await api.services.call_all(
                resource_id, body.function, body.arguments, body.service_id, body.ack, body.timeout, trusted
            )
            told = [
                {
                    "peer_id": one.record.metadata.peer_id,
                    "result": one.result,
                    "error": None if one.error is None else one.error.reason,
                }
                for one in called
            ]
            return Result(await in_thread(to_json, told))
        result = await api.services.call_any(
            resource_id,
            body.function,
            body.arguments,
            strategy=body.strategy,
            idempotent=body.idempotent,
            service_id=body.service_id,
            ack=body.ack,
            timeout=body.timeout,
            trusted=trusted,
        )
    except ServiceError as error:
        raise _problem(error) from error
    except NoProvider as error:
        raise Problem(503, "no-provider", str(error)) from error
    return Result(await in_thread(to_json, result))


async def _services(api: NativeApi, call: OperationCall) -> Result:
    on_peer = api.services.on(api.peer_of(call.parameters["peer_id"]), (), call.parameters["timeout"])
    try:
        return Result(await in_thread(to_json, await on_peer.services()))
    except ServiceError as error:
        raise _problem(error) from error


def _peers(name: str, given: list[str]) -> tuple[str, ...]:
    try:
        return tuple(check_peer_id(name, each) for each in dict.fromkeys(given))
    except (ValueError, TypeError) as error:
        raise Problem.invalid(str(error)) from None


_ANY: Final[Schema] = {}
_OF_PEER: Final = "/v1/aqua/peers/{peer_id}"
_CALLED: Final = object_of({"peer_id": PEER_ID, "result": _ANY, "error": {"type": ["string", "null"]}})
_WRITE: Final = AccessLevel.WRITE

CALLING_OPERATIONS: Final = (
    HttpOperation(
        "GET", f"{_OF_PEER}/services", "services", "The services of a peer, and the functions of each",
        AccessLevel.READ, (PEER, TIMEOUT), None, "services",
        {"type": "object", "additionalProperties": array_of(STRING)}, _services, command="services",
    ),
    HttpOperation(
        "POST", f"{_OF_PEER}/calls", "call_peer", "Call a function of a service of a peer, as this node", _WRITE,
        (PEER,), PeerCall, "called", _ANY, _call_peer, command="call",
    ),
    HttpOperation(
        "POST", "/v1/aqua/resources/{resource_id}/calls", "call",
        "Call a function of a service that is registered on a resource, as this node: of one provider, whose result"
        " is told, or of all, of which each is",
        _WRITE, (RESOURCE,), ProviderCall, "provider-called", {"anyOf": [array_of(_CALLED), _ANY]}, _call_providers,
        command="call",
    ),
)  # fmt: skip
"""Its operations."""
