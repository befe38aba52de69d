"""Building hash trees out of what is stored."""

from __future__ import annotations

import gc
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.owner_index import IndexEntry
from registry.replication.ranges import EVERYWHERE, Range
from registry.replication.refusals import Refusals, RefusedEntries
from registry.replication.trees import MAX_TREES, PAGE, Trees
from registry.storage import Store, Transaction, open_store
from registry.storage.checked_rows import Place
from registry.storage.database import IN_MEMORY
from tests.unit.registry.builders import NOW, a_key


class LastRead:
    """A store whose first answer comes just when nobody wants any more."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def on_commit(self, _: object) -> None:
        """Nothing is written."""

    on_listed = on_commit

    async def read(self, _: object) -> list[Place]:
        await trio.lowlevel.checkpoint()
        self._scope.cancel()
        return [Place(bytes(32), "resource", bytes(32), True, (0,) * 6)]


async def test_who_is_cancelled_while_building_leaves_nothing_to_the_garbage_collector() -> None:
    with trio.CancelScope() as scope:
        trees = Trees(cast("Store", LastRead(scope)), Refusals(), RefusedEntries())
        await trees.build("peer", EVERYWHERE, ExpiryHorizon(0, 0, 0, 0, 0))
    assert scope.cancelled_caught
    gc.collect()
    await trio.lowlevel.checkpoint()


async def test_who_asks_about_many_small_parts_has_no_large_tree_of_another_caller_forgotten() -> None:
    key, horizon = a_key(), ExpiryHorizon(-1, -1, -1, -1, -1)

    def put(transaction: Transaction) -> None:
        for number in range(2 * PAGE):
            transaction.put_key(msgspec.structs.replace(key, label=f"label {number}"), NOW, 0)

    async with open_store(IN_MEMORY, inline=True) as store:
        await store.write(put)
        trees = Trees(store, Refusals(), RefusedEntries())
        tree = await trees.for_caller("replica", EVERYWHERE, horizon, anew=True)
        for number in range(3 * MAX_TREES):
            for caller in ("a stranger", f"stranger {number}"):
                small = await trees.for_caller(caller, (Range(number, number + 1),), horizon, anew=True)
                assert len(small) == 0
        assert await trees.for_caller("replica", EVERYWHERE, horizon, anew=False) is tree
        other = await trees.for_caller(
            "replica", EVERYWHERE, horizon.stricter(ExpiryHorizon(0, 0, 0, 0, 0)), anew=False
        )
        assert other is not tree, "it is asked about by other rules"


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
            assert [label for _, label in (await trees.named(tree, tree.hashes.entries())).listed] == ["sound"]
            await store.write(lambda _: None)  # after what was found damaged was dropped
        assert store.damaged == 1
