"""Changing a policy: edits, not whole policies, so that what another machine of the owner changed meanwhile stays.

Rules:
1. Edits are applied to the policy that rules, which gives one of the next revision. Whoever made them reads that back
   from a majority, and has succeeded once what rules holds them, and a majority has it.
2. Policies of one revision that were written at the same time are siblings: one rules, replicas keep the others beside
   it. What the others changed is applied to the one that rules, then the edits again: that gives the next revision, and
   so on until what rules has no sibling that says anything else.
3. What a sibling changed is told by the policy that it names as `previous`. Where it contradicts what the ruling one
   changed, that counts. Where the one before isn't known, only what the sibling denies, closes or shortens counts:
   nobody is let in by guess.
4. A policy is edited only once a majority had it, and it ruled in what was read from a majority after that. So it is
   known: whoever reads from a majority finds it, since replicas keep all of the revision before. And of several that
   were edited so, each greater one was read beside the lesser ones: whoever edited it had what these changed in it.
   The least of all that are named as `previous` is in all siblings, then, and is what they are compared with. (Compared
   each with its own, what the one before it had changed would count for no change, and be lost.)
5. One that was made from a sibling by a machine that didn't wait for its own end may lack what others changed. Whoever
   runs and made such a change makes it again as far as it only takes rights away. What it had let in may have been shut
   out on purpose by who saw it, so its owner is told, and decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from registry.permission.errors import InvalidPolicy
from registry.permission.policy import (
    ANY_HOST,
    FOR_EVER,
    LONGEST_CHAIN,
    POLICY_TYPE,
    AnyPolicy,
    Denial,
    Policy,
    UnknownPolicy,
    encode_policy,
    peer_of,
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
    LONGEST_CHAIN = "longest-chain"
    """Chains of `number` certificates at most count, of none at 0."""


class Edit(NamedTuple):
    """One change. `key`: whom it is about, a public key; `host` and `until` (seconds) are those of a denial, `number`
    that of the longest chain."""

    kind: EditKind
    key: bytes = b""
    host: bytes = ANY_HOST
    until: int = FOR_EVER
    number: int = LONGEST_CHAIN


def edit_text(edit: Edit) -> str:
    """An edit in the words of `aqua-registry resource policy`."""
    options = {EditKind.ADD_ROOT: "root", EditKind.ADD_HOST: "host"}
    option = f"--{options.get(edit.kind, edit.kind.value)}"
    if edit.kind in (EditKind.OPEN, EditKind.CLOSE):
        return option
    if edit.kind is EditKind.LONGEST_CHAIN:
        return f"{option} {edit.number}"
    who = peer_of(edit.key) + (f"@{peer_of(edit.host)}" if edit.host else "")
    end = (
        ""
        if edit.kind is not EditKind.DENY or edit.until == FOR_EVER
        else f" --until {datetime.fromtimestamp(edit.until, UTC):%Y-%m-%dT%H:%M:%SZ}"
    )
    return f"{option} {who}{end}"


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


def following(
    ruling: AnyPolicy | None, siblings: Iterable[AnyPolicy], bases: Mapping[bytes, AnyPolicy], edits: Iterable[Edit]
) -> Policy | None:
    """The policy that has to be written next so that `edits` hold, and what the `siblings` of the ruling one changed;
    None where nothing has. `bases`: policies that were read before, by their digests.

    Raises InvalidPolicy for what no policy can hold, or for a policy of a version that isn't known here.
    """
    others = list(siblings)
    changes: list[Edit] = []
    if others:
        least = min((each.previous for each in (*others, ruling) if isinstance(each, Policy)), default=b"")
        changes = [edit for each in (*others, ruling) for edit in _changed_by(each, ruling, least, bases)]
    after = edited(ruling, [*changes, *edits])
    if isinstance(ruling, Policy) and all(_say_the_same(each, ruling) for each in (after, *others)):
        return None
    return after


def _say_the_same(one: AnyPolicy, other: AnyPolicy) -> bool:
    replace: Callable[..., AnyPolicy] = msgspec.structs.replace
    return isinstance(one, Policy) and replace(one, revision=1, previous=b"") == replace(
        other, revision=1, previous=b""
    )


def _changed_by(
    policy: AnyPolicy | None, ruling: AnyPolicy | None, least: bytes, bases: Mapping[bytes, AnyPolicy]
) -> list[Edit]:
    """Edits that make a policy out of the one with the digest `least`, or at least out of its own (rules 3, 4)."""
    if not isinstance(policy, Policy) or not isinstance(ruling, Policy):
        raise InvalidPolicy("one of a later version was written at the same time; change it with that")
    base = bases.get(least, bases.get(policy.previous)) if least else Policy(revision=1, open=True)
    if not isinstance(base, Policy):
        replace: Callable[..., Policy] = msgspec.structs.replace
        longest = max(policy.longest_chain, ruling.longest_chain)
        base = replace(policy, open=policy.open or ruling.open, deny=(), longest_chain=longest)
    edits = [] if base.open is policy.open else [Edit(EditKind.OPEN if policy.open else EditKind.CLOSE)]
    if base.longest_chain != policy.longest_chain:
        edits.append(Edit(EditKind.LONGEST_CHAIN, number=policy.longest_chain))
    for kind, (name, is_in) in _LISTS.items():
        before, after = {*getattr(base, name)}, {*getattr(policy, name)}
        edits += [Edit(kind, key) for key in sorted(after - before if is_in else before - after)]
    changed = [denial for denial in policy.deny if denial not in base.deny]
    return [*edits, *(Edit(EditKind.DENY, denial.issuer, denial.host, denial.until) for denial in changed)]


def holds(policy: AnyPolicy | None, edit: Edit) -> bool:
    """Whether an edit of this policy would change nothing."""
    return isinstance(policy, Policy) and _applied(policy, edit) == policy


def narrows(policy: AnyPolicy | None, edit: Edit) -> bool:
    """Whether an edit of this policy would only take from who may register (rule 5)."""
    if not isinstance(policy, Policy) or holds(policy, edit):
        return False
    if edit.kind is EditKind.DENY:
        ends = [each.until for each in policy.deny if (each.issuer, each.host) == (edit.key, edit.host)]
        return edit.until > max(ends, default=-1)
    if edit.kind is EditKind.LONGEST_CHAIN:
        return edit.number < policy.longest_chain
    return edit.kind in (EditKind.CLOSE, EditKind.DISALLOW, EditKind.DROP_ROOT)


def overtaken(ruling: AnyPolicy | None, before: Iterable[AnyPolicy | None]) -> list[Edit]:
    """What policies of the revision `before` had that the ruling one was made without, and hasn't: it names another of
    them as its previous one. What they had taken off can't be told."""
    found: dict[Edit, None] = {}
    others = list(before)
    if not isinstance(ruling, Policy) or ruling.previous not in (_digest_of(each) for each in others):
        return []
    for policy in others:
        if not isinstance(policy, Policy) or policy.revision != ruling.revision - 1:
            continue
        if _digest_of(policy) == ruling.previous:
            continue
        had = [Edit(kind, key) for kind, (name, is_in) in _LISTS.items() if is_in for key in getattr(policy, name)]
        had += [Edit(EditKind.DENY, each.issuer, each.host, each.until) for each in policy.deny]
        had += [] if policy.open else [Edit(EditKind.CLOSE)]
        if policy.longest_chain < ruling.longest_chain:
            had.append(Edit(EditKind.LONGEST_CHAIN, number=policy.longest_chain))
        found.update(dict.fromkeys(edit for edit in had if not holds(ruling, edit)))
    return list(found)


def _digest_of(policy: AnyPolicy | None) -> bytes:
    return policy_digest(POLICY_TYPE, encode_policy(policy)) if isinstance(policy, Policy) else b""


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
    if edit.kind is EditKind.LONGEST_CHAIN:
        return replace(policy, longest_chain=edit.number)
    return replace(policy, open=edit.kind is EditKind.OPEN)
