"""Which states two replicas compare: those that neither of their clocks, which differ a little, calls too old."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from registry.model.merge import ResourceState
from registry.model.values import Record, State
from registry.settings import RegistrySettings

Time = int
_NEVER: Final = 2**63


class ExpiryHorizon(msgspec.Struct, frozen=True, array_like=True):
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
            now - settings.key_tombstone_lifetime,
        )

    def stricter(self, other: ExpiryHorizon) -> ExpiryHorizon:
        """The later of each."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return ExpiryHorizon(*(max(pair) for pair in zip(mine, theirs, strict=True)))

    def all_after(self, other: ExpiryHorizon) -> bool:
        """Whether each time is later than that of `other`."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return all(one > another for one, another in zip(mine, theirs, strict=True))

    def alive(self, resource: ResourceState) -> ResourceState:
        """The part of a resource that isn't too old."""
        key, key_tombstone = resource.key, resource.key_tombstone
        if key is not None and key.timestamp_created <= self.owned:
            key = None
        if key_tombstone is not None and key_tombstone.timestamp_issued <= self.removed:
            key_tombstone = None
        states = [state for state in resource.slots.values() if self._lives(state)]
        if key is resource.key and key_tombstone is resource.key_tombstone and len(states) == len(resource.slots):
            return resource
        return ResourceState.of(key, states, key_tombstone)

    def _lives(self, state: State) -> bool:
        if isinstance(state, Record):
            return state.timestamp_created > self.hosted and state.timestamp_issued > self.issued
        return state.timestamp_issued > self.ended


def oldest_of(resource: ResourceState) -> ExpiryHorizon:
    """The oldest signature of each kind in a resource: while these live, everything in it does."""
    hosted = issued = ended = _NEVER
    for state in resource.slots.values():
        if isinstance(state, Record):
            hosted, issued = min(hosted, state.timestamp_created), min(issued, state.timestamp_issued)
        else:
            ended = min(ended, state.timestamp_issued)
    return ExpiryHorizon(
        hosted,
        issued,
        ended,
        resource.key.timestamp_created if resource.key else _NEVER,
        resource.key_tombstone.timestamp_issued if resource.key_tombstone else _NEVER,
    )
