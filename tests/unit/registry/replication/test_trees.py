"""Building hash trees out of what is stored."""

from __future__ import annotations

import gc
from typing import cast

import trio

from registry.model.expiry_horizon import ExpiryHorizon
from registry.replication.ranges import EVERYWHERE
from registry.replication.refusals import Refusals, RefusedEntries
from registry.replication.trees import Trees
from registry.storage import Store
from registry.storage.checked_rows import Place


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
