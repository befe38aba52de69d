"""The original's services, each in one process for all tests of a module; skipped where they can't be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aqua.npm import Missing
from tests.oracle.originals import Original, original


@pytest.fixture(scope="module")
def its_trust_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    yield from _started("trust-graph", tmp_path_factory)


@pytest.fixture
def a_trust_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    """One that nothing is asked of afterwards."""
    yield from _started("trust-graph", tmp_path_factory)


@pytest.fixture(scope="module")
def its_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    yield from _started("registry", tmp_path_factory)


def _started(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    try:
        with original(service, tmp_path_factory.mktemp("original")) as started:
            yield started
    except Missing as missing:
        pytest.skip(str(missing))
