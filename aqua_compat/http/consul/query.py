"""What a request of Consul's API asks: parsed and bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from aqua_compat.agent.consul_files import seconds_of
from aqua_compat.http.consul.expression import BadExpression, Term, parse
from aqua_compat.http.problems import Problem
from registry.errors import InvalidValue

DEFAULT_WAIT: Final = 300.0  # seconds; as Consul
LONGEST_WAIT: Final = 600.0
JITTER: Final = 1 / 16  # of the wait, at most, on top: so that not all who wait come back at once
MOST_TAGS: Final = 16
LARGEST_INDEX: Final = 2**63 - 1


class Query(NamedTuple):
    """What is asked. `known`: the index of the answer that is known already, 0 for none."""

    known: int
    wait: float
    passing: bool
    tags: frozenset[str]
    near: str
    datacenter: str
    meta: tuple[tuple[str, str], ...]
    expression: str

    @property
    def part(self) -> Query:
        """What decides which part of an answer is wanted, and in which order."""
        return self._replace(known=0, wait=0.0)

    def of_kind(self, kind: str) -> Query:
        """Without what means nothing for a form of answer (`selection.KINDS`), as Consul passes it over."""
        return self._replace(
            passing=self.passing and kind == "health", tags=self.tags if kind != "checks" else frozenset()
        )

    def term(self, example: Mapping[str, Any]) -> Term | None:
        """The filter, of entries such as this one. Raises Problem."""
        if not self.expression:
            return None
        try:
            return parse(self.expression, example)
        except BadExpression as error:
            raise Problem.invalid(f"Failed to create boolean expression evaluator: {error}") from None


def query_of(parameters: Sequence[tuple[str, str]]) -> Query:
    """What a request's parameters ask; those that mean nothing here are passed over, as Consul does. Raises Problem."""
    given: dict[str, str] = {}
    tags: list[str] = []
    meta: list[tuple[str, str]] = []
    for name, value in parameters:
        if name == "tag":
            tags.append(value.lower())
        elif name == "node-meta":
            key, _, text = value.partition(":")
            meta.append((key, text))
        else:
            given.setdefault(name, value)
    if len(tags) > MOST_TAGS:
        raise Problem.invalid(f"there are {len(tags)} tags, more than {MOST_TAGS}")
    return Query(
        _index(given.get("index", "")),
        _wait(given.get("wait", "")),
        _flag("passing", given["passing"]) if "passing" in given else False,
        frozenset(tags),
        given.get("near", ""),
        given.get("dc", ""),
        tuple(meta),
        given.get("filter", ""),
    )


def is_blocking(parameters: Sequence[tuple[str, str]]) -> bool:
    """Whether a request with these parameters may wait for a change, as one that names the index that is known does."""
    return any(name == "index" and value.strip("0") for name, value in parameters)


def _index(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= LARGEST_INDEX):
        raise Problem.invalid("Invalid index: it is a whole number, as X-Consul-Index told it")
    return int(text)


def _wait(text: str) -> float:
    if not text:
        return DEFAULT_WAIT
    try:
        seconds = seconds_of("wait", text[:32])
    except InvalidValue as error:
        raise Problem.invalid(f"Invalid wait time: {error}") from None
    return min(seconds, LONGEST_WAIT) or DEFAULT_WAIT


def _flag(name: str, text: str) -> bool:
    if text.lower() in ("", "1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise Problem.invalid(f"Invalid value for ?{name}: it is true or false")
