"""Finds the functions of a Python object that others can call, and checks the arguments of calls."""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Mapping
from functools import cached_property, reduce
from types import NoneType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

MOST_ARGUMENTS: Final = 256
"""Of one call: each is checked by itself."""


class BadCall(ValueError):
    """The arguments don't fit; the text says which."""


class Function:
    """One function: checks arguments by its annotations. Unannotated parameters take what CBOR can carry."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Raises TypeError for what can't be called by position."""
        self.name = name
        self.call = function
        self.is_generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self._signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)  # bounds are extras
        parameters = self._signature.parameters.values()
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise TypeError(f"{name}: {parameter.name} can't be given by position")
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._names = tuple(parameter.name for parameter in positional)
        self._fewest = sum(parameter.default is parameter.empty for parameter in positional)
        self._variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._hints = {name: hint for name, hint in hints.items() if name != "return"}

    def arguments(self, given: list[object]) -> list[object]:
        """The arguments as the function wants them. Raises BadCall."""
        if len(given) > MOST_ARGUMENTS:
            raise BadCall(f"{len(given)} arguments, more than {MOST_ARGUMENTS}")
        names = self._names
        if self._variadic is not None:
            names += (self._variadic,) * (len(given) - len(names))
        if not self._fewest <= len(given) <= len(names):
            raise BadCall(f"{self._mismatch(given)} in {self.described}")
        return [self._checked(name, value) for name, value in zip(names, given, strict=False)]

    def _mismatch(self, given: list[object]) -> str:
        try:
            self._signature.bind(*given)
        except TypeError as error:
            return str(error)
        return "it takes others"

    @cached_property
    def described(self) -> str:
        """The function's name and signature, for people."""
        return f"{self.name}{_readable(self.call, self._signature)}"

    def _checked(self, name: str, value: object) -> object:
        if name not in self._hints:
            return value
        try:
            return msgspec.convert(value, self._hints[name], builtin_types=(bytes,))
        except (msgspec.ValidationError, TypeError) as error:
            raise BadCall(f"{name}: {error} in {self.described}") from None


_MODULES: Final = re.compile(r"(?<!['\"\w.])(?:\w+\.)+(?=\w)")


class _Text(str):
    """An annotation that shows itself without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _readable(function: Callable[..., Any], signature: inspect.Signature) -> inspect.Signature:
    """With types that a caller knows: no names that only the module of the function has, no bounds, no modules."""
    hints = get_type_hints(function)

    def shown(name: str, annotation: object) -> object:
        if name not in hints:
            return annotation
        hint = None if hints[name] is NoneType else hints[name]
        if get_origin(hint) is Union:  # as `X | Y`, like those that were written so
            hint = reduce(operator.or_, get_args(hint))
        return _Text(_MODULES.sub("", inspect.formatannotation(hint)))

    parameters = [one.replace(annotation=shown(one.name, one.annotation)) for one in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=shown("return", signature.return_annotation))


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
