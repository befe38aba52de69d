"""The six nodes that tests share; their logs are shown beside a failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.end_to_end.network import Network


def _running(folder: Path) -> Iterator[Network]:
    network = Network(folder)
    trio.run(network.start)
    yield network
    trio.run(network.stop)


@pytest.fixture(scope="package")  # six idle nodes take a thirtieth of a core: they end before the tests that need none
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Six nodes for whoever leaves them as they are: running, and without a seventh."""
    yield from _running(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def own_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Six nodes for the tests of a module that kill, freeze or add some, and restore them."""
    yield from _running(tmp_path_factory.mktemp("own_network"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for used in getattr(item, "funcargs", {}).values():
            if isinstance(used, Network):
                report.sections.append(("logs of the nodes", used.logs()))
    return report
