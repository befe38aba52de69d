"""The states of a service, and what is said with them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from registry.errors import InvalidValue
from registry.model.fields import U63_MAX, check_text
from registry.model.values import Slot

MAX_NOTE: Final = 256
"""Bytes of a note; a longer one is cut."""
MAX_INSTANCE: Final = 128
"""Bytes of an instance's id."""


class HealthState(enum.IntEnum):
    """How a service is, the better state before the worse one, under the numbers that travel."""

    PASSING = 0
    WARNING = 1
    """It works, and somebody should look at it."""
    UNKNOWN = 2
    """Its host said something about its services that the reader doesn't have, or doesn't understand. Hosts never say
    this of a service."""
    CRITICAL = 3
    """It doesn't work, or its provider hasn't said for too long that it does."""

    @property
    def is_usable(self) -> bool:
        """Whether callers should be sent there."""
        return self <= HealthState.WARNING

    @classmethod
    def received(cls, number: int) -> HealthState:
        """The state that another peer means; `UNKNOWN` for one of a later version, which is no passing one."""
        return cls(number) if 0 <= number <= cls.CRITICAL else cls.UNKNOWN

    @classmethod
    def named(cls, name: str) -> HealthState:
        """The state that a user names: `passing`, `warning` or `critical`. Raises InvalidValue."""
        if name in _SAID:
            return _SAID[name]
        raise InvalidValue(f"{name[:32]!r} is no state of a service: there are {', '.join(_SAID)}")

    def __str__(self) -> str:
        return self.name.lower()


_SAID: Final = {str(state): state for state in HealthState if state is not HealthState.UNKNOWN}


class HostedService(NamedTuple):
    """What a state is said of: a record on its host, by resource and issuer, or one instance of those it names."""

    key_id: str
    issued_by: str
    instance: str = ""
    """Empty for the record itself."""

    @classmethod
    def of(cls, slot: Slot, instance: str = "") -> HostedService:
        """The service in a slot. Raises InvalidValue for an instance's id that is too long, or no text."""
        check_text("instance", instance, MAX_INSTANCE)
        return cls(slot.key_id, slot.issued_by, instance)


class Health(msgspec.Struct, frozen=True):
    """The state of one service, since when (whole seconds since 1970, by its host's clock), and why."""

    state: HealthState = HealthState.PASSING
    since: int = 0
    """0 where nobody said."""
    note: str = ""
    """At most 256 bytes, all of them printable."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "since", min(max(self.since, 0), U63_MAX))
        msgspec.structs.force_setattr(self, "note", cut(self.note))


def cut(note: str) -> str:
    """A note as it is kept: what can't be printed is replaced by blanks, and of what is too long the end is left out,
    between two characters."""
    shown = note[:MAX_NOTE]
    if not shown.isprintable():
        shown = "".join(letter if letter.isprintable() else " " for letter in shown)
    return shown.encode()[:MAX_NOTE].decode(errors="ignore")


PASSING: Final = Health()
"""Of what nobody said anything."""


def worst(healths: Iterable[Health]) -> Health:
    """The worst of several, of equal ones the first; passing where there is none."""
    return max(healths, key=lambda health: health.state, default=PASSING)
