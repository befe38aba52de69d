"""What of a Python object can be called from elsewhere, and with which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec


class BadCall(ValueError):
    """The arguments don't fit; the text says which."""


class Function:
    """One function: checks arguments by its annotations. Unannotated parameters take what CBOR can carry."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Raises TypeError for what can't be called by position."""
        self.name = name
        self.call = function
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)  # bounds are extras
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise TypeError(f"{name}: {parameter.name} can't be given by position")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{name}: generators can't be served; return a list")
        self._hints = {name: hint for name, hint in hints.items() if name != "return"}

    def arguments(self, given: list[object]) -> list[object]:
        """The arguments as the function wants them. Raises BadCall."""
        try:
            bound = self._signature.bind(*given)
        except TypeError as error:
            raise BadCall(f"{error} in {self.described}") from None
        checked: list[object] = []
        for name, value in bound.arguments.items():
            variadic = self._signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            for one in value if variadic else (value,):
                checked.append(self._checked(name, one))
        return checked

    @property
    def described(self) -> str:
        """Its name and signature, for people."""
        return f"{self.name}{self._signature}"

    def _checked(self, name: str, value: object) -> object:
        if name not in self._hints:
            return value
        try:
            return msgspec.convert(value, self._hints[name], builtin_types=(bytes,))
        except (msgspec.ValidationError, TypeError) as error:
            raise BadCall(f"{name}: {error} in {self.described}") from None


def functions_of(service: object) -> dict[str, Function]:
    """The functions of a mapping, or the public methods of an object. Raises TypeError when there are none."""
    if isinstance(service, Mapping):
        found = {str(name): function for name, function in service.items() if callable(function)}
    else:
        found = {
            name: function
            for name, function in inspect.getmembers(service, inspect.isroutine)
            if not name.startswith("_")
        }
    if not found:
        raise TypeError(f"{service!r} has no public functions")
    return {name: Function(name, function) for name, function in found.items()}
