"""Networks of 0.1 are stopped and upgraded with their data: folders that its nodes left, taken up by nodes of today."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from overlay.identity import load_or_create_identity
from overlay.settings import OverlaySettings
from registry.node import DATABASE, Node, open_node
from registry.settings import NodeSettings
from tests.end_to_end.network import eventually
from tests.paths import DATA

STOPPED: Final = 1795648118  # seconds since 1970 when they were
RESOURCE: Final = "B4EDK2hvZLLTw59mbX2jdxHzm3Q98NarqtMYf1ob1KBS"
REMOVED: Final = "7NZADhtzKbdveUYzywVWWnWkZ9Wxm7PkzDpAgs3cxskN"
VALUES: Final = {"tcp://192.0.2.1:80", "tcp://192.0.2.2:80", "on-two"}


BEGAN: Final = time.monotonic()


def clock() -> float:
    """A wall clock that went on when those nodes stopped: their records live for a day."""
    return STOPPED + 60 + time.monotonic() - BEGAN


@asynccontextmanager
async def upgraded(folder: Path, name: str, *bootstrap: str) -> AsyncIterator[Node]:
    """A node of today on a folder of 0.1."""
    data_dir = folder / name
    data_dir.mkdir()
    shutil.copy(DATA / "folder-0.1" / name / "identity.json", data_dir)
    (data_dir / "identity.json").chmod(0o600)  # as 0.1 left it; repositories don't keep that
    with sqlite3.connect(data_dir / DATABASE) as database:
        database.executescript((DATA / "folder-0.1" / name / "registry.sql").read_text())
    identity = load_or_create_identity(data_dir / "identity.json")
    settings = NodeSettings(overlay=OverlaySettings(bootstrap=bootstrap))
    async with open_node(identity, settings, data_dir, clock=clock) as node:
        yield node


async def values_through(node: Node) -> set[str]:
    """The values that are registered on the resource, as both nodes know it together."""
    resolved = await node.registry.resolve_resource(RESOURCE, 2)
    return {record.metadata.value for record in resolved.records or ()}


async def test_what_nodes_of_0_1_left_is_there_and_goes_on(tmp_path: Path) -> None:
    async with upgraded(tmp_path, "one") as one, upgraded(tmp_path, "two", *one.peer.addresses()) as two:
        await two.peer.wait_joined()
        for node in (one, two):
            assert await eventually(partial(values_through, node), lambda found: len(found) == 3) == VALUES
        gone = await two.registry.resolve_resource(REMOVED, 1)
        assert gone.records is None
        assert any("removed" in error for error in gone.errors), gone.errors
        history = await one.store.read(lambda transaction: transaction.history.last(RESOURCE, 100))
        assert history, "what happened to it is still told"
        done = await two.registry.register_service(RESOURCE, "new", two.peer.peer_id, "s", factor=2)
        assert done.success, done.errors
        assert await values_through(one) == {*VALUES, "new"}, "a slot of its own issuer's"
