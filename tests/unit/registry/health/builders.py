"""What tests of health share."""

from __future__ import annotations

import msgspec

from registry.health.hosted import Moment
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


def at(seconds: float) -> Moment:
    """So many seconds after the beginning."""
    return Moment(seconds, NOW + seconds)


class Standing(msgspec.Struct, frozen=True):
    """A host as presence sees it."""

    is_listed: bool = True
    since: float = NOW
    exceptions: bytes = b""
