"""The results of the registry's functions, each with what went wrong, in the original's texts where it has one.

Each has a `code` beside its texts, for programs: of what failed, why; of what succeeded it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

from registry.codes import Code
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
    code: Code

    def __new__(
        cls, resource_id: str | None, errors: tuple[str, ...], stored: int = 0, *, code: Code = Code.FAILED
    ) -> Self:
        """See the class."""
        self = super().__new__(cls, resource_id, errors)
        self.stored, self.code = stored, code
        return self


class _Found(NamedTuple):
    key: Key | None
    errors: tuple[str, ...]


class Found(_Found):
    """The key of a resource; None when it wasn't found."""

    code: Code

    def __new__(cls, key: Key | None, errors: tuple[str, ...], *, code: Code = Code.FAILED) -> Self:
        """See the class."""
        self = super().__new__(cls, key, errors)
        self.code = code
        return self


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
    code: Code

    def __new__(
        cls,
        success: bool,
        errors: tuple[str, ...],
        stored: int = 0,
        *,
        was_there: bool = True,
        denied: tuple[str, ...] = (),
        code: Code = Code.FAILED,
    ) -> Self:
        """See the class."""
        self = super().__new__(cls, success, errors)
        self.stored, self.was_there, self.denied, self.code = stored, was_there, denied, code
        return self


class _Resolved(NamedTuple):
    records: tuple[Record, ...] | None
    errors: tuple[str, ...]


class Resolved(_Resolved):
    """The live records of a resource; None when it wasn't found or too few replicas answered."""

    code: Code

    def __new__(cls, records: tuple[Record, ...] | None, errors: tuple[str, ...], *, code: Code = Code.FAILED) -> Self:
        """See the class."""
        self = super().__new__(cls, records, errors)
        self.code = code
        return self


def code_of(codes: Iterable[Code], *, timed_out: bool = False, otherwise: Code = Code.FAILED) -> Code:
    """The code of a failure with these causes: that of the first, else that the time was up, else `otherwise`."""
    return next(iter(codes), Code.TIMEOUT if timed_out else otherwise)
