"""What must always hold, after everything went wrong (docs/design.md, What always holds)."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import structlog
import trio

from overlay.discovery.keyspace import nearest, resource_position
from registry.model.values import Record
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from tests.paths import ROOT
from tests.simulation.__main__ import SHORT_FAULTS, SHORT_NODES, SHORT_PACE, SHORT_REPAIR
from tests.simulation.clock import VirtualClock
from tests.simulation.scenario import Attempt, Report, possible, run
from tests.simulation.world import World

LARGE = 1002  # a seed whose nodes lie evenly enough: more than a home's on each half of the keyspace
HANGS = 300  # seconds of the wall clock: these only compute, for a minute and more beside other workers
SHORT = 60.0  # seconds in which things go wrong
REPAIR = 60.0  # seconds between comparisons: afterwards each run waits for longer than that


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads what hundreds of nodes log."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(HANGS)
def test_what_was_acknowledged_is_found_and_what_ended_is_not_after_faults() -> None:
    report = run(7, faults=1.5 * SHORT, repair=REPAIR / 2, pace=1.8)
    assert report.acknowledged > 60, "hardly anything was written"
    assert report.crashes > 5, "hardly anything went wrong"
    assert min(report.left, report.sick, report.rotten) > 1, "no caller left, or no machine was sick"
    assert report.reads > 20, "hardly anything was read"
    assert report.events > 60, "hardly anything was told to watchers"
    assert report.changes > 10, "hardly any policy was changed"
    assert report.begun_anew > 0, "no resource with a policy was removed"
    assert report.refused > 5, "hardly anybody was kept out"
    assert report.forged > 100, "hardly anything was forged"
    assert report.audited > 1000, "hardly anybody was looked at"
    assert report.downs > 5, "hardly any watcher was told that a host is down"
    assert report.deaths > 1, "nobody died in the end"


@pytest.mark.core
@pytest.mark.timeout(HANGS)
def test_the_same_holds_in_a_larger_network_in_which_links_are_closed_to_save_them() -> None:
    report = run(LARGE, nodes=60, faults=SHORT / 2, repair=REPAIR / 3)
    assert report.acknowledged > 20
    assert report.crashes > 1
    assert report.events > 12
    assert report.closed > 100, "nobody had to close a link"


@pytest.mark.core
def test_the_same_holds_where_replicas_pass_writes_on() -> None:
    assert run(2004, nodes=12, replicas=9, faults=1.25 * SHORT, repair=REPAIR / 1.5).acknowledged > 50


@pytest.mark.timeout(HANGS)
def test_short_seeds_of_small_networks_have_the_same_faults_and_the_same_trace_in_any_process() -> None:
    one, other = _reported_twice(
        f"55, {SHORT_NODES}, faults={SHORT_FAULTS}, repair={SHORT_REPAIR}, pace={SHORT_PACE}", HANGS
    )
    assert min(one.crashes, one.sick, one.rotten, one.acknowledged) > 3, "hardly anything happened"
    assert min(one.left, one.reads, one.changes, one.events, one.downs, one.deaths) > 0, "something never happened"
    assert one == other


@pytest.mark.slow
@pytest.mark.timeout(4 * HANGS)
def test_larger_networks_have_the_same_trace_in_any_process() -> None:
    one, other = _reported_twice(f"{LARGE}, nodes=60, faults={SHORT / 2}, repair=50", 4 * HANGS)
    assert one.closed > 100, "hardly anything happened"
    assert one == other


def test_another_seed_gives_another_trace() -> None:
    first, second = (run(seed, SHORT_NODES, faults=1, repair=5).trace for seed in (7, 8))
    assert first != second


@pytest.mark.slow
@pytest.mark.timeout(20 * HANGS)
@pytest.mark.parametrize("seed", range(9, 29))
def test_the_same_holds_with_more_seeds(seed: int) -> None:
    check(run(seed))


@pytest.mark.slow
@pytest.mark.timeout(20 * HANGS)
@pytest.mark.parametrize("seed", [1000, LARGE])
def test_the_same_holds_for_longer_in_larger_networks(seed: int) -> None:
    check(run(seed, nodes=60))


def check(report: Report) -> None:
    assert report.acknowledged > 100, "hardly anything was written"
    assert report.crashes > 10, "hardly anything went wrong"
    assert report.events > 100, "hardly anything was told to watchers"


def test_what_may_be_found_is_the_last_acknowledged_write_or_a_later_attempt() -> None:
    attempts = [Attempt("a", True), Attempt("b", True), Attempt("c", False), Attempt(None, False)]
    assert possible(attempts) == {"b", "c", None}
    assert possible([Attempt("a", True), Attempt(None, True)]) == {None}
    assert possible([]) == {None}


def test_at_the_limit_of_records_replicas_settle_and_keep_what_they_acknowledged(tmp_path: Path) -> None:
    """They may keep different ones, since the newcomer is refused; but they don't offer the rest for ever."""
    trio.run(_limit, tmp_path, clock=VirtualClock())


LIMIT = 4
PERIOD = 100.0


async def _limit(folder: Path) -> None:
    settings = NodeSettings(
        registry=RegistrySettings(neighbourhood_size=5, responsibility_margin=3, records_per_key=LIMIT),
        upkeep=UpkeepSettings(replicate=PERIOD),
    )
    async with trio.open_nursery() as nursery:
        world = World(nursery, random.Random(1), settings, folder, lambda event: None)
        for _ in range(15):
            await world.add()
        world.network.delay = 0.1
        await trio.sleep(5)
        first = world.nodes[0].parts
        assert first is not None
        created = await first.registry.create_resource("crowded", factor=3)
        resource_id = created.resource_id
        assert resource_id is not None, created.errors
        world.split({node.peer_id: node.number % 2 for node in world.nodes})
        await trio.sleep(10)
        kept: list[str] = []
        for node in world.nodes:
            assert node.parts is not None
            done = await node.parts.registry.register_service(resource_id, "v", node.peer_id, None, factor=3)
            if done.success:
                kept.append(node.peer_id)
            else:
                assert any("Values limit" in error for error in done.errors), done.errors
        assert LIMIT <= len(kept) < 15
        world.split({})
        await trio.sleep(3 * PERIOD)
        held: set[str] = set()
        keepers = nearest(resource_position(resource_id), world.network.alive(), 5)
        for node in world.nodes:
            if node.peer_id in keepers:
                assert node.store is not None
                slots = (await node.store.resource(resource_id)).slots
                foreign = [state for slot, state in slots.items() if slot.peer_id != node.peer_id]
                assert len(foreign) == LIMIT, f"node {node.number} keeps {len(foreign)} records"
                assert all(isinstance(state, Record) for state in foreign)
                held |= {slot.peer_id for slot in slots}
        repaired = _repaired(world)
        resolved = await first.registry.resolve_resource(resource_id, 5)
        assert {record.metadata.peer_id for record in resolved.records or ()} == held
        await trio.sleep(2 * PERIOD)
        assert _repaired(world) == repaired, "replicas go on sending what was refused"
        nursery.cancel_scope.cancel()


def _repaired(world: World) -> int:
    return sum(node.parts.replication.status().repaired for node in world.up() if node.parts)


def _reported_twice(arguments: str, timeout: float) -> tuple[Report, Report]:
    """`run(arguments)` in two processes, in which sets have different orders. Raises when something didn't hold.

    `timeout`: seconds until the test is ended.
    """
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda hash_seed: _reported(arguments, hash_seed, timeout - 10), ("1", "2"))
    return one, other


def _reported(arguments: str, hash_seed: str, timeout: float) -> Report:
    imports = "import logging, msgspec, structlog; from tests.simulation.scenario import run"
    quiet = "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))"
    program = f"{imports}; {quiet}; print(msgspec.json.encode(run({arguments})).decode())"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return msgspec.json.decode(ran.stdout.splitlines()[-1], type=Report)
