"""Whom a caller believes: issuers, roots and functions, beside what the owner's policy permits."""

from __future__ import annotations

from itertools import product

import pytest

from overlay.membership.certificate import Certificate, encode_chain
from registry.errors import InvalidValue
from registry.model.trusted_issuers import Trusted, TrustRule
from registry.model.values import Record
from registry.permission.scope import Scope, ScopeKind
from tests.unit.registry.builders import HOST, ISSUER, NOW, OWNER, STRANGER, a_certificate, a_key, a_record, public_key

KEY = a_key()


def record(*chain: Certificate, issuer=ISSUER) -> Record:
    return a_record(KEY.id, issuer, HOST, solution=encode_chain(chain) if chain else b"")


def test_issuers_are_believed_by_name_and_nobody_else_not_even_the_owner() -> None:
    trust = TrustRule([ISSUER.peer_id])
    assert [trust.believes(KEY, record(issuer=who), NOW) for who in (ISSUER, STRANGER, OWNER)] == [True, False, False]
    assert TrustRule(ISSUER.peer_id).believes(KEY, record(), NOW), "a single id is one, not a list of letters"
    assert not TrustRule([]).believes(KEY, record(), NOW)
    assert trust.until(record()) is None


def test_roots_are_believed_by_their_certificates_until_these_end() -> None:
    trust = TrustRule(Trusted(roots=[STRANGER.peer_id]))
    good = record(a_certificate(STRANGER, ISSUER))
    assert trust.believes(KEY, good, NOW)
    assert trust.until(good) == NOW + 3600
    for now, shown in product((NOW - 60, NOW, NOW + 3599, NOW + 3600), (good,)):
        assert trust.believes(KEY, shown, now) is (now < NOW + 3600)
    elsewhere = a_certificate(STRANGER, ISSUER, scope=Scope(ScopeKind.LABEL, public_key(OWNER), "other"))
    for shown in (
        record(),
        record(a_certificate(OWNER, ISSUER)),
        record(a_certificate(STRANGER, HOST)),
        record(elsewhere),
        a_record(KEY.id, ISSUER, HOST, solution=b"no chain"),
        record(issuer=STRANGER),
    ):
        assert not trust.believes(KEY, shown, NOW)


def test_a_function_decides_alone() -> None:
    trust = TrustRule(lambda each: each.metadata.value == "mine")
    assert trust.believes(KEY, a_record(KEY.id, value="mine"), NOW)
    assert not trust.believes(KEY, a_record(KEY.id, value="theirs"), NOW)


@pytest.mark.parametrize("wrong", [["nobody"], Trusted(issuers=["nobody"]), Trusted(roots=["nobody"])])
def test_what_is_no_peer_id_is_refused(wrong) -> None:
    with pytest.raises(InvalidValue, match="trusted: not the peer id"):
        TrustRule(wrong)
    with pytest.raises(TypeError):
        TrustRule(7)  # type: ignore[arg-type]
