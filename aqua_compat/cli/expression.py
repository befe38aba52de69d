"""A call written as text, such as `resolveResource(id, 1)`: a name and literals, or names of variables.

    call     = name "(" [ value { "," value } ] ")"
    value    = string | integer | "true" | "false" | "nil" | "[" [ value { "," value } ] "]" | name

Strings are quoted like JSON's. Names stand for variables, whose values are given beside the call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<mark>[()\[\],])
    )""",
    re.VERBOSE,
)
_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}
_DEEPEST = 16


class Call(msgspec.Struct, frozen=True):
    """A function's name and its arguments as JSON values."""

    function: str
    arguments: tuple[object, ...]


class ExpressionError(ValueError):
    """The text isn't a call. The error says where and what was expected."""


def parse_call(text: str, variables: Mapping[str, object]) -> Call:
    """The call that a text says, with `variables` in place of names. Raises ExpressionError."""
    tokens = _Tokens(text)
    kind, name = tokens.take("the name of a function")
    if kind != "name":
        raise tokens.wrong("the name of a function")
    tokens.expect("(")
    arguments = _values(tokens, ")", variables, 0)
    if not tokens.at_end():
        tokens.take("the end")
        raise tokens.wrong("nothing after the call")
    return Call(name, tuple(arguments))


class _Tokens:
    """The pieces of the text, one by one, and where the last one began."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self._last = 0

    def at_end(self) -> bool:
        return not self._text[self._next :].strip()

    def take(self, expected: str) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._next)
        if match is None:
            rest = self._text[self._next :]
            self._last = self._next + len(rest) - len(rest.lstrip())
            raise self.wrong(expected)
        kind = str(match.lastgroup)
        self._last, self._next = match.start(kind), match.end()
        return kind, match.group(kind)

    def peek(self) -> str:
        match = _TOKEN.match(self._text, self._next)
        return match.group().strip() if match else ""

    def expect(self, mark: str) -> None:
        if self.take(f"{mark!r}")[1] != mark:
            raise self.wrong(f"{mark!r}")

    def wrong(self, expected: str) -> ExpressionError:
        found = self._text[self._last : self._last + 12] or "the end"
        shown = found if found == "the end" else repr(found)
        return ExpressionError(f"expected {expected} at character {self._last + 1} of the call, found {shown}")


def _values(tokens: _Tokens, closing: str, variables: Mapping[str, object], depth: int) -> list[object]:
    if depth > _DEEPEST:
        raise ExpressionError(f"arrays are nested deeper than {_DEEPEST}")
    values: list[object] = []
    if tokens.peek() == closing:
        tokens.take(closing)
        return values
    while True:
        values.append(_value(tokens, variables, depth))
        mark = tokens.take(f"',' or {closing!r}")[1]
        if mark == closing:
            return values
        if mark != ",":
            raise tokens.wrong(f"',' or {closing!r}")


def _value(tokens: _Tokens, variables: Mapping[str, object], depth: int) -> object:
    kind, piece = tokens.take("a value")
    if kind == "string":
        try:
            return json.loads(piece)
        except json.JSONDecodeError:
            raise tokens.wrong("a string with the escapes of JSON") from None
    if kind == "number":
        if "." in piece:
            raise tokens.wrong("a whole number")
        return int(piece) if len(piece) <= 20 else _too_long(tokens)
    if kind == "name":
        if piece in _CONSTANTS:
            return _CONSTANTS[piece]
        if piece not in variables:
            raise ExpressionError(f"{piece} has no value; give one, as in --data '{{\"{piece}\": ...}}'")
        return variables[piece]
    if piece == "[":
        return _values(tokens, "]", variables, depth + 1)
    raise tokens.wrong("a value")


def _too_long(tokens: _Tokens) -> int:
    raise tokens.wrong("a number of at most 20 digits")
