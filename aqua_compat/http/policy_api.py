"""The part of the native API that changes who may register on a resource."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from aqua_compat.http.message import AccessLevel
from aqua_compat.http.operations import HttpOperation, OperationCall, Result
from aqua_compat.http.parameters import LONGEST, RESOURCE
from aqua_compat.http.problems import Problem
from aqua_compat.http.result_shapes import POLICY_OF_RESOURCE
from aqua_compat.schema.shapes import policy_as_json
from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from registry.client.registry import DEFAULT_TIMEOUT
from registry.permission.edits import Edit, EditKind
from registry.permission.policy import ANY_HOST, FOR_EVER, LONGEST_CHAIN, Policy
from registry.settings import RegistrySettings

if TYPE_CHECKING:
    from aqua_compat.http.native_api import NativeApi
    from registry.model.values import Key

_MOST_EDITS: Final = 256
_GENERAL: Final = frozenset({EditKind.OPEN, EditKind.CLOSE, EditKind.LONGEST_CHAIN})
_OF_PAIRS: Final = frozenset({"deny", "lift", "drop-denial"})
PolicyEditKind = Literal[
    "open",
    "close",
    "allow",
    "disallow",
    "add-root",
    "drop-root",
    "add-host",
    "drop-host",
    "deny",
    "lift",
    "drop-denial",
    "longest-chain",
]


class PolicyEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change. `peer_id`: whom it is about, for all but `open`, `close` and `longest-chain`; `host`: of a denial,
    the only host that it is about; `until`: its end, in seconds since 1970, none by default; `number`: of
    `longest-chain`, how many certificates a chain may have."""

    edit: PolicyEditKind
    peer_id: str | None = None
    host: str | None = None
    until: Annotated[int, msgspec.Meta(ge=0, lt=FOR_EVER)] | None = None
    number: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_CHAIN)] | None = None


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes on top of what the policy is by then. `factor`: replicas that must have it on disk, a majority at least;
    `timeout`: seconds for all of it."""

    edits: Annotated[list[PolicyEdit], msgspec.Meta(min_length=1, max_length=_MOST_EDITS)]
    factor: Annotated[int, msgspec.Meta(ge=1, le=32_767)] = 1
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] = DEFAULT_TIMEOUT


Denials = Mapping[tuple[bytes, bytes], int]
"""The ends of denials, by issuer and host."""


async def _change(api: NativeApi, call: OperationCall) -> Result:
    body: PolicyChange = call.body
    before, _ = await api.key_of(call, 1, body.timeout)
    policy = before.policy
    denials = {(each.issuer, each.host): each.until for each in policy.deny} if isinstance(policy, Policy) else {}
    edits = [_edit(each, denials, int(time.time())) for each in body.edits]
    done = await api.registry.change_policy(before.id, edits, factor=body.factor, timeout=body.timeout)
    if not done.success:
        raise Problem.failed(done.code, done.errors, "the policy wasn't changed", stored=done.stored)
    after: Key
    after, errors = await api.key_of(call, 1, body.timeout)
    return Result(policy_as_json(after, api.names), (*done.errors, *errors))


def _edit(given: PolicyEdit, denials: Denials, now: int) -> Edit:
    """What is to be changed. Raises Problem for what says too much or too little, and for a denial that can't be
    lifted or dropped."""
    number = _number(given)
    if given.edit in _GENERAL:
        if given.peer_id is not None or given.host is not None or given.until is not None:
            raise Problem.invalid(f"{given.edit} is about nobody: it has no peer_id, host or until")
        return Edit(EditKind(given.edit), number=number)
    if given.peer_id is None:
        raise Problem.invalid(f"{given.edit} needs a peer_id")
    key = _key(given.peer_id)
    if given.edit not in _OF_PAIRS:
        if given.host is not None or given.until is not None:
            raise Problem.invalid(f"{given.edit} has no host or until")
        return Edit(EditKind(given.edit), key)
    host = ANY_HOST if given.host is None else _key(given.host)
    if given.edit == "deny":
        return Edit(EditKind.DENY, key, host, FOR_EVER if given.until is None else given.until)
    if given.until is not None:
        raise Problem.invalid(f"{given.edit} has no until")
    until = denials.get((key, host))
    if until is None:
        raise Problem.invalid(f"{given.peer_id} isn't denied so, and there is nothing to lift or drop")
    if given.edit == "lift":
        if until < now:
            raise Problem.invalid(f"the denial of {given.peer_id} has ended; what it issued before stays withheld")
        return Edit(EditKind.DENY, key, host, now)
    settings = RegistrySettings()
    long_ago = now - settings.record_lifetime - 2 * settings.clock_skew
    if until > long_ago:
        raise Problem.invalid(
            f"the denial of {given.peer_id} can't be dropped: what it registered before would come back"
        )
    return Edit(EditKind.DROP_DENIAL, key, host, long_ago)


def _number(given: PolicyEdit) -> int:
    if (given.number is not None) is not (given.edit == "longest-chain"):
        raise Problem.invalid("`number` belongs to longest-chain, which needs it")
    return LONGEST_CHAIN if given.number is None else given.number


def _key(peer_id: str) -> bytes:
    try:
        return public_key_of(peer_id)
    except PeerIdError as error:
        raise Problem.invalid(str(error)) from None


POLICY_OPERATIONS: Final = (
    HttpOperation(
        "PATCH", "/v1/aqua/resources/{resource_id}/policy", "change_policy",
        "Change who may register on a resource that this node owns", AccessLevel.WRITE, (RESOURCE,), PolicyChange,
        "policy", POLICY_OF_RESOURCE, _change,
        command="resource policy",
    ),
)  # fmt: skip
"""Its operations."""
