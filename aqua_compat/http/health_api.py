"""The part of the native API by which a program says how the services are that this node registered for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from aqua_compat.http.json_shape import STRING, object_of
from aqua_compat.http.message import AccessLevel
from aqua_compat.http.operations import HttpOperation, OperationCall, Result
from aqua_compat.http.parameters import HOST, LONGEST, PEER_ID, RESOURCE
from aqua_compat.http.problems import Problem
from registry.client.registry import DEFAULT_TIMEOUT
from registry.health.state import MAX_INSTANCE, HealthState

if TYPE_CHECKING:
    from aqua_compat.http.native_api import NativeApi

LONGEST_NOTE: Final = 4_096  # characters; what is kept of it is less


class ReportedHealth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a service is, and why, for people. `instance`: the id of the instance that it is said of, else it is said of
    the whole record; `ttl`: seconds for which it counts from now on, 0 ends that and what was said; `timeout`: seconds
    for all of it."""

    state: Literal["passing", "warning", "critical"]
    note: Annotated[str, msgspec.Meta(max_length=LONGEST_NOTE)] = ""
    instance: Annotated[str, msgspec.Meta(max_length=MAX_INSTANCE)] = ""
    ttl: Annotated[float, msgspec.Meta(ge=0)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] = DEFAULT_TIMEOUT


async def _report(api: NativeApi, call: OperationCall) -> Result:
    body: ReportedHealth = call.body
    resource_id, peer_id = api.resource_id(call), api.peer_of(call.parameters["peer_id"])
    done = await api.registry.report_health(
        resource_id,
        HealthState.named(body.state),
        body.note,
        peer_id=peer_id,
        instance=body.instance,
        ttl=body.ttl,
        timeout=body.timeout,
    )
    if not done.success:
        raise Problem.failed(done.code, done.errors, "the host of the service didn't take what was said of it")
    told = {"resource_id": resource_id, "peer_id": peer_id, "instance": body.instance, "state": body.state}
    return Result({**told}, done.errors)


HEALTH_OPERATIONS: Final = (
    HttpOperation(
        "POST", "/v1/aqua/resources/{resource_id}/records/{peer_id}/health", "report_health",
        "Say how a service is that this node registered, or one instance of it; within its time to live again",
        AccessLevel.WRITE, (RESOURCE, HOST), ReportedHealth, "reported-health",
        object_of({"resource_id": STRING, "peer_id": PEER_ID, "instance": STRING,
                   "state": {"enum": ["passing", "warning", "critical"]}}),
        _report,
    ),
)  # fmt: skip
"""Its operations."""
