"""Consul's filter expressions, their common part: parsed once, then asked of each entry. Pure.

Rules:
1. `not` binds closer than `and`, that closer than `or`; brackets as usual.
2. A selector names a field of the entry, `Service.Meta.zone` or `Service.Meta["zone"]`; a value is bare, in quotes or
   in backticks.
3. What an entry doesn't have equals nothing, contains nothing and is empty.
4. Of a list of objects (`Checks.Status`) one that matches is enough; the negated operators are the opposite of theirs.
5. `matches` isn't taken: Python's regular expressions can take for ever, and the expressions are the client's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

MAX_LENGTH: Final = 2_048  # characters
MAX_COMPARISONS: Final = 64
MAX_DEPTH: Final = 32  # brackets and `not` within each other

MAPS: Final = frozenset({"Meta", "NodeMeta", "ServiceMeta", "TaggedAddresses", "NodeTaggedAddresses"})
"""Fields whose keys are anybody's."""

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<sign>==|!=|[()\[\]])|(?P<word>[^\s()\[\]"`=!]+))"""
)
_NEGATED: Final = {"!=": "==", "not in": "in", "not contains": "contains", "is not empty": "is empty"}


class BadExpression(ValueError):
    """Something isn't an expression, or isn't one that is taken here; the text says what and where."""


class Comparison(NamedTuple):
    """One field against one value. `operator`: `==`, `contains` or `is empty`."""

    path: tuple[str, ...]
    operator: str
    value: str

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is so of an entry."""
        return _found(entry, self.path, self.operator, self.value)


class Not(NamedTuple):
    """The opposite."""

    of: Term

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is so of an entry."""
        return not self.of.matches(entry)


class AllOf(NamedTuple):
    """`and`."""

    terms: tuple[Term, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is so of an entry."""
        return all(term.matches(entry) for term in self.terms)


class AnyOf(NamedTuple):
    """`or`."""

    terms: tuple[Term, ...]

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is so of an entry."""
        return any(term.matches(entry) for term in self.terms)


Term = Comparison | Not | AllOf | AnyOf


class _Token(NamedTuple):
    text: str
    is_quoted: bool
    at: int


def parse(text: str, example: Mapping[str, Any]) -> Term:
    """The expression in a text, whose selectors are those that `example`, an entry with all fields, has. Raises
    BadExpression."""
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"the filter has {len(text)} characters, more than {MAX_LENGTH}")
    return _Parser(_tokens(text), example).whole()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadExpression(f"the filter can't be read from character {at + 1} on: {text[at : at + 40]!r}")
        quoted = match["quoted"]
        if quoted is None:
            found.append(_Token(match["sign"] or match["word"], False, match.start()))
        else:
            inner = quoted[1:-1]
            found.append(_Token(re.sub(r"\\(.)", r"\1", inner) if quoted[0] == '"' else inner, True, match.start()))
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[_Token], example: Mapping[str, Any]) -> None:
        self._tokens = tokens
        self._example = example
        self._next = 0
        self._comparisons = 0
        self._depth = 0

    def whole(self) -> Term:
        term = self._any()
        if self._next < len(self._tokens):
            raise self._wrong("there is more than one expression")
        return term

    def _any(self) -> Term:
        terms = [self._all()]
        while self._take("or"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _all(self) -> Term:
        terms = [self._one()]
        while self._take("and"):
            terms.append(self._one())
        return terms[0] if len(terms) == 1 else AllOf(tuple(terms))

    def _one(self) -> Term:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression(f"the filter is nested deeper than {MAX_DEPTH}")
        try:
            if self._take("not"):
                return Not(self._one())
            if self._take("("):
                term = self._any()
                if not self._take(")"):
                    raise self._wrong("a bracket isn't closed")
                return term
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Term:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise BadExpression(f"the filter has more than {MAX_COMPARISONS} comparisons")
        left, path = self._operand()
        operator = self._operator()
        plain = _NEGATED.get(operator, operator)
        if plain == "is empty":
            term = Comparison(self._checked(left, path, plain), plain, "")
        else:
            right, right_path = self._operand()
            if plain == "in":
                term = Comparison(self._checked(right, right_path, "contains"), "contains", left.text)
            else:
                term = Comparison(self._checked(left, path, plain), plain, right.text)
        return Not(term) if operator in _NEGATED else term

    def _operator(self) -> str:
        for operator in ("==", "!=", "in", "contains"):
            if self._take(operator):
                return operator
        if self._take("not"):
            for operator in ("in", "contains"):
                if self._take(operator):
                    return f"not {operator}"
        if self._take("is"):
            negated = "not " if self._take("not") else ""
            if self._take("empty"):
                return f"is {negated}empty"
        raise self._wrong("an operator is missing: ==, !=, in, not in, contains, not contains, is empty, is not empty")

    def _operand(self) -> tuple[_Token, tuple[str, ...]]:
        """A value or a selector, and the path that it is as a selector."""
        if self._next >= len(self._tokens):
            raise self._wrong("a value or a field is missing")
        token = self._tokens[self._next]
        if not token.is_quoted and token.text in ("(", ")", "[", "]", "==", "!="):
            raise self._wrong("a value or a field is missing")
        self._next += 1
        if token.is_quoted:
            return token, tuple(token.text[1:].split("/")) if token.text.startswith("/") else ()
        path = token.text.split(".")
        while self._take("["):
            if self._next >= len(self._tokens):
                raise self._wrong("a key is missing")
            path.append(self._tokens[self._next].text)
            self._next += 1
            if not self._take("]"):
                raise self._wrong("a bracket isn't closed")
            if self._next < len(self._tokens) and self._tokens[self._next].text.startswith("."):
                path += self._tokens[self._next].text[1:].split(".")
                self._next += 1
        return token, tuple(path)

    def _take(self, word: str) -> bool:
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            if not token.is_quoted and token.text == word:
                self._next += 1
                return True
        return False

    def _checked(self, token: _Token, path: tuple[str, ...], operator: str) -> tuple[str, ...]:
        known: Any = self._example
        for number, part in enumerate(path):
            if isinstance(known, Sequence) and not isinstance(known, str) and known and isinstance(known[0], Mapping):
                known = known[0]
            if not isinstance(known, Mapping) or part not in known:
                break
            if part in MAPS:
                if number + 2 >= len(path):
                    return path
                break
            known = known[part]
        else:
            if operator == "contains" and isinstance(known, int):  # a bool, too
                raise BadExpression(f"{token.text[:80]!r} is neither text nor list: compare it by == or !=")
            if path:
                return path
        raise BadExpression(f"the filter names {token.text[:80]!r}, which is no field of what is asked for")

    def _wrong(self, what: str) -> BadExpression:
        if self._next >= len(self._tokens):
            return BadExpression(f"the filter ends too early: {what}")
        token = self._tokens[self._next]
        if token.text == "matches":
            what = "regular expressions aren't taken here"
        return BadExpression(f"the filter, at character {token.at + 1} ({token.text[:40]!r}): {what}")


def _found(value: Any, path: tuple[str, ...], operator: str, wanted: str) -> bool:
    for number, part in enumerate(path):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, (list, tuple)):
            return any(_found(each, path[number:], operator, wanted) for each in value)
        else:
            value = None
    if operator == "==":
        return _text(value) == wanted
    if operator == "contains":
        if isinstance(value, (str, Mapping)):
            return wanted in value
        return isinstance(value, (list, tuple)) and any(_text(each) == wanted for each in value)
    return not value


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int)) else None


def comparisons(term: Term) -> Iterator[Comparison]:
    """All comparisons of an expression: what it costs to ask it of an entry."""
    match term:
        case Comparison():
            yield term
        case Not():
            yield from comparisons(term.of)
        case _:
            for each in term.terms:
                yield from comparisons(each)
