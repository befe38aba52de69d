"""What scripts can call, put together for a node."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from aqua_compat.builtins.kad import Kad
from aqua_compat.builtins.trust_graph import in_memory
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls.host_services import host_services
from aqua_compat.particles.settings import AquaSettings
from overlay.discovery.keyspace import nearest, wrapped_position
from overlay.limits.time_slices import TimeSlices
from tests.simulation.nodes import simulated_nodes
from tests.unit.aqua_compat.particles.scripts import a_holding, a_particle
from tests.unit.registry.builders import identity


@pytest.mark.parametrize(
    ("service", "function", "arguments"),
    [
        ("op", "identity", [[1]]),
        ("math", "add", [1, 2]),
        ("cmp", "gt", [1, 2]),
        ("kad", "merge", ["1", [identity(1).peer_id], []]),
        ("sig", "verify", [[1] * 64, [1] * 8000]),
        ("registry", "merge", [[]]),
    ],
)
async def test_what_only_computes_waits_for_the_turn_of_whoever_brought_it(
    autojump_clock, service: str, function: str, arguments: list[Any]
) -> None:
    time_slices, done = TimeSlices(), trio.Event()
    async with simulated_nodes(1) as (_, [node]), trio.open_nursery() as nursery:
        services = host_services(
            cast("Any", node),
            node.identity,
            in_memory(node.peer_id),
            AquaSettings(),
            time_slices,
            FairSemaphore(64, 16),
        )

        async def call() -> None:
            context = Context(a_particle(), "a client", trio.current_time() + 10, a_holding())
            await services[service][function](context, arguments, [])
            done.set()

        async with time_slices.slice("a client"):
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not done.is_set()
        with trio.fail_after(1):
            await done.wait()


async def test_others_get_turns_while_many_peer_ids_are_merged() -> None:
    peers, time_slices = [identity(number).peer_id for number in range(1000)], 0

    async def others() -> None:
        nonlocal time_slices
        while True:
            time_slices += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        merged = await Kad(cast("Any", None)).merge("1", peers[:600], peers[400:], 50)
        nursery.cancel_scope.cancel()
    assert merged == nearest(wrapped_position(b"\0"), peers, 50)
    assert time_slices >= 10
