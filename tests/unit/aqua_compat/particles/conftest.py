"""The original's interpreter for the tests that need it: installed once for each machine, as an operator would."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aqua_compat.particles.engine.installation import install, load_module
from aqua_compat.particles.errors import NotInstalled
from tests.paths import KEPT, claimed
from tests.unit.aqua_compat.particles.scripts import HOST

if TYPE_CHECKING:
    from aqua_compat.particles.engine.interpreter import Interpreter


@pytest.fixture(scope="session")
def interpreter_folder() -> Path:
    """Where the interpreter is; tests skip where npm can't fetch it, but never in CI."""
    try:
        with claimed(KEPT / "interpreter") as folder:  # other workers need it too
            try:
                load_module(folder)
            except NotInstalled:
                install(folder)
    except NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def make_interpreter(interpreter_folder: Path) -> Callable[..., Interpreter]:
    """Makes instances, by default of the host in `scripts`."""
    from aqua_compat.particles.engine.interpreter import Interpreter

    module, engine = load_module(interpreter_folder)

    def make(seed: bytes = HOST.seed, max_memory: int = 128 * 2**20) -> Interpreter:
        return Interpreter(module, engine, seed, max_memory)

    make.advance = engine.increment_epoch  # type: ignore[attr-defined]
    return make
