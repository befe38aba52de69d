"""The results of the registry's functions, each with what went wrong, in the original's texts where it has one.

Each has a `code` beside its texts, for programs: of what failed, why; of what succeeded it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

from registry.codes import Code
from registry.health.health_reader import UNTOLD, RecordHealth
from registry.health.state import HealthState
from registry.model.owner_index import ListedResource
from registry.model.values import Key, Record, Slot


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


class _Listed(NamedTuple):
    resources: tuple[ListedResource, ...] | None
    errors: tuple[str, ...]


class Listed(_Listed):
    """A page of the resources of an owner, in order of their labels; None when nobody told of them.

    Unpacks as the pair of resources and errors. `after`: the label after which the next page begins, None at the end.
    """

    after: str | None
    code: Code

    def __new__(
        cls,
        resources: tuple[ListedResource, ...] | None,
        errors: tuple[str, ...],
        after: str | None = None,
        *,
        code: Code = Code.FAILED,
    ) -> Self:
        """See the class."""
        self = super().__new__(cls, resources, errors)
        self.after, self.code = after, code
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
    """The live records of a resource; None when it wasn't found or too few replicas answered.

    Unpacks and compares as the pair of records and errors. `health`: what is known of each live record, those that were
    left out for it included; empty where there is no presence, and for a host that says nothing of it as of one that is
    up.
    """

    health: Mapping[Slot, RecordHealth]
    code: Code

    def __new__(
        cls,
        records: tuple[Record, ...] | None,
        errors: tuple[str, ...],
        health: Mapping[Slot, RecordHealth] = MappingProxyType({}),
        *,
        code: Code = Code.FAILED,
    ) -> Self:
        """See the class."""
        self = super().__new__(cls, records, errors)
        self.health, self.code = health, code
        return self

    @property
    def usable(self) -> list[Record]:
        """The records that callers should go to: whose host is up, and which pass or give a warning."""
        return [record for record in self.records or () if self._health_of(record).is_usable]

    @property
    def doubtful(self) -> list[Record]:
        """Those to be tried last, not never: whose host is said to be down, or hasn't told yet which services pass.
        What its host called critical isn't among them."""
        return [
            record
            for record in self.records or ()
            if not self._health_of(record).is_usable and self._health_of(record).health.state < HealthState.CRITICAL
        ]

    @property
    def left_out(self) -> dict[Slot, tuple[str, ...]]:
        """The ids of instances that don't work, of records others of whose instances do."""
        return {
            slot: tuple(instance for instance, health in known.instances.items() if not health.state.is_usable)
            for slot, known in self.health.items()
            if known.instances
        }

    def _health_of(self, record: Record) -> RecordHealth:
        return self.health.get(record.slot, UNTOLD)


def code_of(codes: Iterable[Code], *, timed_out: bool = False, otherwise: Code = Code.FAILED) -> Code:
    """The code of a failure with these causes: that of the first, else that the time was up, else `otherwise`."""
    return next(iter(codes), Code.TIMEOUT if timed_out else otherwise)
