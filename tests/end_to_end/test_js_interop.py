"""js-libp2p in a resource's topic: it hears and decodes announcements, and its garbage harms nobody."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from aqua_compat import connect
from tests.aqua.npm import Missing, install
from tests.end_to_end.network import Network, eventually
from tests.end_to_end.test_announcements import announcer, topics_of
from tests.end_to_end.test_watch import Watcher, watching

PACKAGE = Path(__file__).parent.parent / "data" / "js"


@pytest.fixture(scope="module")
def js_folder() -> Path:
    """The watcher, with what it needs from npm."""
    try:
        install(PACKAGE)
    except Missing as missing:
        pytest.skip(str(missing))
    return PACKAGE


class JsWatcher:
    """A running watcher.mjs and the lines that it has printed."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def read(self) -> None:
        assert self._process.stdout is not None
        received = b""
        async for piece in self._process.stdout:
            received += piece
            *lines, received = received.split(b"\n")
            self.lines += [json.loads(line) for line in lines]

    async def publish(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def said(self, field: str, count: int = 1) -> list[dict[str, Any]]:
        return await eventually(self._lines_with(field), lambda found: len(found) >= count, 20)

    def _lines_with(self, field: str) -> Any:
        async def lines() -> list[dict[str, Any]]:
            await trio.lowlevel.checkpoint()
            return [line for line in self.lines if field in line]

        return lines


@asynccontextmanager
async def js_watcher(folder: Path, address: str, topic: str) -> AsyncIterator[JsWatcher]:
    process = await trio.lowlevel.open_process(
        ["node", "watcher.mjs", address, topic], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    watcher = JsWatcher(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.read)
            await watcher.said("ready")
            yield watcher
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.timeout(180)
async def test_a_js_peer_hears_of_a_registration_and_its_garbage_is_refused(network: Network, js_folder: Path) -> None:
    async with connect(network.relay()) as issuer, connect(network.relay()) as other:
        resource_id, errors = await issuer.createResource("in another language")
        assert resource_id is not None, errors
        watcher = Watcher(other, resource_id)
        async with watching(watcher):
            node = announcer(network, other)
            before = (await topics_of(node)).invalid
            async with js_watcher(js_folder, node.address, resource_id) as js:
                assert await issuer.registerService(resource_id, "heard", issuer.peer_id, "s") == (True, [])
                told = (await js.said("topic"))[0]
                assert told["topic"] == resource_id
                assert "in another language" in told["key"]
                assert any("heard" in json.dumps(field) for field in told["state"])
                for number in range(12):
                    await js.publish(f"garbage {number}")
                await js.said("published", 12)

                await eventually(partial(topics_of, node), lambda topics: topics.invalid >= before + 10)
                assert await issuer.registerService(resource_id, "still", issuer.peer_id, "s") == (True, [])
                await eventually(trio.lowlevel.checkpoint, lambda _: watcher.values() == ["still"], 2)
                assert len(watcher.events) == 3
