"""What hosts are told of instances, as their checks change, fail to be told, and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio
import trio.testing

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.told_health import TTL, HealthTeller
from registry.client.results import Done
from registry.health.state import HealthState

P, W, C = CheckState.PASSING, CheckState.WARNING, CheckState.CRITICAL


class Host:
    """What is told to a host; it refuses while `refuses`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, HealthState, str]] = []
        self.at: list[float] = []
        self.refuses = False

    async def report(self, key_id: str, state: HealthState, note: str, *, instance: str) -> Done:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            return Done(False, ("nothing is registered here",))
        self.told.append((key_id, instance, state, note))
        self.at.append(trio.current_time())
        return Done(True, ())

    def take(self) -> list[tuple[str, str, HealthState, str]]:
        told, self.told = self.told, []
        return told


@asynccontextmanager
async def telling(states: Mapping[str, CheckResult | None]) -> AsyncIterator[tuple[HealthTeller, Host]]:
    """`states`: by `service/instance`; what isn't there passes."""
    host = Host()
    teller = HealthTeller(host.report, lambda of, one: states.get(f"{of}/{one}", CheckResult(P)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(teller.run)
        await trio.testing.wait_all_tasks_blocked()
        yield teller, host
        nursery.cancel_scope.cancel()


async def test_the_only_instance_is_the_record_and_is_told_before_anything_passes() -> None:
    states = {"web/a": CheckResult(C, "not checked yet")}
    async with telling(states) as (teller, host):
        teller.begin("k", {"a": "web"}, is_checked=True)
        await trio.testing.wait_all_tasks_blocked()
        assert host.take() == [("k", "", HealthState.CRITICAL, "not checked yet")]
        for result in (CheckResult(P, "HTTP 200"), CheckResult(W, "slow"), CheckResult(C, "gone")):
            states["web/a"] = result
            teller.note_change()
            await trio.testing.wait_all_tasks_blocked()
            note = "" if result.state is P else result.note
            assert host.take() == [("k", "", HealthState(result.state), note)]


async def test_a_record_is_as_its_best_instance_and_each_of_several_is_told() -> None:
    states = {"web/a": CheckResult(C, "refused"), "web/b": CheckResult(C, "late")}
    async with telling(states) as (teller, host):
        teller.begin("k", {"a": "web", "b": "web"}, is_checked=True)
        await trio.testing.wait_all_tasks_blocked()
        assert host.take() == [
            ("k", "a", HealthState.CRITICAL, "refused"),
            ("k", "b", HealthState.CRITICAL, "late"),
            ("k", "", HealthState.CRITICAL, "refused"),
        ]
        states["web/b"] = CheckResult(W, "slow")
        teller.note_change()
        await trio.testing.wait_all_tasks_blocked()
        assert host.take() == [("k", "b", HealthState.WARNING, "slow"), ("k", "", HealthState.WARNING, "slow")]
        del states["web/a"]
        teller.note_change()
        await trio.testing.wait_all_tasks_blocked()
        assert host.take() == [("k", "a", HealthState.PASSING, ""), ("k", "", HealthState.PASSING, "")]


async def test_what_isnt_defined_any_more_stays_as_it_was_told_until_its_record_ends() -> None:
    states: dict[str, CheckResult | None] = {"web/a": CheckResult(C, "refused")}
    async with telling(states) as (teller, host):
        teller.begin("k", {"a": "web"}, is_checked=True)
        await trio.testing.wait_all_tasks_blocked()
        host.take()
        states["web/a"] = None
        teller.note_change()
        await trio.testing.wait_all_tasks_blocked()
        assert host.told == []


async def test_what_isnt_checked_or_passes_with_another_figure_costs_nothing() -> None:
    states = {"web/a": CheckResult(P, "HTTP 200 in 3 ms")}
    async with telling(states) as (teller, host):
        teller.begin("k", {"a": "web"}, is_checked=False)
        await trio.testing.wait_all_tasks_blocked()
        states["web/a"] = CheckResult(P, "HTTP 200 in 4 ms")
        teller.note_change()
        await trio.testing.wait_all_tasks_blocked()
        assert host.told == []


async def test_an_instance_that_goes_and_a_record_that_isnt_checked_any_more_pass_again() -> None:
    states = {"web/a": CheckResult(C, "refused"), "web/b": CheckResult(C, "refused")}
    async with telling(states) as (teller, host):
        teller.begin("k", {"a": "web", "b": "web"}, is_checked=True)
        await trio.testing.wait_all_tasks_blocked()
        host.take()
        states.clear()
        teller.begin("k", {"b": "web"}, is_checked=False)  # which ends what was said of the record
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(host.take()) == [("k", "a", HealthState.PASSING, ""), ("k", "b", HealthState.PASSING, "")]
        teller.begin("k", {"b": "web"}, is_checked=True)
        teller.end("k")
        states["web/b"] = CheckResult(C, "refused")
        await trio.testing.wait_all_tasks_blocked()
        assert host.take() == []


async def test_the_time_to_live_is_renewed_and_what_was_refused_is_told_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    states = {"web/a": CheckResult(C, "refused")}
    async with telling(states) as (teller, host):
        host.refuses = True
        began = trio.current_time()
        teller.begin("k", {"a": "web"}, is_checked=True)
        await trio.sleep(20)
        host.refuses = False
        await trio.sleep(6)
        assert host.told == [("k", "", HealthState.CRITICAL, "refused")]
        await trio.sleep(1_000)
        assert set(host.told) == {("k", "", HealthState.CRITICAL, "refused")}
        pauses = [later - earlier for earlier, later in zip(host.at, host.at[1:], strict=False)]
        assert pauses
        assert max(pauses) <= TTL / 2
        assert len(host.at) < 10 + (trio.current_time() - began) / (TTL / 4)
