"""Whose presence a keeper has a place for, and which gives way where all places are taken. Keys are free, so it matters
by whom a host is known.

1. Those that somebody only asked about give way first, then those of which only another keeper told: of whoever named
   the most, the oldest.
2. Then light clients: of the node that brought the most, one that isn't there, else the latest. A node that brought as
   many as any makes room among its own, and takes no others' places; the first `FEW_BROUGHT` of each have theirs safe
   from hosts.
3. Then any host that isn't there. A host that was heard on its own link gives way to nobody while it is.

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping

from overlay.presence.timings import FEW_BROUGHT


class KnownBy(enum.IntEnum):
    """How a host came to be known; a higher one gives way later."""

    NAME = 0
    """A replica asked about it, and no presence came."""
    HEARSAY = 1
    """Another keeper told its presence, and neither it nor a node of it was heard."""
    NODE = 2
    """A light client, brought by a node that it names."""
    ITSELF = 3
    """It was heard on its own link, or answered a dial."""


class KeptPlaces:
    """Who has one."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[KnownBy, str]] = {}
        self._of: dict[KnownBy, dict[str, dict[str, None]]] = {known_by: {} for known_by in KnownBy}
        self._named = 0

    @property
    def named(self) -> int:
        """How many are known by name alone."""
        return self._named

    def known_by(self, host: str) -> KnownBy:
        """How a host that has a place came to be known."""
        return self._held[host][0]

    def teller(self, host: str) -> str:
        """Who named, told or brought it."""
        return self._held[host][1]

    def put(self, host: str, known_by: KnownBy, teller: str) -> None:
        """A host has a place from now on, or has it for another reason."""
        self.drop(host)
        self._held[host] = known_by, teller
        self._of[known_by].setdefault(teller, {})[host] = None
        self._named += known_by is KnownBy.NAME

    def drop(self, host: str) -> None:
        """It has none any more."""
        known_by, teller = self._held.pop(host, (KnownBy.NAME, ""))
        hosts = self._of[known_by].get(teller, {})
        if host in hosts:
            del hosts[host]
            self._named -= known_by is KnownBy.NAME
        if not hosts:
            self._of[known_by].pop(teller, None)

    def first_named(self) -> str | None:
        """Which of those known by name gives way first."""
        most = _most(self._of[KnownBy.NAME])
        return next(iter(most), None)

    def giving_way(self, known_by: KnownBy, teller: str, is_there: Callable[[str], bool]) -> str | None:
        """Which one gives way to another that is known so, by that teller; None where none does."""
        for lesser in (KnownBy.NAME, KnownBy.HEARSAY)[: known_by + 1]:
            most = _most(self._of[lesser])
            if most:
                return next(iter(most))
        if known_by < KnownBy.NODE:
            return None
        brought = self._of[KnownBy.NODE]
        most = _most(brought)
        own: Mapping[str, None] = {}
        if known_by is KnownBy.NODE:
            own = brought.get(teller, {})
        if len(most) > (len(own) + 1 if known_by is KnownBy.NODE else FEW_BROUGHT):
            return _first_gone(most, is_there) or next(reversed(most))
        gone = _first_gone(own, is_there)
        if gone is not None or len(own) >= FEW_BROUGHT:
            return gone
        return _first_gone(self._held, is_there)


def _first_gone(hosts: Iterable[str], is_there: Callable[[str], bool]) -> str | None:
    return next((host for host in hosts if not is_there(host)), None)


def _most(of: Mapping[str, dict[str, None]]) -> dict[str, None]:
    """The hosts of the teller that has the most."""
    return max(of.values(), key=len, default={})
