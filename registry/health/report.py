"""What the issuer of a record signs for the host of it: how its service is, and for how long that counts.

A report goes to the host through whatever node its issuer acts through, so it carries its issuer's signature, over its
deterministic CBOR without that, under a domain of its own. Each report of one service has a later time than the one
before: whoever passed one on can't repeat it. Pure.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final, cast

import cbor2
import msgspec

from overlay.errors import PeerIdError
from overlay.identity import Identity, verify
from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue
from registry.health.state import MAX_INSTANCE, MAX_NOTE, HealthState, HostedService, cut
from registry.model.fields import SHORT_ID, check_bytes, check_peer_id, check_text, check_timestamp
from registry.model.values import SIGNATURE_BYTES, Slot

MAX_REPORT: Final = 2048
"""Bytes of a report as it travels."""
_DOMAIN: Final = b"aqua-registry/health-report/1:"


class HealthReport(msgspec.Struct, frozen=True, array_like=True):
    """An issuer says how a service of its is, on the host `peer_id`."""

    key_id: str
    issued_by: str
    peer_id: str
    instance: str
    time: int
    """Milliseconds since 1970."""
    state: int | None
    """One of `HealthState`; None where nothing is said of it."""
    note: str
    ttl: float | None
    """Seconds for which what is said counts, now and later; 0 ends that, and what was said; None changes nothing."""
    signature: bytes = b""

    def __post_init__(self) -> None:
        check_text("resource id", self.key_id, SHORT_ID)
        check_peer_id("issued_by", self.issued_by)
        check_peer_id("peer_id", self.peer_id)
        check_text("instance", self.instance, MAX_INSTANCE)
        check_timestamp("time", self.time)
        check_text("note", self.note, MAX_NOTE)
        check_bytes("signature", self.signature, SIGNATURE_BYTES)
        if self.state not in (None, HealthState.PASSING, HealthState.WARNING, HealthState.CRITICAL):
            raise InvalidValue(f"{self.state} is no state that a service can be said to be in")

    @property
    def slot(self) -> Slot:
        """Where the record is."""
        return Slot(self.key_id, self.issued_by, self.peer_id)

    @property
    def service(self) -> HostedService:
        """What is told of."""
        return HostedService(self.key_id, self.issued_by, self.instance)


def signed_report(
    identity: Identity,
    slot: Slot,
    instance: str,
    time: int,
    state: HealthState | None = None,
    note: str = "",
    ttl: float | None = None,
) -> HealthReport:
    """A report by `identity`, which issued the record in the slot. Raises InvalidValue."""
    said = None if state is None else int(state)
    lives = None if ttl is None else float(ttl)
    unsigned = HealthReport(slot.key_id, identity.peer_id, slot.peer_id, instance, time, said, cut(note), lives)
    return msgspec.structs.replace(unsigned, signature=identity.sign(_signed_bytes(unsigned)))


def report_is_genuine(report: HealthReport) -> bool:
    """Whether its issuer signed it."""
    try:
        return verify(report.issued_by, _signed_bytes(report), report.signature)
    except PeerIdError:
        return False


def encode_report(report: HealthReport) -> bytes:
    """The report's bytes, as they travel."""
    return cbor2.dumps(msgspec.to_builtins(report, builtin_types=(bytes,)), canonical=True)


def decode_report(encoded: bytes) -> HealthReport:
    """A report that came from elsewhere; its signature isn't verified. Raises InvalidValue.

    Unlike other bodies it has no fields behind those known here: they would be signed.
    """
    try:
        fields = decode(encoded, max_bytes=MAX_REPORT, max_items=MAX_REPORT)
        if not isinstance(fields, list) or len(fields) != len(HealthReport.__struct_fields__):
            raise InvalidValue("no report of a service's health as this version knows it")
        return msgspec.convert(fields, HealthReport, strict=True, builtin_types=(bytes,))
    except (DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidValue(f"malformed report of a service's health: {error}") from error


def _signed_bytes(report: HealthReport) -> bytes:
    fields = cast("list[Any]", msgspec.to_builtins(report, builtin_types=(bytes,)))[:-1]
    return sha256(_DOMAIN + cbor2.dumps(fields, canonical=True)).digest()
