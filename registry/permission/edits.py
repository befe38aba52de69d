"""Changing a policy: edits, not whole policies, so that what another machine of the owner changed meanwhile stays.

An edit is applied to the policy that rules, which gives one of the next revision. Whoever made it reads that back, and
has succeeded once what rules holds the edit; else it is applied again, to what rules then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from registry.errors import InvalidPolicy
from registry.permission.policy import (
    ANY_HOST,
    FOR_EVER,
    POLICY_TYPE,
    AnyPolicy,
    Denial,
    Policy,
    UnknownPolicy,
    encode_policy,
    policy_digest,
)


class EditKind(StrEnum):
    """What an edit does."""

    OPEN = "open"
    CLOSE = "close"
    ALLOW = "allow"
    DISALLOW = "disallow"
    ADD_ROOT = "add-root"
    DROP_ROOT = "drop-root"
    ADD_HOST = "add-host"
    DROP_HOST = "drop-host"
    DENY = "deny"
    """Until `until`; of a pair that is denied already the end is set anew. A denial is lifted by setting its end to
    now: without an entry, records from before would come back."""
    DROP_DENIAL = "drop-denial"
    """If it ended by `until`, which is to be so long ago that nothing from before it can be good any more."""


class Edit(NamedTuple):
    """One change. `key`: whom it is about, a public key; `host` and `until` (seconds) are those of a denial."""

    kind: EditKind
    key: bytes = b""
    host: bytes = ANY_HOST
    until: int = FOR_EVER


_LISTS: Final[dict[EditKind, tuple[str, bool]]] = {
    EditKind.ALLOW: ("allow", True),
    EditKind.DISALLOW: ("allow", False),
    EditKind.ADD_ROOT: ("roots", True),
    EditKind.DROP_ROOT: ("roots", False),
    EditKind.ADD_HOST: ("hosts", True),
    EditKind.DROP_HOST: ("hosts", False),
}
"""The list that an edit is about, and whether its key is in there afterwards."""


def edited(ruling: AnyPolicy | None, edits: Iterable[Edit]) -> Policy:
    """The policy that follows the one that rules (None: the resource is open) when `edits` are made, in their order.

    Raises InvalidPolicy for what no policy can hold, or if the ruling one is of a version that isn't known here.
    """
    if isinstance(ruling, UnknownPolicy):
        raise InvalidPolicy("the one that rules is of a later version; change it with that")
    policy = Policy(revision=1, open=True)
    if ruling is not None:
        previous = policy_digest(POLICY_TYPE, encode_policy(ruling))
        policy = msgspec.structs.replace(ruling, revision=ruling.revision + 1, previous=previous)
    for edit in edits:
        policy = _applied(policy, edit)
    return policy


def holds(policy: AnyPolicy | None, edit: Edit) -> bool:
    """Whether an edit of this policy would change nothing."""
    return isinstance(policy, Policy) and _applied(policy, edit) == policy


def _applied(policy: Policy, edit: Edit) -> Policy:
    replace: Callable[..., Policy] = msgspec.structs.replace
    if edit.kind in _LISTS:
        name, is_in = _LISTS[edit.kind]
        keys = {*getattr(policy, name)} | {edit.key} if is_in else {*getattr(policy, name)} - {edit.key}
        return replace(policy, **{name: tuple(sorted(keys))})
    if edit.kind is EditKind.DENY:
        pairs = {(each.issuer, each.host): each for each in policy.deny}
        pairs[edit.key, edit.host] = Denial(edit.key, edit.host, edit.until)
        return replace(policy, deny=tuple(pairs[pair] for pair in sorted(pairs)))
    if edit.kind is EditKind.DROP_DENIAL:
        pair = (edit.key, edit.host)
        kept = (each for each in policy.deny if (each.issuer, each.host) != pair or each.until > edit.until)
        return replace(policy, deny=tuple(kept))
    return replace(policy, open=edit.kind is EditKind.OPEN)
