"""Four nodes that speak Aqua, and what the original's client needs; both are shared by all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests.aqua.js_peer import JsProcess
from tests.aqua.nodes import AquaNetwork
from tests.aqua.npm import Missing, Tools, or_skip, tools
from tests.end_to_end.conftest import pytest_runtest_makereport  # noqa: F401 - the hook, for this folder
from tests.unit.aqua_compat.particles.conftest import interpreter_folder  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def js_tools() -> Tools:
    try:
        return tools()
    except Missing as missing:
        or_skip(missing)
        raise


@pytest.fixture(scope="session")
def js_processes(js_tools: Tools) -> Iterator[list[JsProcess]]:
    """Those that were started for `js`: one, unless it ended."""
    processes: list[JsProcess] = []
    yield processes
    for process in processes:
        process.close()


@pytest.fixture
async def js(js_processes: list[JsProcess], js_tools: Tools) -> AsyncIterator[JsProcess]:
    """The process whose clients the tests share."""
    if not js_processes or js_processes[-1].has_ended:
        js_processes.append(JsProcess(js_tools))
    async with js_processes[-1].within():
        yield js_processes[-1]


@pytest.fixture(scope="package")
def network(
    js_tools: Tools,
    interpreter_folder: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AquaNetwork]:
    folder = tmp_path_factory.mktemp("aqua")
    shared = AquaNetwork(folder)
    trio.run(shared.start_with, js_tools, interpreter_folder)
    yield shared
    trio.run(shared.stop)
