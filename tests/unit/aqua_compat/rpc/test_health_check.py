"""Checks of provided services: what their results mean, and that a service is never taken for passing without one."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from aqua_compat.rpc.health_check import EVERY, HealthCheck, said_by
from overlay.tasks import background
from registry.client.registry import Registry
from registry.health.state import HealthState
from tests.simulation.nodes import simulated_nodes

PASSING, WARNING, CRITICAL = HealthState.PASSING, HealthState.WARNING, HealthState.CRITICAL


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, (PASSING, "")),
        (True, (PASSING, "")),
        (False, (CRITICAL, "the check returned False")),
        ("warning", (WARNING, "")),
        (CRITICAL, (CRITICAL, "")),
        ((WARNING, "slow"), (WARNING, "slow")),
        (("critical", "disk full"), (CRITICAL, "disk full")),
        (["passing", "fine"], (PASSING, "fine")),
    ],
)
def test_what_a_check_returns_is_what_is_said(result: object, said: tuple[HealthState, str]) -> None:
    assert said_by(result) == said


@pytest.mark.parametrize("result", [0, 1, {}, ("warning",), ("warning", 5), "fine", HealthState.UNKNOWN, ("", "")])
def test_what_a_check_cannot_return_is_critical_and_told(result: object) -> None:
    state, note = said_by(result)
    assert state is CRITICAL
    assert note.startswith("the check returned")


async def test_what_a_check_raises_is_critical_with_its_text() -> None:
    def check() -> None:
        raise ConnectionError("no answer from the database")

    assert await HealthCheck(check, 1).once() == (CRITICAL, "ConnectionError: no answer from the database")


async def test_checks_are_async_or_sync() -> None:
    async def check() -> str:
        await trio.lowlevel.checkpoint()
        return "warning"

    for each in (check, partial(check), lambda: "warning", lambda: check()):  # noqa: PLW0108 - a sync function
        assert await HealthCheck(each, 1).once() == (WARNING, "")


@pytest.mark.parametrize("every", [0, 0.09, -1, float("nan")])
def test_checks_are_not_made_without_a_pause(every: float) -> None:
    with pytest.raises(ValueError, match="too often"):
        HealthCheck(None, every)


async def test_a_check_that_hangs_is_critical_and_takes_one_thread_however_often_it_is_made() -> None:
    release, started = threading.Event(), 0

    def check() -> None:
        nonlocal started
        started += 1
        release.wait(30)

    hanging = HealthCheck(check, 0.1)
    try:
        for _ in range(3):
            assert await hanging.once() == (CRITICAL, "the check took longer than 0.1 s")
        assert started == 1
    finally:
        release.set()


@asynccontextmanager
async def registered(check: HealthCheck) -> AsyncIterator[tuple[Registry, str]]:
    """A node's registry with a service whose check runs."""
    async with simulated_nodes(1) as (_, [node]):
        registry = node.registry
        resource_id = (await registry.create_resource("web")).resource_id or ""
        assert (await registry.register_service(resource_id, "", node.peer_id, None, ttl=check.ttl)).success
        yield registry, resource_id


async def test_a_service_is_critical_until_its_first_check_is_done_and_then_as_each_says(
    autojump_clock: object,
) -> None:
    results = iter([None, ("warning", "slow"), False, None])

    async def check() -> object:
        await trio.sleep(1)
        return next(results)

    checking = HealthCheck(check, EVERY)
    async with registered(checking) as (registry, resource_id), background() as nursery:
        nursery.start_soon(checking.run, registry, resource_id)
        seen = []
        await trio.sleep(0.5)
        for _ in range(5):
            seen.append(registry.own_health(resource_id).state)
            await trio.sleep(EVERY if len(seen) > 1 else 1)
        assert seen == [CRITICAL, PASSING, WARNING, CRITICAL, PASSING]


async def test_a_service_whose_checks_are_not_made_any_more_turns_critical(autojump_clock: object) -> None:
    checking = HealthCheck(None, EVERY)
    async with registered(checking) as (registry, resource_id):
        async with background() as nursery:
            nursery.start_soon(checking.run, registry, resource_id)
            await trio.sleep(100)
            assert registry.own_health(resource_id).state is PASSING
        await trio.sleep(checking.ttl + 0.1)
        assert registry.own_health(resource_id).state is CRITICAL


async def test_checks_go_on_after_the_record_has_ended(autojump_clock: object) -> None:
    checking = HealthCheck(None, EVERY)
    async with registered(checking) as (registry, resource_id), background() as nursery:
        nursery.start_soon(checking.run, registry, resource_id)
        await trio.sleep(1)
        assert (await registry.remove_resource(resource_id)).success
        await trio.sleep(3 * EVERY)
        assert (await registry.create_resource("web")).resource_id == resource_id
        await trio.sleep(1.5)
        assert (await registry.register_service(resource_id, "", registry.host_peer_id, None, ttl=20)).success
        await trio.sleep(EVERY)
        assert registry.own_health(resource_id).state is PASSING
