"""The original's public interface, read from `aqua-interface.json`: the one table of its names, order and types.

`?T` is an optional value, `[]T` an array, `*T` a stream of values.
"""

from __future__ import annotations

from importlib.resources import files

import msgspec

Fields = tuple[tuple[str, str], ...]
"""(name, Aqua type) of each argument of a function or each field of a data type, in the original's order."""


class _Function(msgspec.Struct, frozen=True):
    args: Fields
    returns: tuple[str, ...]


class _ServiceFunctions(msgspec.Struct, frozen=True):
    functions: dict[str, _Function]


class _Interface(msgspec.Struct, frozen=True):
    aliases: dict[str, str]
    data: dict[str, Fields]
    services: dict[str, _ServiceFunctions]
    functions: dict[str, dict[str, _Function]]


_INTERFACE = msgspec.json.decode(
    files("aqua_compat.schema").joinpath("aqua-interface.json").read_bytes(), type=_Interface
)

ALIASES: dict[str, str] = _INTERFACE.aliases
"""Aqua types that are other names of types, such as `ResourceId` of `string`."""

DATA: dict[str, Fields] = _INTERFACE.data
"""The fields of each data type."""

FUNCTIONS: dict[str, Fields] = {
    name: function.args
    for module in ("resources-api", "registry-api")
    for name, function in _INTERFACE.functions[module].items()
}
"""The functions that a call by name may reach, with their arguments."""

SERVICE_FUNCTIONS: dict[str, Fields] = {
    name: function.args for name, function in _INTERFACE.services["registry"].functions.items()
}
"""The functions of the service `registry` on a peer, with their arguments."""
