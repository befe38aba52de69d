"""What counts in a comparison: two clocks differ, so both sides look only at what lives under the stricter times."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from registry.merging import ResourceState
from registry.settings import RegistrySettings
from registry.values import Record, State

Time = int
_NEVER: Final = 2**63


class Cutoffs(msgspec.Struct, frozen=True, array_like=True):
    """Seconds; what was signed at these times or before is too old: host's signatures on records, issuers' on records
    and on tombstones, owners' on keys and on key tombstones."""

    hosted: Time
    issued: Time
    ended: Time
    owned: Time
    removed: Time

    @classmethod
    def at(cls, now: int, settings: RegistrySettings) -> Self:
        """Those of a node whose clock says `now`."""
        return cls(
            now - settings.expired_age,
            now - settings.record_lifetime,
            now - settings.tombstone_lifetime,
            now - settings.key_lifetime,
            now - settings.removal_lifetime,
        )

    def stricter(self, other: Cutoffs) -> Cutoffs:
        """The later of each."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Cutoffs(*(max(pair) for pair in zip(mine, theirs, strict=True)))

    def all_after(self, other: Cutoffs) -> bool:
        """Whether each time is later than that of `other`."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return all(one > another for one, another in zip(mine, theirs, strict=True))

    def alive(self, resource: ResourceState) -> ResourceState:
        """The part of a resource that isn't too old."""
        key, removal = resource.key, resource.removal
        if key is not None and key.timestamp_created <= self.owned:
            key = None
        if removal is not None and removal.timestamp_issued <= self.removed:
            removal = None
        states = [state for state in resource.slots.values() if self._lives(state)]
        if key is resource.key and removal is resource.removal and len(states) == len(resource.slots):
            return resource
        return ResourceState.of(key, states, removal)

    def _lives(self, state: State) -> bool:
        if isinstance(state, Record):
            return state.timestamp_created > self.hosted and state.timestamp_issued > self.issued
        return state.timestamp_issued > self.ended


def oldest_of(resource: ResourceState) -> Cutoffs:
    """The oldest signature of each kind in a resource: while these live, everything in it does."""
    hosted = issued = ended = _NEVER
    for state in resource.slots.values():
        if isinstance(state, Record):
            hosted, issued = min(hosted, state.timestamp_created), min(issued, state.timestamp_issued)
        else:
            ended = min(ended, state.timestamp_issued)
    return Cutoffs(
        hosted,
        issued,
        ended,
        resource.key.timestamp_created if resource.key else _NEVER,
        resource.removal.timestamp_issued if resource.removal else _NEVER,
    )
