"""What the registry's functions come to: each with what went wrong, in the original's texts where it has one."""

from __future__ import annotations

from typing import NamedTuple

from registry.model.values import Key, Record


class Created(NamedTuple):
    resource_id: str | None
    errors: tuple[str, ...]


class Found(NamedTuple):
    key: Key | None
    errors: tuple[str, ...]


class Done(NamedTuple):
    success: bool
    errors: tuple[str, ...]


class Resolved(NamedTuple):
    records: tuple[Record, ...] | None
    errors: tuple[str, ...]
