"""What tests of health share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from registry.health.hosted import Instant
from registry.health.state import Health, HealthState, HostedService
from registry.model.signing import key_id_of
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER

CRITICAL, WARNING, PASSES = HealthState.CRITICAL, HealthState.WARNING, HealthState.PASSING


def a_service(number: int = 0, issuer: str = HOST.peer_id, instance: str = "") -> HostedService:
    """The service number `number` of an issuer, on HOST."""
    return HostedService(key_id_of(f"sample {number}", OWNER.peer_id), issuer, instance)


GUEST = a_service(0, ISSUER.peer_id)
"""A service of somebody else than the host."""


def bad(state: HealthState = CRITICAL, note: str = "no answer", since: int = NOW) -> Health:
    """How a service is that doesn't pass."""
    return Health(state, since, note)


def at(seconds: float) -> Instant:
    """So many seconds after the beginning."""
    return Instant(seconds, NOW + seconds)


class Standing(msgspec.Struct, frozen=True):
    """A host as presence sees it."""

    is_listed: bool = True
    since: float = NOW
    exceptions: bytes = b""


class FakePresence:
    """Presence as the registry sees it, in memory."""

    def __init__(self) -> None:
        self.told = b""
        self.standings: dict[str, Standing] = {}
        self._callbacks: list[Callable[[str], None]] = []

    def tell_exceptions(self, exceptions: bytes) -> None:
        self.told = exceptions

    def standing(self, peer_id: str) -> Standing | None:
        return self.standings.get(peer_id)

    def on_standing_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def becomes(self, peer_id: str, standing: Standing) -> None:
        """What is known of a peer changes."""
        self.standings[peer_id] = standing
        for callback in self._callbacks:
            callback(peer_id)
