"""Building hash trees out of what is stored."""

from __future__ import annotations

import gc
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
import trio

from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.owner_index import IndexEntry
from registry.replication.ranges import EVERYWHERE
from registry.replication.refusals import Refusals, RefusedEntries
from registry.replication.trees import Trees
from registry.storage import Store, open_store
from registry.storage.checked_rows import Place
from tests.unit.registry.builders import a_key


class LastRead:
    """A store whose first answer comes just when nobody wants any more."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    async def read(self, _: object) -> list[Place]:
        await trio.lowlevel.checkpoint()
        self._scope.cancel()
        return [Place(bytes(32), "resource", bytes(32), True)]


async def test_who_is_cancelled_while_building_leaves_nothing_to_the_garbage_collector() -> None:
    with trio.CancelScope() as scope:
        trees = Trees(cast("Store", LastRead(scope)), Refusals(), RefusedEntries())
        await trees.build("peer", EVERYWHERE, ExpiryHorizon(0, 0, 0, 0, 0))
    assert scope.cancelled_caught
    gc.collect()
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("column", ["key_id", "label", "owner_peer_id"])
async def test_an_entry_of_an_index_that_a_disk_spoilt_is_dropped_and_ends_no_comparison(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "registry.sqlite"
    async with open_store(path) as store:
        trees = Trees(store, Refusals(), RefusedEntries())
        for label in ("rotten", "sound"):
            await store.write(lambda t, label=label: t.index.put(IndexEntry.of(a_key(label)), 0))
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(
                f"UPDATE listed SET {column} = CAST(x'ff' || substr({column}, 2) AS TEXT) WHERE label = 'rotten'"
            )
        for _ in range(2):
            tree = await trees.build("peer", EVERYWHERE, ExpiryHorizon(-1, -1, -1, -1, -1))
            assert [label for _, label in tree.listed.values()] == ["sound"]
            await store.write(lambda _: None)  # after what was found damaged was dropped
        assert store.damaged == 1
