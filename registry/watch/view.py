"""One watched resource as its watchers see it: the merge of all that was heard of it, and what of that is visible.

Pure: updates and the time come in as arguments. `revision` tells that something visible has changed;
`registry.watch.follower` wakes the watchers then.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Final

import msgspec

from registry.codes import Code
from registry.model.merge import ResourceState, greater_key, is_spent, merged
from registry.model.policy_withholding import permitted_before, why_not_stored, why_withheld
from registry.model.values import Record, Slot
from registry.protocol.messages import Item
from registry.settings import RegistrySettings
from registry.watch.brought import Brought
from registry.watch.watch_event import CERTIFICATE, POLICY, Visible, same_content

MAX_KNOWN: Final = 4096  # slots of one resource


class View:
    """What one peer knows of a resource that it watches. Wall clocks are seconds since 1970."""

    def __init__(self, key_id: str, settings: RegistrySettings) -> None:
        self.key_id = key_id
        self.state = ResourceState()
        """All that is known, merged."""
        self.visible: Visible = {}
        """The live records, as of the last change or `refresh`."""
        self.hosts: Collection[str] = ()
        """The peers that host them."""
        self.versions: dict[Slot, int] = {}
        """How often the visible record of each slot has changed."""
        self.changed_at: dict[Slot, int] = {}
        """In which order slots changed last."""
        self.is_ready = False
        """Whether what is known is complete enough for a first snapshot."""
        self.revision = 0
        """Grows when something became visible, or ready, that wasn't."""
        self._settings = settings
        self._brought = Brought()
        self._ticks = 0
        self._refreshed_at = 0

    def why_withheld(self, slot: Slot) -> str:
        """For which reason what was visible is withheld, empty if it isn't (`WatchEvent.reason`)."""
        state = self.state.slots.get(slot)
        if not isinstance(state, Record):
            return ""
        match why_withheld(self.state.key, state, self._refreshed_at):
            case None:
                return ""
            case Code.CERTIFICATE_EXPIRED:
                return CERTIFICATE
            case _:
                return POLICY

    def was_removed(self, slot: Slot) -> bool:
        """Whether what isn't visible (any more) was ended by its issuer or the resource's owner."""
        state = self.state.slots.get(slot)
        return (state is not None and not isinstance(state, Record)) or (
            state is None and self.state.key_tombstone is not None
        )

    def is_full(self) -> bool:
        """Whether a slot that isn't known yet is ignored: more is known than any replica would keep."""
        return len(self.visible) >= 2 * self._settings.records_per_key or len(self.state.slots) >= MAX_KNOWN

    def take(self, item: Item, wall_clock: int) -> bool:
        """Merges one verified update; whether it was news that others may be told."""
        if item.state is not None:
            known = self.state.slots.get(item.state.slot)
            if known is not None and known.order() >= item.state.order():
                return False
            if known is None and self.is_full():
                return False  # no replica would have room for it; if one has, the next comparison tells
            key = greater_key(self.state.key, item.as_resource().key)
            if isinstance(item.state, Record) and why_withheld(key, item.state, wall_clock) is not None:
                is_kept = why_not_stored(key, known, item.state, wall_clock) is None
                self.merge((item if is_kept else Item(item.key_or_tombstone)).as_resource(), wall_clock)
                return False
        return self.merge(item.as_resource(), wall_clock)

    def merge(self, other: ResourceState, wall_clock: int, *, source: str = "") -> bool:
        """Merges verified states; whether anything was news. `source`: who told all of it, for its share of what is
        kept (`registry.watch.brought`); empty for what this peer itself stores."""
        before = self.state
        after = merged(before, other)
        if source:
            after = self._limited(after, other, source)
        news = (
            after.key is not before.key
            or after.key_tombstones != before.key_tombstones
            or any(before.slots.get(slot) is not state for slot, state in after.slots.items())
        )
        if news:
            self.state = after
            self.refresh(wall_clock)
        return news

    def _limited(self, after: ResourceState, told: ResourceState, source: str) -> ResourceState:
        self._brought.forget_all_but(after.slots)
        self._brought.note(source, (after.slots[slot] for slot in told.slots if slot in after.slots))
        going = self._brought.giving_way()
        if not going:
            return after
        kept = {slot: state for slot, state in after.slots.items() if slot not in going}
        return msgspec.structs.replace(after, slots=MappingProxyType(kept))

    def refresh(self, wall_clock: int) -> None:
        """Finds out what is visible now, and lets go of what nobody would accept any more."""
        self._refreshed_at = wall_clock
        spent = {slot for slot, state in self.state.slots.items() if is_spent(state, wall_clock, self._settings)}
        if spent:
            kept = [state for slot, state in self.state.slots.items() if slot not in spent]
            self.state = ResourceState.of(self.state.key, kept, *self.state.key_tombstones)
        records = self.state.records(wall_clock, self._settings) if self.state.key is not None else []
        visible = {record.slot: record for record in records}
        changed = False
        for slot in self.visible.keys() | visible.keys():
            old, new = self.visible.get(slot), visible.get(slot)
            if old is not new and (old is None or new is None or not same_content(old, new)):
                self._ticks += 1
                self.versions[slot] = self.versions.get(slot, 0) + 1
                self.changed_at[slot] = self._ticks
                changed = True
        self.visible = visible
        self.hosts = dict.fromkeys(slot.peer_id for slot in visible)  # in the same order in every process
        if len(self.versions) > 2 * MAX_KNOWN:
            self.versions = {slot: count for slot, count in self.versions.items() if slot in self.state.slots}
            self.changed_at = {slot: tick for slot, tick in self.changed_at.items() if slot in self.state.slots}
        self.revision += changed

    def next_expiry(self, wall_clock: float) -> float | None:
        """Seconds until the next visible record expires; None when none is visible."""
        times = [
            min(
                record.timestamp_created + self._settings.expired_age,
                record.timestamp_issued + self._settings.record_lifetime,
                permitted_before(self.state.key, record),
            )
            for record in self.visible.values()
        ]
        return max(min(times) - wall_clock, 0.0) if times else None

    def make_ready(self) -> None:
        """What is known is as good as what a replica would answer: watchers get their snapshot."""
        if not self.is_ready:
            self.is_ready = True
            self.revision += 1
