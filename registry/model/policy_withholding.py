"""Which states the policy of their resource withholds, and which it keeps out: `registry.permission.permitted`, applied
to what replicas and readers hold. Pure: the clock is an argument.

Rules:
1. Policy never takes part in merging. What it doesn't permit is withheld: stored and compared as told below, but
   neither shown, signed, renewed nor announced.
2. A replica refuses by policy only a record that isn't permitted in a slot of which it knows nothing, and one over
   another that is withheld: else strangers would keep withheld rows alive for ever. In a known slot the greatest state
   wins, or an old record would come back where its successor was refused.
3. It never refuses a tombstone: an issuer that isn't allowed yet may end what a later policy would show.
4. Withheld records count against no limit, and are never pushed out: that would bring back what they replaced.
5. Two replicas compare what is permitted at one time for both (`registry.model.expiry_horizon`), and all tombstones.
   They tell each other of all that they hold, and send a withheld state only where the other has a lower one in its
   slot.
"""

from __future__ import annotations

from typing import Final

from registry.codes import Code
from registry.model.values import Key, Record, RecordMetadata, State, Tombstone
from registry.permission.permitted import (
    Claim,
    is_named,
    permitted_until,
    roots_shown,
    why_not_certified,
    why_not_permitted,
)
from registry.permission.policy import Policy

ALWAYS: Final = 2**63 - 1


def why_withheld(key: Key | None, said: Record | RecordMetadata, now: int) -> Code | None:
    """Why the policy in `key` withholds a record at `now` (seconds); None if it is permitted, as without a key."""
    policy = key.policy if key is not None else None
    if key is None or policy is None:
        return None
    return why_not_permitted(policy, claim_of(key, said), now)


def why_not_stored(key: Key | None, known: State | None, state: State, now: int) -> Code | None:
    """Why the policy in `key` has a replica refuse `state` for a slot in which `known` is (rules 2 and 3)."""
    if not isinstance(state, Record) or key is None or key.policy is None:
        return None
    is_withheld_update = isinstance(known, Record) and why_withheld(key, known, now) is not None
    return why_withheld(key, state, now) if known is None or is_withheld_update else None


def names_others(key: Key | None) -> bool:
    """Whether the policy in `key` names issuers, or roots that certify them."""
    policy = key.policy if key is not None else None
    return isinstance(policy, Policy) and bool(policy.allow or policy.roots)


def is_named_in(key: Key | None, state: State, now: int) -> bool:
    """Whether the policy in `key` names the issuer of `state`, or it is certified: places are reserved for these."""
    policy = key.policy if key is not None else None
    return key is not None and policy is not None and is_named(policy, claim_of(key, state), now)


def shows_permission(key: Key, said: Record | RecordMetadata, now: int) -> bool:
    """Whether the chain that a record shows permits it, whoever the chain's root is and whatever the policy says."""
    return why_not_certified(claim_of(key, said), roots_shown(claim_of(key, said).solution), now) is None


def permitted_before(key: Key | None, record: Record) -> int:
    """The time (seconds) from which on a record is withheld unless its key changes: 0 if it is at any time, `ALWAYS` if
    at none."""
    policy = key.policy if key is not None else None
    if key is None or policy is None:
        return ALWAYS
    claim = claim_of(key, record)
    if why_not_permitted(policy, claim, 0) is not None:
        return 0
    until = permitted_until(policy, claim)
    return ALWAYS if until is None else until


def claim_of(key: Key, said: Record | RecordMetadata | Tombstone) -> Claim:
    """What a record, or a tombstone, of the resource of `key` says, for the rules of permission."""
    if isinstance(said, Record):
        said = said.metadata
    return Claim(
        key.id, key.label, key.owner_peer_id, said.issued_by, said.peer_id, said.timestamp_issued, said.solution
    )
