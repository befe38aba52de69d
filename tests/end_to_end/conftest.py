"""The six nodes that the tests of a module share; their logs are shown beside a failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import trio

from tests.end_to_end.network import Network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    shared = Network(tmp_path_factory.mktemp("network"))
    trio.run(shared.start)
    yield shared
    trio.run(shared.stop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    used = getattr(item, "funcargs", {}).get("network")
    if report.failed and isinstance(used, Network):
        report.sections.append(("logs of the nodes", used.logs()))
    return report
