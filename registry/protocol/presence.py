"""What the registry needs of presence: who is alive, and what hosts say with it of their services.

The overlay satisfies it where it has presence. Without it (None) all hosts count as up, and what they host as passing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol


class HostStanding(Protocol):
    """What is known of one host now."""

    @property
    def peer_id(self) -> str:
        """The host's id."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether it is listed; so is each of which nothing is known."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether it told its presence; those of an older release don't."""
        ...

    @property
    def has_left(self) -> bool:
        """Whether it is down since it said itself that it stops."""
        ...

    @property
    def since(self) -> float:
        """Seconds for which it is up or down; infinity where it always was, as far as known."""
        ...

    @property
    def accusers(self) -> tuple[str, ...]:
        """The peers by whose word it is down."""
        ...

    @property
    def exceptions(self) -> bytes:
        """What it said last of its services that don't pass (`registry.health.exceptions`), signed by it."""
        ...


class PresenceNetwork(Protocol):
    """Who is alive, and our own word of it."""

    def note_exceptions(self, exceptions: bytes) -> None:
        """Has our own presence carry this from now on, 4,096 bytes at most; it is told at once."""
        ...

    def follow(self, peer_ids: Iterable[str]) -> None:
        """Has `state_of` know from now on whether these peers are up, until `unfollow`."""
        ...

    def unfollow(self, peer_ids: Iterable[str]) -> None:
        """Undoes `follow`."""
        ...

    def state_of(self, peer_id: str) -> HostStanding:
        """What is known of a peer; one that isn't followed is up."""
        ...

    def is_settled(self, peer_id: str) -> bool:
        """Whether nothing more is to be learnt soon of a followed peer of which nothing was known."""
        ...

    def evidence_of(self, peer_id: str) -> bytes:
        """What was signed of a followed peer, to be passed on to who follows it through this one."""
        ...

    def look_for(self, peer_ids: Iterable[str]) -> None:
        """Somebody reads of followed peers: those are looked at of which nobody would tell that they died."""
        ...

    def complain(self, peer_id: str) -> None:
        """A caller couldn't reach a followed peer: it is looked at now."""
        ...

    def on_change(self, callback: Callable[[Any], None]) -> None:
        """Has `callback(standing)` called, synchronously, when a followed peer goes down or comes up, is known, or says
        something else. `standing` is a `HostStanding`."""
        ...
