"""What of a service's instances an answer has: which of them, in which form, as a filter lets them through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from aqua_compat.http.consul.entries import CATALOG_EXAMPLE, CHECK_EXAMPLE, HEALTH_EXAMPLE, NODE_CHECK, Entry
from aqua_compat.http.consul.expression import Term, comparisons

FILTER_SLICE: Final = 2_000  # comparisons before others have their turn: fewer than 5 ms


def _itself(value: Any) -> Any:
    return value


async def filtered(values: list[Any], term: Term | None, of: Callable[[Any], Any] = _itself) -> list[Any]:
    """Those that a filter lets through; all without one. `of`: what of a value it looks at."""
    if term is None:
        return values
    cost, done = sum(1 for _ in comparisons(term)), 0
    kept: list[Any] = []
    for value in values:
        done += cost
        if done >= FILTER_SLICE:
            done = 0
            await trio.lowlevel.checkpoint()
        if term.matches(of(value)):
            kept.append(value)
    return kept


def _health_of(entry: Entry) -> list[Any]:
    return [entry.health]


def _catalog_of(entry: Entry) -> list[Any]:
    return [entry.catalog]


def _checks_of(entry: Entry) -> list[Any]:
    return [check for check in entry.health["Checks"] if check["CheckID"] != NODE_CHECK]


KINDS: Final[Mapping[str, tuple[Mapping[str, Any], Callable[[Entry], list[Any]]]]] = {
    "health": (HEALTH_EXAMPLE, _health_of),
    "catalog": (CATALOG_EXAMPLE, _catalog_of),
    "checks": (CHECK_EXAMPLE, _checks_of),
}
"""The forms: an example, for a filter's names, and how an instance is told."""
