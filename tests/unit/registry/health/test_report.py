"""What an issuer signs for its host."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.health.report import (
    MAX_REPORT,
    HealthReport,
    decode_report,
    encode_report,
    report_is_genuine,
    signed_report,
)
from registry.health.state import HealthState
from registry.model.fields import U63_MAX
from registry.model.values import Slot
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW
from tests.unit.registry.health.builders import CRITICAL, GUEST, PASSES, WARNING

SLOT = Slot(GUEST.key_id, ISSUER.peer_id, HOST.peer_id)


def a_report(
    instance: str = "", state: HealthState | None = CRITICAL, note: str = "down", ttl: float | None = 5
) -> HealthReport:
    return signed_report(ISSUER, SLOT, instance, NOW * 1000, state, note, ttl)


@given(
    st.text(alphabet="aé😀", max_size=30),
    st.sampled_from([None, PASSES, WARNING, CRITICAL]),
    st.text(),
    st.none() | st.integers(0, 2**31) | st.floats(0, 1e6),
)
def test_a_report_travels_as_it_was_signed(
    instance: str, state: HealthState | None, note: str, ttl: float | None
) -> None:
    report = a_report(instance, state, note, ttl)
    encoded = encode_report(report)
    assert len(encoded) <= MAX_REPORT
    arrived = decode_report(encoded)
    assert arrived == report
    assert report_is_genuine(arrived)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("key_id", "x"),
        ("issued_by", NODE.peer_id),
        ("peer_id", NODE.peer_id),
        ("instance", "a"),
        ("time", NOW),
        ("state", None),
        ("note", ""),
        ("ttl", None),
        ("signature", bytes(64)),
        ("signature", b""),
    ],
)
def test_every_field_is_signed(field: str, other: object) -> None:
    assert not report_is_genuine(msgspec.structs.replace(a_report(), **{field: other}))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("key_id", "x" * 65),
        ("issued_by", "x"),
        ("peer_id", ""),
        ("instance", "x" * 129),
        ("time", -1),
        ("time", U63_MAX + 1),
        ("state", HealthState.UNKNOWN),
        ("state", 4),
        ("note", "x" * 257),
        ("ttl", "5"),
        ("signature", bytes(65)),
    ],
)
def test_what_has_no_form_is_refused(field: str, wrong: object) -> None:
    names = HealthReport.__struct_fields__
    fields = cbor2.loads(encode_report(a_report()))
    fields[names.index(field)] = wrong
    with pytest.raises(InvalidValue):
        decode_report(cbor2.dumps(fields))


def test_fields_that_this_version_does_not_know_could_not_be_verified() -> None:
    fields = cbor2.loads(encode_report(a_report()))
    for other in ([*fields, 1], fields[:-1], {"a": 1}):
        with pytest.raises(InvalidValue):
            decode_report(cbor2.dumps(other))
    with pytest.raises(InvalidValue):
        decode_report(b"x" * (MAX_REPORT + 1))
