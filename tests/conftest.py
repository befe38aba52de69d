"""How the tests are spread over workers: what shares a network stays together, and what takes longest starts first."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# How long an example takes says how busy the machine is: several workers share it. What has to be quick has tests of
# its own, with a clock of its own.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# Each worker imports and rewrites all tests, and starts processes that import all packages: where the environment keeps
# Python from caching what it compiled, that is 5 s of CPU each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

WORKERS: Final = 3  # on two cores: tests often wait for other processes
ORDER: Final = ("attacks", "faults", "aqua", "oracle", "end_to_end", "simulation", "unit")
TOGETHER: Final = (
    "tests/aqua/",
    "tests/oracle/",
    "tests/end_to_end/test_durability.py",
    "tests/end_to_end/test_light_client.py",
    "tests/end_to_end/test_relays.py",
)
"""What has a network, or an original, of its own for all its tests: each runs in one worker."""


class Scheduling(LoadScopeScheduling):
    """Gives each free worker the next test, or all of those that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((shared for shared in TOGETHER if nodeid.startswith(shared)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers are for all tests; a chosen file runs in this process."""
    return WORKERS if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that have more time than others, since they need it; pytest-randomly has shuffled them before."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[float, int]:
    timeout = item.get_closest_marker("timeout")
    [_, folder, *_] = item.nodeid.split("/")
    return -timeout.args[0] if timeout else 0, ORDER.index(folder)
