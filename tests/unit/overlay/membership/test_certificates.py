"""Certificates: their form, and what a chain of them permits, against a definition of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity, public_key_of
from overlay.membership import chain as chain_module
from overlay.membership.certificate import (
    LATEST,
    MAX_CHAIN,
    MAX_CHAIN_BYTES,
    MAX_SCOPE,
    Certificate,
    CertificateError,
    CertificateFault,
    decode_chain,
    encode_chain,
    is_genuine,
)
from overlay.membership.chain import chain_fault, ends_at

NOW = 1_700_000_000
USE, HERE, ELSEWHERE = "use", b"here", b"elsewhere"


@lru_cache
def identity(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


def key(number: int) -> bytes:
    return public_key_of(identity(number).peer_id)


ROOT, OTHER_ROOT, MIDDLE, OTHER, SUBJECT = range(1, 6)


@lru_cache(maxsize=4096)
def certificate(
    issuer: int = ROOT,
    subject: int = SUBJECT,
    permits: tuple[str, ...] = (USE,),
    depth: int = 0,
    scope: bytes = HERE,
    not_before: int = NOW - 10,
    expires_at: int = NOW + 10,
    signer: int | None = None,
) -> Certificate:
    unsigned = Certificate(key(issuer), key(subject), permits, depth, scope, not_before, expires_at)
    return unsigned.signed_by(identity(issuer if signer is None else signer))


def fault(*chain: Certificate, signed_at: int = NOW, now: int = NOW, longest: int = 3) -> CertificateFault | None:
    return chain_fault(
        chain,
        roots=(key(ROOT),),
        subject=key(SUBJECT),
        permission=USE,
        fits=lambda scope: scope == HERE,
        signed_at=signed_at,
        now=now,
        longest=longest,
    )


HANDED_ON = certificate(ROOT, MIDDLE, (), 1), certificate(MIDDLE, SUBJECT)
LONG = certificate(ROOT, MIDDLE, (), 2), certificate(MIDDLE, OTHER, (), 1), certificate(OTHER, SUBJECT)


@pytest.mark.parametrize("chain", [(certificate(),), HANDED_ON, LONG])
def test_a_chain_from_a_root_permits_and_survives_its_encoding(chain: tuple[Certificate, ...]) -> None:
    assert fault(*chain) is None
    assert decode_chain(encode_chain(chain)) == chain


@pytest.mark.parametrize(
    ("chain", "wrong"),
    [
        ((certificate(OTHER_ROOT),), CertificateFault.ROOT),
        ((certificate(subject=OTHER),), CertificateFault.SUBJECT),
        ((certificate(permits=()),), CertificateFault.PERMISSION),
        ((certificate(permits=("another",)),), CertificateFault.PERMISSION),
        ((certificate(scope=ELSEWHERE),), CertificateFault.SCOPE),
        ((certificate(not_before=NOW + 1),), CertificateFault.NOT_YET_VALID),
        ((certificate(expires_at=NOW),), CertificateFault.EXPIRED),
        ((certificate(signer=OTHER),), CertificateFault.SIGNATURE),
        ((certificate(ROOT, MIDDLE, (USE,), 0), HANDED_ON[1]), CertificateFault.DEPTH),
        ((HANDED_ON[0], certificate(OTHER, SUBJECT)), CertificateFault.LINK),
        ((certificate(ROOT, MIDDLE, (), 1, ELSEWHERE), HANDED_ON[1]), CertificateFault.SCOPE),
        ((certificate(ROOT, MIDDLE, (), 1, signer=MIDDLE), HANDED_ON[1]), CertificateFault.SIGNATURE),
        ((*LONG[:2], LONG[2], LONG[2]), CertificateFault.TOO_LONG),
    ],
)
def test_each_fault_is_told(chain: tuple[Certificate, ...], wrong: CertificateFault) -> None:
    assert fault(*chain) is wrong


def test_a_policy_may_take_shorter_chains_only() -> None:
    assert fault(*HANDED_ON, longest=1) is CertificateFault.TOO_LONG
    assert fault(certificate(), longest=0) is CertificateFault.TOO_LONG


def test_what_was_signed_before_a_certificate_began_is_not_under_it() -> None:
    began = certificate(not_before=NOW)
    assert fault(began, signed_at=NOW) is None
    assert fault(began, signed_at=NOW - 1, now=NOW + 5) is CertificateFault.NOT_YET_VALID


@pytest.mark.parametrize("field", [name for name in Certificate.__struct_fields__ if name != "signature"])
def test_the_signature_covers_every_field(field: str) -> None:
    changed = {
        "issuer": key(OTHER),
        "subject": key(OTHER),
        "permits": ("another",),
        "depth": 1,
        "scope": ELSEWHERE,
        "not_before": 0,
        "expires_at": LATEST,
    }
    assert is_genuine(certificate())
    assert not is_genuine(msgspec.structs.replace(certificate(), **{field: changed[field]}))


CERTIFICATES = st.builds(
    certificate,
    st.sampled_from((ROOT, ROOT, OTHER_ROOT, MIDDLE, OTHER)),
    st.sampled_from((MIDDLE, OTHER, SUBJECT)),
    st.sampled_from(((USE,), (USE,), ())),
    st.integers(0, 2),
    st.sampled_from((HERE, HERE, HERE, ELSEWHERE)),
    st.sampled_from((NOW - 10, NOW - 10, NOW)),
    st.sampled_from((NOW + 10, NOW + 10, NOW + 1)),
    st.sampled_from((None, None, None, None, OTHER)),
)
LINKED = st.builds(
    lambda depths, others: tuple(
        certificate(a, b, (USE,) if last else (), depth, **other)
        for (a, b, last), depth, other in zip(
            ((ROOT, MIDDLE, False), (MIDDLE, OTHER, False), (OTHER, SUBJECT, True)), depths, others, strict=True
        )
    ),
    st.tuples(st.sampled_from((2, 2, 1)), st.sampled_from((1, 1, 0)), st.just(0)),
    st.tuples(
        *[
            st.sampled_from(({}, {}, {}, {"not_before": NOW}, {"expires_at": NOW + 1}, {"scope": ELSEWHERE}))
            for _ in range(3)
        ]
    ),
)


def permits(chain: tuple[Certificate, ...], signed_at: int, now: int) -> bool:
    """From the subject up: who may give it the right, with so many more to hand it on."""

    def may_give(at: int, depth: int) -> bool:
        one = chain[at]
        if not (one.not_before <= signed_at and now < one.expires_at and one.scope == HERE and one.depth >= depth):
            return False
        if not is_genuine(one):
            return False
        if at == 0:
            return one.issuer == key(ROOT)
        return chain[at - 1].subject == one.issuer and may_give(at - 1, depth + 1)

    if len(chain) > MAX_CHAIN or chain[-1].subject != key(SUBJECT) or USE not in chain[-1].permits:
        return False
    return may_give(len(chain) - 1, 0)


@given(
    chain=LINKED | st.lists(CERTIFICATES, min_size=1, max_size=4).map(tuple),
    signed_at=st.sampled_from((NOW - 1, NOW, NOW + 1)),
    now=st.sampled_from((NOW, NOW + 1, NOW + 11)),
)
def test_a_chain_permits_what_its_definition_from_the_subject_up_permits(
    chain: tuple[Certificate, ...], signed_at: int, now: int
) -> None:
    found = fault(*chain, signed_at=signed_at, now=now)
    assert (found is None) == permits(chain, signed_at, now)
    if found is None:  # and until then, for good
        assert fault(*chain, signed_at=signed_at, now=ends_at(chain) - 1) is None
    assert fault(*chain, signed_at=signed_at, now=max(now, ends_at(chain))) is not None


def test_a_chain_is_checked_with_three_signatures_at_most_and_only_when_all_else_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[Certificate] = []

    def counted(one: Certificate, really: Callable[[Certificate], bool] = is_genuine) -> bool:
        checked.append(one)
        return really(one)

    monkeypatch.setattr(chain_module, "is_genuine", counted)
    assert fault(*LONG, LONG[2]) is CertificateFault.TOO_LONG
    assert fault(LONG[0], LONG[1], certificate(OTHER, SUBJECT, expires_at=NOW)) is CertificateFault.EXPIRED
    assert checked == []
    assert fault(*LONG) is None
    assert len(checked) == MAX_CHAIN


def test_the_longest_chain_fits() -> None:
    names = tuple(sorted(f"{number}" * 32 for number in range(4)))
    full = msgspec.structs.replace(
        certificate(), permits=names, depth=2, scope=b"s" * MAX_SCOPE, not_before=LATEST, expires_at=LATEST
    )
    encoded = encode_chain([full] * MAX_CHAIN)
    assert len(encoded) <= MAX_CHAIN_BYTES
    assert decode_chain(encoded) == (full,) * MAX_CHAIN


FIELDS = msgspec.to_builtins(certificate(), builtin_types=(bytes,))


def with_field(position: int, value: object) -> list[object]:
    return [*FIELDS[:position], value, *FIELDS[position + 1 :]]


@pytest.mark.parametrize(
    ("encoded", "wrong"),
    [
        (b"\xff", CertificateFault.FORM),
        (b"just any solution", CertificateFault.FORM),
        (cbor2.dumps(["certificates/2", []]), CertificateFault.FORM),
        (cbor2.dumps(["certificates/1", [FIELDS], 1]), CertificateFault.UNKNOWN_FIELDS),
        (cbor2.dumps(["certificates/1", [[*FIELDS, "more"]]]), CertificateFault.UNKNOWN_FIELDS),
        (cbor2.dumps(["certificates/1", [FIELDS] * 4]), CertificateFault.TOO_LONG),
        (cbor2.dumps(["certificates/1", [FIELDS[:3]]]), CertificateFault.FORM),
        (cbor2.dumps(["certificates/1", [{"issuer": 1}]]), CertificateFault.FORM),
        *(
            (cbor2.dumps(["certificates/1", [with_field(position, value)]]), CertificateFault.FORM)
            for position, value in (
                (0, b"short"),
                (1, "text"),
                (2, ["b", "a"]),
                (2, ["a", "a"]),
                (2, ["x" * 33]),
                (2, ["é"]),
                (3, 3),
                (3, -1),
                (3, True),
                (4, b"s" * (MAX_SCOPE + 1)),
                (5, -1),
                (6, 2**63),
                (6, 1.5),
                (7, b"s" * 65),
            )
        ),
        (b"\x82\x6e" + b"certificates/1" + b"\x98\x00", CertificateFault.FORM),  # a length in more bytes than it needs
        (b"\x82\x6e" + b"certificates/1" + b"\x80" + b"x" * MAX_CHAIN_BYTES, CertificateFault.FORM),
    ],
)
def test_what_has_another_form_is_no_chain(encoded: bytes, wrong: CertificateFault) -> None:
    with pytest.raises(CertificateError) as raised:
        decode_chain(encoded)
    assert raised.value.fault is wrong


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(encoded: bytes) -> None:
    try:
        chain = decode_chain(encoded)
    except CertificateError:
        return
    assert chain == () or encode_chain(chain) == encoded
