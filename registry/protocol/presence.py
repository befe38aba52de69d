"""What the registry needs of presence: who is alive, and what hosts say with it of their services.

The overlay satisfies it where it has presence. Without it (None) all hosts count as up, and what they host as passing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class HostStanding(Protocol):
    """What is known of one host now."""

    @property
    def is_listed(self) -> bool:
        """Whether it counts as up."""
        ...

    @property
    def since(self) -> float:
        """Since when it is listed, or isn't: seconds since 1970, by this machine's clock; 0 where that isn't known."""
        ...

    @property
    def exceptions(self) -> bytes:
        """What it said last of its services that don't pass (`registry.health.exceptions`), signed by it."""
        ...


class PresenceNetwork(Protocol):
    """Who is alive, and our own word of it."""

    def tell_exceptions(self, exceptions: bytes) -> None:
        """Has our own presence carry this from now on, 4,096 bytes at most; it is told at once."""
        ...

    def standing(self, peer_id: str) -> HostStanding | None:
        """What is known of a peer, ourselves included; None for one of whose presence nothing is known."""
        ...

    def on_standing_change(self, callback: Callable[[str], None]) -> None:
        """Has `callback(peer_id)` called, synchronously, when what `standing` says of a peer has changed."""
        ...
