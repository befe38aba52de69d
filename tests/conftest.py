"""How the tests are spread over workers: what shares a network stays together, and what takes longest starts first."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is: several workers share it. What has to be quick has tests of its
# own, with a clock of its own.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

WORKERS: Final = 4  # on two cores: most tests wait for other processes most of the time
ORDER: Final = ("aqua", "end_to_end", "simulation", "unit")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers are for all tests; a chosen file runs in this process."""
    return WORKERS if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    yield  # other plugins shuffle them and name their groups
    items.sort(key=_place)


def _group(item: pytest.Item) -> str | None:
    """Tests of a group run in one worker."""
    [_, folder, *_] = item.nodeid.split("/")
    if folder == "aqua":
        return folder
    if "own_network" in getattr(item, "fixturenames", ()):
        return item.path.stem
    return None


def _place(item: pytest.Item) -> tuple[float, int]:
    """First those that have more time than others, since they need it."""
    timeout = item.get_closest_marker("timeout")
    [_, folder, *_] = item.nodeid.split("/")
    return -timeout.args[0] if timeout else 0, ORDER.index(folder)
