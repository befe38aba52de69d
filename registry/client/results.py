"""The results of the registry's functions, each with what went wrong, in the original's texts where it has one."""

from __future__ import annotations

from typing import NamedTuple

from registry.model.values import Key, Record


class Created(NamedTuple):
    """A resource that was made, by its id; None when it wasn't."""

    resource_id: str | None
    errors: tuple[str, ...]


class Found(NamedTuple):
    """The key of a resource; None when it wasn't found."""

    key: Key | None
    errors: tuple[str, ...]


class Done(NamedTuple):
    """Whether something was done."""

    success: bool
    errors: tuple[str, ...]


class Resolved(NamedTuple):
    """The live records of a resource; None when it wasn't found or too few replicas answered."""

    records: tuple[Record, ...] | None
    errors: tuple[str, ...]
