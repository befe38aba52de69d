"""Which resources of an owner there are, as far as a node knows.

Nobody has the whole list: a resource is found by its name, at those who keep it. What a node knows is what it keeps
itself, which is all in networks of up to 20 nodes, and a share of it in larger ones; and what is hosted on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from registry.model.values import Key
from registry.storage import Change, Store

MOST_NAMES: Final = 10_000  # of one owner

Labels = Mapping[str, str]
"""Resource id to label."""


class KnownNames(Protocol):
    """The names of an owner's resources. Whatever tells more of them than a node keeps can stand here."""

    async def labels(self, owner: str) -> Labels:
        """Those that are known now. Raises StorageError."""
        ...

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Has `callback(owner)` called, synchronously, when one comes or goes, or what is on it changes."""
        ...


class StoredNames:
    """The names of the resources that a node keeps."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loading = trio.Lock()
        self._labels: dict[str, dict[str, str]] = {}
        self._owners: dict[str, str] = {}
        self._callbacks: list[Callable[[str], None]] = []
        store.on_commit(self._note_commit)

    async def labels(self, owner: str) -> Labels:
        """Those that are known now. Raises StorageError."""
        async with self._loading:
            known = self._labels.get(owner)
            if known is None:
                known = self._labels[owner] = {}  # what is committed meanwhile is taken
                try:
                    keys = await self._store.read(lambda transaction: transaction.keys_of(owner, MOST_NAMES))
                except BaseException:
                    del self._labels[owner]
                    raise
                for key in keys:
                    self._add(key)
            return known

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Has `callback(owner)` called, synchronously, when one comes or goes, or what is on it changes."""
        self._callbacks.append(callback)

    def _add(self, key: Key) -> None:
        labels = self._labels.get(key.owner_peer_id)
        if labels is not None and (len(labels) < MOST_NAMES or key.id in labels):
            labels[key.id] = key.label
            self._owners[key.id] = key.owner_peer_id

    def _note_commit(self, changes: Mapping[str, Change]) -> None:
        if not self._labels:
            return
        changed: set[str] = set()
        for key_id, change in changes.items():
            if change.key is not None:
                self._add(change.key)
            owner = self._owners.get(key_id)
            if owner is None:
                continue
            changed.add(owner)
            if change.key_changed and change.key is None:
                self._labels[owner].pop(key_id, None)
                del self._owners[key_id]
        for owner in changed:
            for callback in self._callbacks:
                callback(owner)
