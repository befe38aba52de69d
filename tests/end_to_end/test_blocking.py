"""The client for threads, against real node processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from aqua_compat import BlockingClient
from aqua_compat.rpc.errors import NoSuchService
from registry.errors import NodeUnavailable
from tests.end_to_end.network import MAJORITY, SEEN_BY_A_MAJORITY, Network


async def test_threads_create_provide_resolve_call_and_watch(network: Network) -> None:
    await trio.to_thread.run_sync(_use, network.nodes[0].address, network.nodes[1].address)


def _use(provider_relay: str, user_relay: str) -> None:
    with BlockingClient(provider_relay, constants=SEEN_BY_A_MAJORITY) as provider, BlockingClient(user_relay) as user:
        resource_id, errors = provider.createResource("blocking")
        assert errors == []
        functions = {"name": threading.current_thread().name.__str__, "count": _count}
        with provider.provide(resource_id, "thread", functions):
            events = user.watch(resource_id)
            assert next(events).kind.name == "SNAPSHOT"
            events.close()
            everything = user.watch(resource_id, include_down=True)
            assert next(everything).kind.name == "SNAPSHOT"
            everything.close()
            with ThreadPoolExecutor(4) as pool:
                names = list(pool.map(lambda _: user.call_any(resource_id, "name", ack=MAJORITY), range(8)))
            assert names == [threading.current_thread().name] * 8
            relay = provider.run(_host)
            assert user.call(provider.peer_id, "thread", "name", via=relay) == names[0]
            counted = user.stream(provider.peer_id, "thread", "count", 3, via=relay)
            assert list(counted) == [0, 1, 2]
            endless = user.stream(provider.peer_id, "thread", "count", 10**9, via=relay)
            assert next(endless) == 0
            endless.close()
            assert asyncio.run(asyncio.to_thread(user.call_any, resource_id, "name", ack=MAJORITY)) == names[0]
        with pytest.raises(NoSuchService):
            user.call(provider.peer_id, "thread", "name", via=relay)
    with pytest.raises(RuntimeError, match="closed"):
        user.resolveResource(resource_id, 1)


def _count(until: int) -> Iterator[int]:
    yield from range(until)


async def _host(client: object) -> str:
    await trio.lowlevel.checkpoint()
    return str(client.host_peer_id)  # type: ignore[attr-defined]


async def test_no_node_is_told_to_the_thread_that_connects(network: Network) -> None:
    address = network.nodes[0].address.replace(network.nodes[0].address.split("/")[4], "1")

    def connect() -> None:
        with BlockingClient(address):
            raise AssertionError

    with pytest.raises(NodeUnavailable):
        await trio.to_thread.run_sync(connect)
