"""Honest clients of a node that may be under attack: they resolve, register and call, and note how long it took."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from aqua_compat import AquaClient, connect
from registry.client.node_status import NodeStatus
from registry.errors import RegistryError

_RESOURCES = 20


class Latencies(NamedTuple):
    """Of what was done in a while: milliseconds in which half of it, and 99 of 100, were done; how often it failed."""

    durations: list[float]
    """Seconds that each thing took, sorted."""
    p50: float
    p99: float
    failed: int

    @classmethod
    def of(cls, durations: Iterable[float], failed: int = 0) -> Latencies:
        """Of what took so many seconds each."""
        rising = sorted(durations)
        p50, p99 = (rising[int(len(rising) * part)] * 1000 if rising else 0.0 for part in (0.5, 0.99))
        return cls(rising, p50, p99, failed)


class HonestClients:
    """One provides a service, the other one uses it, and both act through the same node. Made by `honest_clients`."""

    def __init__(self, node: str, provider: AquaClient, user: AquaClient, resources: list[str]) -> None:
        self._node = node
        self._provider = provider
        self._user = user
        self.resources = resources
        self._durations: list[float] = []
        self._failed = 0
        self._rounds = 0

    async def work(self, per_second: float) -> None:
        """Do a round of everything so often, until cancelled."""
        due = trio.current_time()
        while True:
            await self.round()
            due = max(due + 1 / per_second, trio.current_time())
            await trio.sleep_until(due)

    async def round(self) -> None:
        """Resolve, register and call, once each."""
        self._rounds += 1
        resource_id = self.resources[self._rounds % len(self.resources)]
        await self._timed(self._resolve(resource_id))
        await self._timed(self._register(resource_id))
        await self._timed(self._call())

    def take(self) -> Latencies:
        """How it went since the last time."""
        durations, failed = self._durations, self._failed
        self._durations, self._failed = [], 0
        return Latencies.of(durations, failed)

    async def status(self) -> NodeStatus | None:
        """What the node says of itself; None where it doesn't answer."""
        try:
            return await self._user.registry.status()
        except RegistryError:
            return None

    async def _timed(self, done: Awaitable[bool]) -> None:
        before = time.perf_counter()
        try:
            succeeded = await done
        except Exception:  # it is counted, whatever the API raises
            succeeded = False
        self._durations.append(time.perf_counter() - before)
        self._failed += not succeeded

    async def _resolve(self, resource_id: str) -> bool:
        records, _ = await self._user.resolveResource(resource_id, 1)
        return bool(records)

    async def _register(self, resource_id: str) -> bool:
        registered, _ = await self._provider.registerService(resource_id, "value", self._provider.peer_id, None)
        return bool(registered)

    async def _call(self) -> bool:
        return await self._user.on(self._provider.peer_id, via=self._node).call("echo", "echo", "hi") == "hi"


@asynccontextmanager
async def honest_clients(address: str, count: int = _RESOURCES) -> AsyncIterator[HonestClients]:
    """Two clients of the node at `address`, and so many resources that they use."""

    async def echo(text: str) -> str:
        return text

    async with connect(address) as provider, connect(address) as user:
        provider.serve("echo", {"echo": echo})
        resources: list[str] = []
        for number in range(count):
            resource_id, errors = await provider.createResource(f"honest {number}")
            assert resource_id is not None, errors
            registered, errors = await provider.registerService(resource_id, "value", provider.peer_id, None)
            assert registered, errors
            resources.append(resource_id)
        clients = HonestClients(address.rpartition("/p2p/")[2], provider, user, resources)
        await clients.round()
        first = clients.take()
        assert first.failed == 0, "the honest clients don't even work in peace"
        yield clients
