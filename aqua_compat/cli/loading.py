"""Imports what a command needs of the network, and of a node."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import cast

from overlay.limits.gc_pause import gc_paused


@contextmanager
def loading() -> Iterator[None]:
    """A block that imports hundreds of modules. Only for a process that is ours alone, such as that of a command.

    Next to nothing of what they make is garbage. Python would look through all of it more than a hundred times
    meanwhile, a tenth of the time that it takes, and again and again later on.

    Nor is `rich` imported, another tenth: structlog does for tracebacks that the command line shows without it.
    """
    missing = "rich" not in sys.modules
    if missing:
        sys.modules["rich"] = cast("ModuleType", None)  # as Python has it: importing it raises ImportError
    try:
        with gc_paused():
            yield
            gc.freeze()
    finally:
        if missing:
            del sys.modules["rich"]


def load_client() -> None:
    """Import all that a client of its own (`aqua_compat.connect`) takes, which would import it bit by bit."""
    with loading():
        for name in ("aqua_compat.api.connections", "aqua_compat.api.services", "registry.client.light"):
            import_module(name)
