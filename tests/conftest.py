"""How the tests are spread over workers: what shares a network stays together, and what takes longest starts first.

What starts so many nodes that two cores are just enough for them is marked `alone`, and runs beside nothing else. What
computes for so long that it needs a whole core is marked `core`, and meanwhile one worker fewer starts tests.

And what is logged in this process: it is kept, and made text only where a test fails. As text it took each network in
one process a twentieth of its CPU.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest
import structlog
from filelock import FileLock, ReadWriteLock
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# How long an example takes says how busy the machine is: several workers share it. What has to be quick has tests of
# its own, with a clock of its own.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.register_profile("thorough", settings.get_profile("shared machine"), max_examples=2_000)
settings.load_profile("shared machine")

# Each worker imports and rewrites all tests, and starts processes that import all packages: where the environment keeps
# Python from caching what it compiled, that is 5 s of CPU each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

WORKERS: Final = 3  # on two cores: one computes, and the tests of the others often wait for other processes
ORDER: Final = ("attacks", "faults", "aqua", "oracle", "end_to_end", "simulation", "unit")
TOGETHER: Final = (
    "tests/aqua/",
    "tests/oracle/",
    "tests/end_to_end/test_durability.py",
    "tests/end_to_end/test_light_client.py",
    "tests/end_to_end/test_relays.py",
    "tests/unit/overlay/libp2p/test_deferred_imports.py",
    "tests/unit/test_names.py",
)
"""What has a network, an original or a process of its own for all its tests, or reads all modules: each runs in one
worker."""
COMPUTING: Final = ("tests/simulation/", "tests/unit/")
"""What keeps a core busy. One worker takes these first and the others the rest, so that both cores are used all the
time, and real networks run beside one of these and not beside several."""

MACHINE: Final = pytest.StashKey[ReadWriteLock]()
"""Of all workers; where no test of the run is marked `alone` there is none."""

CORE: Final = pytest.StashKey[FileLock]()
"""Of all workers: held by a test that has a core for itself, meanwhile the last worker begins none."""

LOGGED: Final = 2_000  # events of a test that are kept, the last ones
_logged: deque[tuple[str, structlog.typing.EventDict]] = deque(maxlen=LOGGED)
_at_once: Final = (  # what isn't known any more later
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.dev.set_exc_info,
    structlog.processors.format_exc_info,
    structlog.processors.TimeStamper("%H:%M:%S.%f", utc=False),
)


def _keep(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    _logged.append((method, event))
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Tests that look at what is logged, or want none of it, say so themselves."""
    structlog.configure(processors=[*_at_once, _keep])
    yield
    structlog.reset_defaults()
    _logged.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and _logged:
        render = structlog.dev.ConsoleRenderer(colors=False)
        text = "\n".join(str(render(None, method, dict(event))) for method, event in _logged)
        report.sections.append(("Logged in this process", text))
    return report


class Scheduling(LoadScopeScheduling):
    """Gives each free worker the next test, or all of those that stay together: of its own kind (see `COMPUTING`), or
    of the other when there are no more of these."""

    def _split_scope(self, nodeid: str) -> str:
        return next((shared for shared in TOGETHER if nodeid.startswith(shared)), nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        computes = node is self.nodes[0]
        own = next((scope for scope in self.workqueue if scope.startswith(COMPUTING) is computes), None)
        if own is not None:
            self.workqueue.move_to_end(own, last=False)
        super()._assign_work_unit(node)
        assigned = self.assigned_work[node]  # all of which is counted after each test
        for scope in [scope for scope, tests in assigned.items() if all(tests.values())]:
            del assigned[scope]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers are for all tests; a chosen file runs in this process."""
    return WORKERS if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that have more time than others, since they need it; pytest-randomly has shuffled them before."""
    items.sort(key=_place)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """All that was imported stays: Python needn't look through it for garbage again and again.

    And where a test is going to have the machine alone, all the others have to ask whether they may run.
    """
    gc.collect()
    gc.freeze()
    cache = session.config.cache
    if cache is not None:
        session.config.stash[CORE] = FileLock(cache.mkdir("machine") / "core.lock")
    if cache is not None and any(item.get_closest_marker("alone") for item in session.items):
        session.config.stash[MACHINE] = ReadWriteLock(cache.mkdir("machine") / "lock.sqlite")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What is marked `alone` waits until the other workers' tests have ended, and lets none begin beside it. That is
    before a test's time begins to count."""
    with contextlib.ExitStack() as held:
        core, machine = item.config.stash.get(CORE, None), item.config.stash.get(MACHINE, None)
        if core is not None and item.get_closest_marker("core"):
            held.enter_context(core)
        elif core is not None and os.environ.get("PYTEST_XDIST_WORKER") == f"gw{WORKERS - 1}":
            with core:  # whoever has a core for itself shares the machine with one other worker
                pass
        if machine is not None:
            held.enter_context(machine.write_lock() if item.get_closest_marker("alone") else machine.read_lock())
        return (yield)


def _place(item: pytest.Item) -> tuple[float, int]:
    timeout = item.get_closest_marker("timeout")
    [_, folder, *_] = item.nodeid.split("/")
    return -timeout.args[0] if timeout else 0, ORDER.index(folder)
