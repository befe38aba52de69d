"""`connect` and `node`: where they can be used, and what they take."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from aqua_compat import AquaClient, connect, node


@pytest.mark.parametrize("way_in", ["client", "node"])
def test_outside_trio_it_is_told_what_to_use(way_in: str, tmp_path: Path) -> None:
    async def enter(context: AbstractAsyncContextManager[AquaClient]) -> None:
        async with context:
            pass

    with pytest.raises(RuntimeError, match=r"Trio.*BlockingClient"):
        asyncio.run(enter(connect("/ip4/127.0.0.1/tcp/1") if way_in == "client" else node(tmp_path)))


async def test_a_data_folder_may_be_given_as_text(tmp_path: Path) -> None:
    async with node(str(tmp_path / "node")) as aqua:
        told = await aqua.on(aqua.peer_id).call("peer", "identify")
        async with connect(told["external_addresses"], data_dir=str(tmp_path / "light")):
            pass
    assert (tmp_path / "node" / "identity.json").exists()
    assert (tmp_path / "light").is_dir()
