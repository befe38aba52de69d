"""A service of a peer as an object whose attributes are its functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, get_type_hints

T = TypeVar("T")

Call = Callable[..., Awaitable[Any]]
"""`OnPeer.call`."""


class Proxy:
    """A service whose functions are its attributes, whatever their names; results aren't converted."""

    def __init__(self, call: Call, service_id: str) -> None:
        self._call = call
        self._service_id = service_id

    def __getattr__(self, function: str) -> Call:
        if function.startswith("_"):
            raise AttributeError(function)

        async def call(*arguments: object, timeout: float | None = None) -> Any:
            return await self._call(self._service_id, function, *arguments, timeout=timeout)

        return call


def typed(call: Call, service_id: str, interface: type[T]) -> T:
    """An object of the functions of `interface`, whose results are converted by its annotations.

    Raises TypeError when it has no public function, or one that isn't async or doesn't say what it returns.
    """
    functions: dict[str, Call] = {}
    for name, function in inspect.getmembers(interface, inspect.isfunction):
        if name.startswith("_"):
            continue
        returns = get_type_hints(function).get("return")
        if not inspect.iscoroutinefunction(function) or returns is None:
            raise TypeError(f"{interface.__name__}.{name} must be async, and say what it returns")
        functions[name] = _function(call, service_id, name, returns, inspect.signature(function))
    if not functions:
        raise TypeError(f"{interface.__name__} has no public functions")
    return cast("T", type(interface.__name__, (), {name: staticmethod(f) for name, f in functions.items()})())


def _function(call: Call, service_id: str, name: str, returns: Any, signature: inspect.Signature) -> Call:
    parameters = signature.replace(parameters=list(signature.parameters.values())[1:])  # without self

    async def function(*arguments: object, **named: object) -> Any:
        bound = parameters.bind(*arguments, **named)
        if named:  # arguments travel by position: what lies between those given by name has to be there
            bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(f"{name}: {', '.join(bound.kwargs)} can't be given by position")
        return await call(service_id, name, *bound.args, returns=returns)

    return function
