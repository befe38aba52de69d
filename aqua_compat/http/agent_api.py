"""The part of the native API that is about this machine's services: `/v1/aqua/agent/...`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.service_files import BadDefinitions
from aqua_compat.http.feeds import HEARTBEAT
from aqua_compat.http.json_shape import STRING, array_of, object_of
from aqua_compat.http.message import AccessLevel, HttpReply
from aqua_compat.http.operations import HttpOperation, OperationCall, Parameter, Result
from aqua_compat.http.problems import Problem
from aqua_compat.schema.arguments import check_string
from aqua_compat.schema.json_codec import Json
from registry.codes import Code
from registry.errors import InvalidValue

if TYPE_CHECKING:
    from aqua_compat.agent.agent import Agent
    from aqua_compat.http.native_api import NativeApi

_LONGEST_CHECK: Final = 512  # characters
_LONGEST_NOTE: Final = 4_096  # characters; what is kept of it is less
_MOST_LEASES: Final = 192
_STATES: Final = {str(state): state for state in CheckState}


class ReportedCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a program says that it is, and why, for people."""

    state: Literal["passing", "warning", "critical"]
    note: Annotated[str, msgspec.Meta(max_length=_LONGEST_NOTE)] = ""


class LentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of services, TOML by a name that ends with `.toml`, else JSON."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
    text: str


async def _lend(api: NativeApi, call: OperationCall) -> HttpReply:
    body: LentFile = call.body
    agent = _agent(api)
    if agent.leases >= _MOST_LEASES:
        raise Problem(503, "overloaded", f"{agent.leases} leases are open, as many as may be", retry_after=10.0)
    try:
        await agent.check_lent(body.name, body.text)  # a fault is told by its status
    except BadDefinitions as error:
        raise _wrong(str(error), error) from None

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            async with agent.lent(body.name, body.text) as services:
                yield _event("lent", {"services": [service.id for service in services]})
                while True:
                    await trio.sleep(HEARTBEAT)
                    yield b": alive\n\n"
        except BadDefinitions as error:  # somebody else's came in between
            yield _event("refused", {"services": [], "errors": list(error.errors)})

    return HttpReply(200, [("Content-Type", "text/event-stream")], events(), is_endless=True)


def _event(event: str, result: Json) -> bytes:
    data = msgspec.json.encode({"schema": "aqua-registry.lease/1", "result": result})
    return f"event: {event}\ndata: ".encode() + data + b"\n\n"


async def _reload(api: NativeApi, call: OperationCall) -> Result:  # noqa: ARG001 - the row's signature
    try:
        agent = _agent(api)
        changes = await agent.reload()
    except BadDefinitions as error:
        raise _wrong(f"services are as before: {error}", error) from None
    return Result({name: list(ids) for name, ids in changes._asdict().items()}, agent.warnings)


async def _checks(api: NativeApi, call: OperationCall) -> Result:  # noqa: ARG001 - as above
    return Result(
        [
            {
                "service": each.key.service,
                "instance": each.key.instance,
                "check": each.key.check,
                "kind": each.kind,
                "state": str(each.shown.state),
                "note": each.shown.note,
                "lasted": round(each.lasted, 1),
            }
            for each in _agent(api).checks.states()
        ]
    )


async def _report(api: NativeApi, call: OperationCall) -> Result:
    body: ReportedCheck = call.body
    checks = _agent(api).checks
    try:
        key = checks.reported_by(call.parameters["check"])
    except InvalidValue as error:
        raise Problem(404, Code.INVALID, str(error)) from None
    checks.report(key, CheckResult(_STATES[body.state], body.note))
    shown = checks.shown(key)
    assert shown is not None
    return Result({**key._asdict(), "state": str(shown.state)})


def _wrong(what: str, error: BadDefinitions) -> Problem:
    return Problem(422, Code.INVALID, what, extra={"errors": list(error.errors)})


def _agent(api: NativeApi) -> Agent:
    if api.agent is None:
        raise Problem(404, "path-unknown", "this node keeps no services registered; start it with --services DIR")
    if not api.agent.is_running:
        raise Problem(503, Code.NODE_UNAVAILABLE, "the node is starting", retry_after=1.0)
    return api.agent


def _id(text: str) -> str:
    if len(text) > _LONGEST_CHECK:
        raise ValueError(f"has {len(text)} characters, more than {_LONGEST_CHECK}")
    return check_string("it", text)


_IDS: Final = array_of(STRING)
_STATE: Final = {"enum": list(_STATES)}
_KEY: Final = {"service": STRING, "instance": STRING, "check": STRING}

AGENT_OPERATIONS: Final = (
    HttpOperation(
        "POST", "/v1/aqua/agent/reload", "reload", "Read the services of this machine again; all of them or nothing",
        AccessLevel.OPERATE, (), None, "changes",
        object_of({"added": _IDS, "changed": _IDS, "removed": _IDS, "aliases": _IDS}), _reload,
        command="reload",
    ),
    HttpOperation(
        "GET", "/v1/aqua/agent/checks", "checks", "The checks of this machine's services, and how each is",
        AccessLevel.READ, (), None, "checks",
        array_of(object_of({**_KEY, "kind": STRING, "state": _STATE, "note": STRING, "lasted": {"type": "number"}})),
        _checks, command="check list",
    ),
    HttpOperation(
        "POST", "/v1/aqua/agent/checks/{check}", "report_check",
        "Say how a program of this machine is, for its `ttl` check", AccessLevel.WRITE,
        (Parameter("check", "path", "SERVICE, SERVICE/CHECK or SERVICE/INSTANCE/CHECK, by their ids; one part of the"
                   " path, so slashes in it are written %2F", STRING, _id, is_required=True),),
        ReportedCheck, "reported-check", object_of({**_KEY, "state": _STATE}), _report, command="check",
    ),
    HttpOperation(
        "POST", "/v1/aqua/agent/services", "lend",
        "Have the services in a file registered for as long as this answer is read: server-sent events, whose first"
        " says which these are. Each is registered once its checks pass",
        AccessLevel.OPERATE, (), LentFile, "lease",
        object_of({"services": _IDS, "errors": _IDS}, optional=("errors",)), _lend, media_type="text/event-stream",
        command="exec",
    ),
)  # fmt: skip
"""Its operations."""
