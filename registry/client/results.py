"""The results of the registry's functions, each with what went wrong, in the original's texts where it has one."""

from __future__ import annotations

from typing import NamedTuple, Self

from registry.model.values import Key, Record


class _Created(NamedTuple):
    resource_id: str | None
    errors: tuple[str, ...]


class Created(_Created):
    """A resource that was made, by its id; None when it wasn't, or is on fewer replicas than asked for.

    Unpacks and compares as the original's pair of id and errors. `stored`: replicas that have it on disk; the write
    goes on to the others, also where they are fewer than asked for.
    """

    stored: int

    def __new__(cls, resource_id: str | None, errors: tuple[str, ...], stored: int = 0) -> Self:
        """See the class."""
        self = super().__new__(cls, resource_id, errors)
        self.stored = stored
        return self


class Found(NamedTuple):
    """The key of a resource; None when it wasn't found."""

    key: Key | None
    errors: tuple[str, ...]


class _Done(NamedTuple):
    success: bool
    errors: tuple[str, ...]


class Done(_Done):
    """Whether something was done, on as many replicas as asked for.

    Unpacks and compares as the original's pair of success and errors. `stored`: as of `Created`. `was_there`: whether
    there was anything to end, as far as was found. `denied`: the issuers of what the resource's policy denies now,
    where that was done instead of ending something of this identity's own.
    """

    stored: int
    was_there: bool
    denied: tuple[str, ...]

    def __new__(
        cls,
        success: bool,
        errors: tuple[str, ...],
        stored: int = 0,
        *,
        was_there: bool = True,
        denied: tuple[str, ...] = (),
    ) -> Self:
        """See the class."""
        self = super().__new__(cls, success, errors)
        self.stored, self.was_there, self.denied = stored, was_there, denied
        return self


class Resolved(NamedTuple):
    """The live records of a resource; None when it wasn't found or too few replicas answered."""

    records: tuple[Record, ...] | None
    errors: tuple[str, ...]
