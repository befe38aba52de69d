"""A changed token is noticed, wherever its file really is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import watchfiles

from overlay.rpc.network_files import NetworkFiles

pytestmark = pytest.mark.usefixtures("short_looks")
SEEN_WITHIN = 5.0  # seconds


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.rpc.network_files._LOOKED_INTO", 200)


@asynccontextmanager
async def watched(token: Path, data_dir: Path) -> AsyncIterator[list[str]]:
    """What the token is each time that a change is told; the first has been told."""
    seen: list[str] = []
    files = NetworkFiles(data_dir, str(token))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.watch_token, lambda: seen.append(token.read_text() if token.exists() else ""))
        await until(seen, seen_first=True)
        yield seen
        nursery.cancel_scope.cancel()


async def until(seen: list[str], text: str = "", *, seen_first: bool = False) -> None:
    with trio.fail_after(SEEN_WITHIN):
        while not seen or (not seen_first and seen[-1] != text):  # noqa: ASYNC110 - a thread tells
            await trio.sleep(0.02)


async def test_a_token_that_is_written_in_its_place_is_noticed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    async with watched(token, tmp_path / "data") as seen:
        (tmp_path / "next").write_text("second")
        (tmp_path / "next").replace(token)
        await until(seen, "second")


async def test_a_token_behind_links_is_noticed_as_kubernetes_replaces_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for version in ("first", "second"):
        (secret / f"..{version}").mkdir(parents=True)
        (secret / f"..{version}" / "token").write_text(version)
    (secret / "..data").symlink_to("..first")
    (secret / "token").symlink_to("..data/token")
    async with watched(secret / "token", tmp_path / "data") as seen:
        (secret / "..data_tmp").symlink_to("..second")
        (secret / "..data_tmp").replace(secret / "..data")
        await until(seen, "second")


async def test_a_token_in_a_folder_that_was_replaced_or_came_later_is_noticed(tmp_path: Path) -> None:
    token = tmp_path / "network" / "token"
    async with watched(token, tmp_path) as seen:
        for number, text in enumerate(("first", "second")):
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "token").write_text(text)
            if token.parent.exists():
                token.parent.rename(tmp_path / f"old{number}")
            (tmp_path / "new").rename(token.parent)
            await until(seen, text)


async def test_where_no_folder_can_be_watched_any_more_the_token_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")  # as where a user has 128 such watches

    monkeypatch.setattr(watchfiles, "watch", refuse)
    token = tmp_path / "token"
    token.write_text("first")
    async with watched(token, tmp_path / "data") as seen:
        token.write_text("second, longer")
        await until(seen, "second, longer")
