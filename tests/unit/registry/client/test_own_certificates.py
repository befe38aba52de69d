"""Which chain a record shows, against trying all of them."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from overlay.membership.certificate import Certificate, encode_chain
from overlay.membership.chain import ends_at
from registry.client.own_certificates import OwnCertificates, ShownSolution
from registry.model.policy_withholding import why_withheld
from registry.permission.errors import RefusedByPolicy
from registry.permission.policy import Policy
from registry.permission.scope import Scope, ScopeKind
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NOW,
    OWNER,
    STRANGER,
    a_certificate,
    a_key,
    a_metadata,
    keys_of,
    public_key,
)

SKEW = 30
SCOPES = st.sampled_from(["sample", "other"]).map(lambda name: Scope(ScopeKind.LABEL, public_key(OWNER), name))
CERTIFICATES = st.builds(
    a_certificate,
    st.sampled_from([OWNER, STRANGER, HOST]),
    st.sampled_from([ISSUER, HOST]),
    scope=SCOPES,
    depth=st.integers(0, 1),
    not_before=st.sampled_from([NOW - 60, NOW + 10, NOW + 100]),
    expires_at=st.integers(NOW - 1, NOW + 50),
)
CHAINS = st.lists(st.lists(CERTIFICATES, min_size=1, max_size=2), max_size=6)
POLICIES = st.builds(
    Policy,
    revision=st.just(1),
    open=st.booleans(),
    allow=st.sampled_from([(), keys_of(ISSUER)]),
    roots=st.sampled_from([(), keys_of(STRANGER)]),
)


def shown(policy: Policy | None, chains: list[list[Certificate]]) -> ShownSolution | None:
    """What is shown; None if it's refused."""
    key = a_key(policy=policy)
    own = OwnCertificates(ISSUER, SKEW)
    own.use(lambda: chains)

    async def ask() -> ShownSolution | None:
        try:
            return await own.shown(key, a_metadata(key.id), NOW)
        except RefusedByPolicy:
            return None

    return trio.run(ask)


@given(policy=POLICIES | st.none(), chains=CHAINS)
def test_what_is_shown_is_permitted_for_longest_and_nothing_permitted_is_refused(policy, chains) -> None:
    key = a_key(policy=policy)

    def permitted(solution: bytes, at: int) -> bool:
        return why_withheld(key, a_metadata(key.id, issued=at, solution=solution), NOW) is None

    usable = [
        chain
        for chain in chains
        for at in (NOW, NOW + 10)
        if permitted(encode_chain(chain), at) and at >= max(each.not_before for each in chain)
    ]
    found = shown(policy, chains)
    if found is None:
        assert not usable
        assert not permitted(b"", NOW)
        return
    assert permitted(found.solution, found.from_time)
    assert NOW <= found.from_time <= NOW + SKEW // 2
    if not permitted(b"", NOW):
        assert ends_at([each for chain in usable for each in chain if encode_chain(chain) == found.solution]) == max(
            map(ends_at, usable)
        )


def test_an_owner_needs_none() -> None:
    key = a_key(policy=Policy(revision=1))
    own = OwnCertificates(OWNER, SKEW)
    assert trio.run(own.shown, key, a_metadata(key.id, OWNER), NOW) == ShownSolution(b"", NOW)
