"""Who may register: each rule told, and all of them against a definition of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity
from overlay.membership.certificate import Certificate, encode_chain
from registry.codes import Code
from registry.permission.errors import RefusedByPolicy
from registry.permission.permitted import Claim, is_named, permitted_until, why_not_permitted
from registry.permission.policy import ANY_HOST, FOR_EVER, Denial, Policy, UnknownPolicy
from registry.permission.scope import Scope, ScopeKind, scope_in
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NODE,
    NOW,
    OWNER,
    STRANGER,
    a_certificate,
    a_key,
    identity,
    keys_of,
    public_key,
)

ROOT, MIDDLE = identity(40), identity(41)
KEY = a_key("payments")
ROOTS = Policy(revision=1, roots=keys_of(ROOT))


def claim(
    *chain: Certificate,
    issuer: Identity = ISSUER,
    host: Identity = HOST,
    issued: int = NOW,
    solution: bytes = b"",
    label: str = "payments",
    owner: Identity = OWNER,
) -> Claim:
    key = a_key(label, owner)
    return Claim(
        key.id, label, owner.peer_id, issuer.peer_id, host.peer_id, issued, encode_chain(chain) if chain else solution
    )


def denied(who: Identity, host: Identity | None = None, until: int = FOR_EVER) -> Policy:
    entry = Denial(public_key(who), ANY_HOST if host is None else public_key(host), until)
    return Policy(revision=1, open=True, roots=keys_of(ROOT), deny=(entry,))


THROUGH_MIDDLE = (
    a_certificate(ROOT, MIDDLE, permits=(), depth=1),
    a_certificate(MIDDLE, ISSUER),
)


@pytest.mark.parametrize(
    ("policy", "asked", "code"),
    [
        (None, claim(), None),
        (Policy(revision=1), claim(), Code.ISSUER_NOT_ALLOWED),
        (Policy(revision=1), claim(issuer=OWNER), None),
        (Policy(revision=1, open=True), claim(), None),
        (Policy(revision=1, allow=keys_of(ISSUER)), claim(), None),
        (Policy(revision=1, allow=keys_of(STRANGER)), claim(), Code.ISSUER_NOT_ALLOWED),
        (UnknownPolicy(1), claim(), Code.POLICY_UNKNOWN),
        (UnknownPolicy(1), claim(issuer=OWNER), None),
        (Policy(revision=1, open=True, hosts=keys_of(NODE)), claim(), Code.HOST_NOT_ALLOWED),
        (Policy(revision=1, open=True, hosts=keys_of(NODE)), claim(host=NODE), None),
        (Policy(revision=1, hosts=keys_of(NODE)), claim(issuer=OWNER), None),
        (denied(ISSUER), claim(), Code.ISSUER_DENIED),
        (denied(ISSUER, HOST), claim(), Code.ISSUER_DENIED),
        (denied(ISSUER, HOST), claim(host=NODE), None),
        (denied(STRANGER, HOST), claim(), None),
        (denied(ISSUER, until=NOW), claim(), Code.ISSUER_DENIED),
        (denied(ISSUER, until=NOW - 1), claim(), None),
        (denied(MIDDLE), claim(*THROUGH_MIDDLE), Code.ISSUER_DENIED),
        (denied(ROOT), claim(*THROUGH_MIDDLE), Code.ISSUER_DENIED),
        (denied(MIDDLE, HOST), claim(*THROUGH_MIDDLE), None),
        (ROOTS, claim(*THROUGH_MIDDLE), None),
        (ROOTS, claim(a_certificate(ROOT)), None),
        (ROOTS, claim(a_certificate(OWNER)), None),
        (ROOTS, claim(a_certificate(STRANGER)), Code.CERTIFICATE_ROOT),
        (ROOTS, claim(a_certificate(ROOT, STRANGER)), Code.CERTIFICATE_SUBJECT),
        (ROOTS, claim(a_certificate(ROOT, permits=("member",))), Code.CERTIFICATE_PERMISSION),
        (ROOTS, claim(a_certificate(ROOT, expires_at=NOW)), Code.CERTIFICATE_EXPIRED),
        (ROOTS, claim(a_certificate(ROOT, not_before=NOW + 1)), Code.CERTIFICATE_NOT_YET_VALID),
        (ROOTS, claim(THROUGH_MIDDLE[0], a_certificate(STRANGER, ISSUER)), Code.CERTIFICATE_LINK),
        (ROOTS, claim(a_certificate(ROOT, MIDDLE), THROUGH_MIDDLE[1]), Code.CERTIFICATE_DEPTH),
        (ROOTS, claim(solution=b"what the original may have had"), Code.CERTIFICATE_FORM),
        (
            Policy(revision=1, roots=keys_of(ROOT), longest_chain=1),
            claim(*THROUGH_MIDDLE),
            Code.CERTIFICATE_CHAIN_TOO_LONG,
        ),
        (
            ROOTS,
            claim(a_certificate(ROOT, scope=Scope(ScopeKind.RESOURCE, b"", a_key("another").id))),
            Code.CERTIFICATE_RESOURCE,
        ),
        (ROOTS, claim(a_certificate(ROOT, scope=Scope(ScopeKind.RESOURCE, b"", KEY.id))), None),
        (
            ROOTS,
            claim(a_certificate(ROOT, scope=Scope(ScopeKind.LABEL, public_key(OWNER), "pay"))),
            Code.CERTIFICATE_RESOURCE,
        ),
        (ROOTS, claim(a_certificate(ROOT, scope=Scope(ScopeKind.LABEL, public_key(OWNER), "payments"))), None),
        (ROOTS, claim(a_certificate(ROOT, scope=Scope(ScopeKind.PREFIX, public_key(OWNER), "pay"))), None),
        (ROOTS, claim(a_certificate(ROOT, expires_at=NOW + 5)), None),
    ],
)
def test_each_rule(policy: Policy | UnknownPolicy | None, asked: Claim, code: Code | None) -> None:
    assert why_not_permitted(policy, asked, NOW) is code
    if code is not None:
        assert "; " in str(RefusedByPolicy(asked.resource_id, code, asked.issuer, asked.host)), "what to do"


@pytest.mark.parametrize("kind", [ScopeKind.ALL, ScopeKind.LABEL, ScopeKind.PREFIX])
def test_a_certificate_isnt_good_on_another_owners_resources(kind: ScopeKind) -> None:
    scope = Scope(kind, public_key(OWNER), "" if kind is ScopeKind.ALL else "payments")
    certificate = a_certificate(ROOT, scope=scope)
    assert why_not_permitted(ROOTS, claim(certificate), NOW) is None
    assert why_not_permitted(ROOTS, claim(certificate, owner=STRANGER), NOW) is Code.CERTIFICATE_RESOURCE


@pytest.mark.parametrize(
    "encoded", [b"", b"\xff", b"\x80", Scope(ScopeKind.ALL, public_key(OWNER)).encoded() + b"\x00", b"\x83\x63all@@"]
)
def test_a_scope_that_isnt_understood_covers_nothing(encoded: bytes) -> None:
    assert scope_in(encoded) is None


def test_a_denial_doesnt_end_by_the_clock() -> None:
    policy = denied(ISSUER, until=NOW + 10)
    for now in (NOW, NOW + 11, NOW + 10_000):
        assert why_not_permitted(policy, claim(), now) is Code.ISSUER_DENIED
    assert why_not_permitted(policy, claim(issued=NOW + 11), NOW + 11) is None


PEOPLE = (OWNER, ISSUER, STRANGER, ROOT, MIDDLE)
SOME_KEYS = st.sets(st.sampled_from(PEOPLE[1:]), max_size=2).map(lambda who: keys_of(*who))
DENIALS = st.builds(
    lambda who, host, until: Denial(public_key(who), ANY_HOST if host is None else public_key(host), until),
    st.sampled_from(PEOPLE[1:]),
    st.sampled_from((None, HOST, NODE)),
    st.sampled_from((NOW - 1, NOW, FOR_EVER)),
)
POLICIES = st.builds(
    lambda is_open, allow, roots, deny, hosts, longest: Policy(
        revision=1,
        open=is_open,
        allow=allow,
        roots=roots,
        deny=tuple(sorted({(each.issuer, each.host): each for each in deny}.values())),
        hosts=hosts,
        longest_chain=longest,
    ),
    st.booleans(),
    SOME_KEYS,
    SOME_KEYS,
    st.lists(DENIALS, max_size=2),
    st.sampled_from(((), (), keys_of(HOST))),
    st.integers(0, 3),
)
CHAINS = st.sampled_from(
    (
        (),
        (),
        THROUGH_MIDDLE,
        THROUGH_MIDDLE,
        (a_certificate(ROOT),),
        (a_certificate(OWNER),),
        (a_certificate(OWNER, STRANGER, expires_at=NOW + 5),),
        (a_certificate(ROOT, expires_at=NOW),),
        (a_certificate(ROOT, not_before=NOW + 1),),
        (a_certificate(ROOT, MIDDLE), THROUGH_MIDDLE[1]),
    )
)


def may(policy: Policy, asked: Claim, chain: tuple[Certificate, ...], now: int) -> bool:
    """The rules, as PERMISSION in words: who may give what, from the subject up."""
    issuer = next(who for who in PEOPLE if who.peer_id == asked.issuer)
    host = HOST if asked.host == HOST.peer_id else NODE
    if issuer is OWNER:
        return True
    named = {public_key(issuer)} | {each.issuer for each in chain} | {each.subject for each in chain}
    for each in policy.deny:
        if asked.issued_at > each.until:
            continue
        if each.host == ANY_HOST and each.issuer in named:
            return False
        if each.host == public_key(host) and each.issuer == public_key(issuer):
            return False
    if policy.hosts and public_key(host) not in policy.hosts:
        return False
    if policy.open or public_key(issuer) in policy.allow:
        return True

    def given(at: int, further: int) -> bool:
        one = chain[at]
        good = one.not_before <= asked.issued_at and now < one.expires_at and one.depth >= further
        if at == 0:
            return good and one.issuer in (public_key(OWNER), *policy.roots)
        return good and chain[at - 1].subject == one.issuer and given(at - 1, further + 1)

    fits = 0 < len(chain) <= policy.longest_chain and chain[-1].subject == public_key(issuer)
    return fits and "register" in chain[-1].permits and given(len(chain) - 1, 0)


@given(
    policy=POLICIES,
    chain=CHAINS,
    issuer=st.sampled_from((OWNER, ISSUER, ISSUER, STRANGER)),
    host=st.sampled_from((HOST, NODE)),
    issued=st.sampled_from((NOW - 1, NOW, NOW + 1)),
    now=st.sampled_from((NOW, NOW + 1, NOW + 5, NOW + 4000)),
)
def test_what_is_permitted_is_what_the_rules_say_and_time_only_narrows_it(
    policy: Policy, chain: tuple[Certificate, ...], issuer: Identity, host: Identity, issued: int, now: int
) -> None:
    asked = claim(*chain, issuer=issuer, host=host, issued=issued)
    is_permitted = why_not_permitted(policy, asked, now) is None
    assert is_permitted == may(policy, asked, chain, now)
    if is_permitted:
        assert why_not_permitted(policy, asked, now - 1) is None
        until = permitted_until(policy, asked)
        if until is None:
            assert why_not_permitted(policy, asked, 2**62) is None
        else:
            assert why_not_permitted(policy, asked, until - 1) is None
            assert why_not_permitted(policy, asked, until) is Code.CERTIFICATE_EXPIRED
    if is_named(policy, asked, now):
        assert is_permitted
