"""The events that one watcher hasn't been told yet, as a pure function of its view and of what it was told."""

from __future__ import annotations

from registry.model.trusted_issuers import TrustRule
from registry.model.values import Record, Slot
from registry.watch.view import View
from registry.watch.watch_event import TRUST, EventKind, Visible, WatchEvent, same_content


class PendingEvents:
    """A snapshot, then changes: per record they never go back and never repeat, and the last state is always told.

    Nothing is queued: whoever asks seldom gets the latest state, with the number of changes that it missed.
    """

    def __init__(self, view: View, trust: TrustRule | None = None) -> None:
        """`trust`: what isn't believed by it isn't told."""
        self._view = view
        self._trust = trust
        self._told: Visible | None = None
        self._versions: dict[Slot, int] = {}

    def shown(self, wall_clock: int) -> Visible:
        """The live records that this watcher believes at that time (seconds)."""
        if self._trust is None:
            return self._view.visible
        return self._trust.believed(self._view.state.key, self._view.visible, wall_clock)

    def doubted_at(self) -> int | None:
        """When something that was told won't be believed any more though nothing changes (seconds); None for never."""
        if self._trust is None or not self._told:
            return None
        return min((end for end in map(self._trust.until, self._told.values()) if end is not None), default=None)

    def next(self, wall_clock: int) -> WatchEvent | None:
        """The next event to tell at that time (seconds); None when there is none."""
        now = self.shown(wall_clock)
        if not self._view.is_ready:
            return None
        if self._told is None:
            self._told = dict(now)
            self._versions = dict(self._view.versions)
            return WatchEvent(EventKind.SNAPSHOT, records=tuple(now[slot] for slot in sorted(now)))
        dirty = [slot for slot in self._told.keys() | now.keys() if not _same(self._told.get(slot), now.get(slot))]
        if not dirty:
            return None
        slot = min(dirty, key=lambda slot: (self._view.changed_at.get(slot, 0), slot))
        return self._event(slot, self._told, now.get(slot))

    def _event(self, slot: Slot, told: Visible, record: Record | None) -> WatchEvent:
        before = told.pop(slot, None)
        version = self._view.versions.get(slot, 0)
        missed = max(version - self._versions.get(slot, 0) - 1, 0)
        self._versions[slot] = version
        if record is None:
            if slot not in self._view.versions:
                del self._versions[slot]
            reason = TRUST if slot in self._view.visible else self._view.why_withheld(slot)
            kind = EventKind.REMOVED if reason or self._view.was_removed(slot) else EventKind.EXPIRED
            return WatchEvent(kind, before, reason=reason, coalesced=missed)
        told[slot] = record
        return WatchEvent(EventKind.ADDED if before is None else EventKind.UPDATED, record, coalesced=missed)


def _same(one: Record | None, other: Record | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or same_content(one, other)
