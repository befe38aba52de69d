"""A light client that provides is off the list soon after it died, at once when it stops, and back with its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from aqua_compat import AquaClient, EventKind, NoProvider, WatchEvent, connect
from registry.health.state import HealthState
from registry.watch.watch import Watch
from tests.end_to_end.forked import ForkedProcess, fork_server
from tests.end_to_end.network import Network, eventually

KILLED_WITHIN = 9.0  # seconds; 7.5 on a machine that has nothing else to do
STOPPED_WITHIN = 3.0
BACK_WITHIN = 5.0


class Provider:
    """A light client in a process of its own, and a resource that it provides a service on."""

    def __init__(self, nodes: list[str], resource_id: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "tests.end_to_end.providing_client"]
        self._arguments = [",".join(nodes), resource_id, str(folder / "key"), str(folder / "sick")]
        self.sick = folder / "sick"
        self.peer_id = ""
        self.process: ForkedProcess | None = None

    async def start(self) -> ForkedProcess:
        self.process = process = await fork_server().open_process(
            [*self._command, *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with trio.fail_after(30):
            self.peer_id = (await process.stdout.receive_some(100)).decode().strip()
        assert self.peer_id, "the provider didn't start"
        return process


@asynccontextmanager
async def provided(
    network: Network, folder: Path, through: list[int]
) -> AsyncIterator[tuple[Provider, AquaClient, str]]:
    """A provider through some nodes, and a client that reads through another one."""
    async with connect(network.nodes[5].address) as reader:
        resource_id, errors = await reader.createResource("provided by a light client")
        assert resource_id is not None, errors
        provider = Provider([network.nodes[number].address for number in through], resource_id, folder)
        try:
            await provider.start()
            yield provider, reader, resource_id
        finally:
            if provider.process is not None:
                provider.process.kill()


async def told(events: Watch, kind: EventKind, within: float) -> WatchEvent:
    """The next event of a kind."""
    with trio.fail_after(within):
        async for event in events:
            if event.kind is kind:
                return event
    raise AssertionError("the watch ended")


@pytest.mark.timeout(120)
async def test_a_killed_provider_is_gone_within_seconds_and_back_with_its_process(
    network: Network, tmp_path: Path
) -> None:
    async with provided(network, tmp_path, [1]) as (provider, reader, resource_id), reader.watch(resource_id) as events:

        async def found() -> list[str]:
            return [record.metadata.peer_id for record in await reader.resolve(resource_id)]

        await eventually(found, [provider.peer_id].__eq__, 10)
        assert await reader.call_any(resource_id, "hello") == "hello"

        provider.sick.touch()
        event = await told(events, EventKind.HEALTH, 5)
        assert event.health is not None
        assert (event.health.health.state, event.health.health.note) == (HealthState.CRITICAL, "it is sick")
        assert await found() == []
        provider.sick.unlink()
        assert (await told(events, EventKind.HEALTH, 5)).health is not None
        assert await found() == [provider.peer_id]

        assert provider.process is not None
        provider.process.kill()
        began = trio.current_time()
        event = await told(events, EventKind.DOWN, KILLED_WITHIN)
        gone = trio.current_time() - began
        assert event.health is not None
        assert event.health.accusers
        assert await found() == []
        with pytest.raises(NoProvider, match=provider.peer_id):  # it is tried all the same, as the last one
            await reader.call_any(resource_id, "hello")
        await provider.start()
        began = trio.current_time()
        await told(events, EventKind.UP, BACK_WITHIN)
        back = trio.current_time() - began
        await eventually(found, [provider.peer_id].__eq__, BACK_WITHIN)

        provider.process.terminate()
        began = trio.current_time()
        await told(events, EventKind.DOWN, KILLED_WITHIN)
        print(f"killed {gone:.2f} s, back {back:.2f} s, ended {trio.current_time() - began:.2f}")  # noqa: T201


async def test_a_provider_that_stops_says_so(network: Network, tmp_path: Path) -> None:
    async with provided(network, tmp_path, [2]) as (provider, reader, resource_id), reader.watch(resource_id) as events:
        await told(events, EventKind.SNAPSHOT, 5)
        assert provider.process is not None
        assert provider.process.stdin is not None
        await trio.sleep(1)
        await provider.process.stdin.aclose()
        began = trio.current_time()
        await told(events, EventKind.REMOVED, STOPPED_WITHIN)
        print(f"stopped {trio.current_time() - began:.2f} s")  # noqa: T201
