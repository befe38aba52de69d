"""The results of the registry's functions, each with what went wrong, in the original's texts where it has one."""

from __future__ import annotations

from typing import NamedTuple

from registry.model.values import Key, Record


class Created(NamedTuple):
    """The id of a resource that was created; None when it wasn't."""

    resource_id: str | None
    errors: tuple[str, ...]


class Found(NamedTuple):
    """The key of a resource; None when it wasn't found."""

    key: Key | None
    errors: tuple[str, ...]


class Done(NamedTuple):
    """Whether enough replicas have stored a write."""

    success: bool
    errors: tuple[str, ...]


class Resolved(NamedTuple):
    """The live records of a resource; None when too few replicas answered."""

    records: tuple[Record, ...] | None
    errors: tuple[str, ...]
