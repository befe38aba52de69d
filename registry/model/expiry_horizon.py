"""Which states two replicas compare: those that neither of their clocks, which differ a little, calls too old, and that
the policy of their resource permits at the later of both times (`registry.model.policy_withholding`)."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from registry.model.merge import ResourceState
from registry.model.policy_withholding import permitted_before
from registry.model.values import Record, State
from registry.settings import RegistrySettings

Time = int
_NEVER: Final = 2**63


class ExpiryHorizon(msgspec.Struct, frozen=True, array_like=True):
    """Seconds; what was signed at these times or before is too old: host's signatures on records, issuers' on records
    and on tombstones, owners' on keys and on key tombstones. `certified`: certificates that end then, or before, have
    ended."""

    hosted: Time
    issued: Time
    ended: Time
    owned: Time
    removed: Time
    certified: Time = -1

    @classmethod
    def at(cls, now: int, settings: RegistrySettings) -> Self:
        """The horizon of a node whose clock says `now`."""
        return cls(
            now - settings.expired_age,
            now - settings.record_lifetime,
            now - settings.tombstone_lifetime,
            now - settings.key_lifetime,
            now - settings.key_tombstone_lifetime,
            now,
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
        """The part of a resource that is neither too old nor withheld."""
        fresh = self.fresh(resource)
        return fresh.without(fresh.withheld(self.certified))

    def fresh(self, resource: ResourceState) -> ResourceState:
        """The part of a resource that isn't too old."""
        key = resource.key
        if key is not None and key.timestamp_created <= self.owned:
            key = None
        key_tombstones = tuple(each for each in resource.key_tombstones if each.timestamp_issued > self.removed)
        states = [state for state in resource.slots.values() if self._lives(state)]
        is_whole = key is resource.key and len(key_tombstones) == len(resource.key_tombstones)
        if is_whole and len(states) == len(resource.slots):
            return resource
        return ResourceState.of(key, states, *key_tombstones)

    def _lives(self, state: State) -> bool:
        if isinstance(state, Record):
            return state.timestamp_created > self.hosted and state.timestamp_issued > self.issued
        return state.timestamp_issued > self.ended


def oldest_of(resource: ResourceState) -> ExpiryHorizon:
    """The oldest signature of each kind in a resource, and the first end of a certificate: while these live, everything
    in it does."""
    hosted = issued = ended = certified = _NEVER
    for state in resource.slots.values():
        if isinstance(state, Record):
            hosted, issued = min(hosted, state.timestamp_created), min(issued, state.timestamp_issued)
            certified = min(certified, permitted_before(resource.key, state))
        else:
            ended = min(ended, state.timestamp_issued)
    return ExpiryHorizon(
        hosted,
        issued,
        ended,
        resource.key.timestamp_created if resource.key else _NEVER,
        min((each.timestamp_issued for each in resource.key_tombstones), default=_NEVER),
        certified,
    )
