"""The original's interface, out of its file `aqua-interface.json`: what there is by name, and of which Aqua types."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

Typed = tuple[tuple[str, str], ...]
"""Names with their Aqua types, in the original's order."""

INTERFACE: Final[dict[str, Any]] = json.loads(files("aqua_compat.schema").joinpath("aqua-interface.json").read_bytes())


def _typed(pairs: list[list[str]]) -> Typed:
    return tuple((name, aqua_type) for name, aqua_type in pairs)


FUNCTIONS: Final[dict[str, Typed]] = {
    name: _typed(function["args"])
    for module in ("resources-api", "registry-api")
    for name, function in INTERFACE["functions"][module].items()
}
"""The arguments of the functions that a call by name may reach."""

SERVICE: Final[dict[str, Typed]] = {
    name: _typed(function["args"]) for name, function in INTERFACE["services"]["registry"]["functions"].items()
}
"""The arguments of the functions of the service `registry`."""

DATA: Final[dict[str, Typed]] = {name: _typed(fields) for name, fields in INTERFACE["data"].items()}
"""The fields of the data types."""
