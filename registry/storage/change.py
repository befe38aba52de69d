"""What one write changed, as those are told who keep or announce it."""

from __future__ import annotations

from registry.model.values import Key, KeyTombstone, Slot, State


class Change:
    """What one write changed under one key id; None where something was removed."""

    __slots__ = ("key", "key_changed", "key_tombstones", "key_tombstones_changed", "siblings", "slots")

    def __init__(self) -> None:
        self.key: Key | None = None
        self.key_changed = False
        self.siblings: tuple[Key, ...] | None = None
        """None where they didn't change."""
        self.key_tombstones: tuple[KeyTombstone, ...] = ()
        self.key_tombstones_changed = False
        self.slots: dict[Slot, State | None] = {}
