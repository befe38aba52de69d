"""Six nodes that speak Aqua, and what the original's client needs; both are shared by all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.aqua.nodes import AquaNetwork
from tests.aqua.npm import Missing, Tools, or_skip, tools
from tests.end_to_end.conftest import pytest_runtest_makereport  # noqa: F401 - the hook, for this folder


@pytest.fixture(scope="session")
def js() -> Tools:
    try:
        return tools()
    except Missing as missing:
        or_skip(missing)
        raise


@pytest.fixture(scope="package")
def network(js: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AquaNetwork]:
    folder = tmp_path_factory.mktemp("aqua")
    shared = AquaNetwork(folder)
    trio.run(shared.start_with, js)
    yield shared
    trio.run(shared.stop)
