"""What tests of health share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

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

    is_up: bool = True
    since: float = math.inf
    exceptions: bytes = b""
    is_known: bool = True
    has_left: bool = False
    accusers: tuple[str, ...] = ()
    peer_id: str = ""


class FakePresence:
    """Presence as the registry sees it, in memory."""

    def __init__(self) -> None:
        self.told = b""
        self.followed: set[str] = set()
        self.evidence: dict[str, bytes] = {}
        self.complained: list[str] = []
        self.looked_for: list[str] = []
        self._standings: dict[str, Standing] = {}
        self._callbacks: list[Callable[[Any], None]] = []

    def follow(self, peer_ids: Iterable[str]) -> None:
        self.followed |= set(peer_ids)

    def unfollow(self, peer_ids: Iterable[str]) -> None:
        self.followed -= set(peer_ids)

    def note_exceptions(self, exceptions: bytes) -> None:
        self.told = exceptions

    def state_of(self, peer_id: str) -> Standing:
        return self._standings.get(peer_id, Standing(is_known=False, peer_id=peer_id))

    def is_settled(self, peer_id: str) -> bool:
        return self.state_of(peer_id).is_known

    def evidence_of(self, peer_id: str) -> bytes:
        return self.evidence.get(peer_id, b"")

    def look_for(self, peer_ids: Iterable[str]) -> None:
        self.looked_for += peer_ids

    def complain(self, peer_id: str) -> None:
        self.complained.append(peer_id)

    def on_change(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def becomes(self, peer_id: str, standing: Standing) -> None:
        """What is known of a peer changes."""
        self._standings[peer_id] = msgspec.structs.replace(standing, peer_id=peer_id)
        for callback in self._callbacks:
            callback(self._standings[peer_id])
