"""Who may link to a peer of a private network, against the rules one by one."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.membership.certificate import Certificate
from overlay.membership.gatekeeper import (
    ADMIT,
    CLIENT,
    CLOCKS_DIFFER,
    LINK_FAULTS,
    MEMBER,
    SCOPE,
    Gatekeeper,
    LinkFault,
    ShownChain,
    certificate_for,
    encoded,
)
from overlay.membership.revocation import Revocations
from tests.unit.overlay.membership.test_revocations import (
    INVITATION,
    NOW,
    OTHER,
    OTHER_ROOT,
    PEER,
    ROOT,
    identity,
    key,
    revoked,
)

BEGIN, END = NOW - 100, NOW + 100
PEER_ID = identity(PEER).peer_id


def given_by(
    issuer: int, subject: int, permits: str = MEMBER, begin: int = BEGIN, end: int = END, *, may_admit: bool = False
) -> Certificate:
    return certificate_for(
        identity(issuer), key(subject), permits, not_before=begin, expires_at=end, may_admit=may_admit
    )


DIRECT = (given_by(ROOT, PEER),)
INVITED = (given_by(ROOT, INVITATION, may_admit=True), given_by(INVITATION, PEER))


def gatekeeper(
    clients: Literal["certificate", "free"] = "certificate", revocations: Revocations | None = None
) -> Gatekeeper:
    return Gatekeeper([key(ROOT)], clients=clients, revocations=revocations)


def fault(
    *chain: Certificate, member: bool = True, now: int = NOW, told: int | None = None, keeper: Gatekeeper | None = None
) -> LinkFault | None:
    return (keeper or gatekeeper()).fault_of(PEER_ID, ShownChain(encoded(chain), member), now, told=told)


def test_who_has_a_members_certificate_is_let_in_as_either() -> None:
    for member in (True, False):
        assert fault(*DIRECT, member=member) is None
        assert fault(*INVITED, member=member) is None


def test_a_clients_certificate_is_for_light_clients_alone() -> None:
    chain = (given_by(ROOT, PEER, CLIENT),)
    assert fault(*chain, member=False) is None
    assert fault(*chain) is LinkFault.NOT_PERMITTED


def test_without_roots_everybody_is_let_in() -> None:
    keeper = Gatekeeper(())
    assert not keeper.is_private
    assert keeper.fault_of(PEER_ID, ShownChain(b"", True), NOW) is None


def test_free_clients_show_nothing_and_nobody_else_comes_in_without() -> None:
    assert fault(member=False, keeper=gatekeeper("free")) is None
    assert fault(member=True, keeper=gatekeeper("free")) is LinkFault.NO_CERTIFICATE
    assert fault(member=False) is LinkFault.NO_CERTIFICATE


def another_scope() -> Certificate:
    certificate = Certificate(key(ROOT), key(PEER), (MEMBER,), 0, b"registry", BEGIN, END)
    return certificate.signed_by(identity(ROOT))


def unsigned() -> Certificate:
    return Certificate(key(ROOT), key(PEER), (MEMBER,), 0, SCOPE, BEGIN, END, bytes(64))


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ((), LinkFault.NO_CERTIFICATE),
        ((given_by(OTHER_ROOT, PEER),), LinkFault.OTHER_ROOT),
        ((given_by(ROOT, PEER, end=NOW),), LinkFault.EXPIRED),
        ((given_by(ROOT, PEER, begin=NOW + 1),), LinkFault.NOT_YET_VALID),
        ((given_by(ROOT, OTHER),), LinkFault.WRONG_SUBJECT),
        ((given_by(ROOT, INVITATION), given_by(INVITATION, PEER)), LinkFault.INVALID),
        ((given_by(ROOT, INVITATION, CLIENT, may_admit=True), given_by(INVITATION, PEER)), LinkFault.NOT_PERMITTED),
        ((given_by(ROOT, INVITATION, may_admit=True), given_by(INVITATION, PEER, CLIENT)), LinkFault.NOT_PERMITTED),
        ((*INVITED[:1], given_by(INVITATION, OTHER, may_admit=True), given_by(OTHER, PEER)), LinkFault.INVALID),
        ((another_scope(),), LinkFault.INVALID),
        ((unsigned(),), LinkFault.INVALID),
    ],
)
def test_what_is_wrong_has_a_code(chain: tuple[Certificate, ...], expected: LinkFault) -> None:
    assert fault(*chain) is expected


def test_what_is_no_chain_is_invalid() -> None:
    for shown in (b"\x00", b"\xff" * 4096, encoded(DIRECT) + b"\x00"):
        assert gatekeeper().fault_of(PEER_ID, ShownChain(shown, True), NOW) is LinkFault.INVALID


def test_revoked_chains_are_refused() -> None:
    assert fault(*DIRECT, keeper=gatekeeper(revocations=Revocations([revoked(PEER)]))) is LinkFault.REVOKED
    assert fault(*INVITED, keeper=gatekeeper(revocations=Revocations([revoked(INVITATION)]))) is LinkFault.REVOKED


@pytest.mark.parametrize("now", [BEGIN - 1, END])
def test_a_certificate_that_is_good_by_the_peers_clock_tells_that_one_of_both_is_wrong(now: int) -> None:
    plain = LinkFault.NOT_YET_VALID if now < BEGIN else LinkFault.EXPIRED
    assert fault(*DIRECT, now=now) is plain
    assert fault(*DIRECT, now=now, told=now + CLOCKS_DIFFER) is plain, "the clocks are about equal"
    assert fault(*DIRECT, now=now, told=NOW) is LinkFault.CLOCK
    assert fault(*DIRECT, now=now, told=now + 1000) is plain, "it isn't good by the other's either"


def test_every_code_has_a_text_that_says_what_to_do() -> None:
    assert LINK_FAULTS.keys() == set(LinkFault)
    assert all(len(text) > 40 for text in LINK_FAULTS.values())


@given(
    begins=st.lists(st.integers(NOW, NOW + 9), min_size=2, max_size=2),
    ends=st.lists(st.integers(NOW + 1, NOW + 19), min_size=2, max_size=2),
    later=st.integers(0, 20),
    told=st.lists(
        st.builds(revoked, st.sampled_from((INVITATION, PEER, OTHER)), st.integers(NOW, NOW + 20)), max_size=3
    ),
)
def test_once_it_began_time_and_entries_only_narrow(begins: list[int], ends: list[int], later: int, told: list) -> None:
    chain = (
        given_by(ROOT, INVITATION, begin=begins[0], end=ends[0], may_admit=True),
        given_by(INVITATION, PEER, begin=begins[1], end=ends[1]),
    )
    keeper = gatekeeper()
    good = [fault(*chain, now=now, keeper=keeper) is None for now in range(NOW, NOW + 20)]
    started = good[max(begins) - NOW :]
    assert started == sorted(started, reverse=True), "what has ended is good again"
    keeper.take(told)
    after = [fault(*chain, now=now, keeper=keeper) is None for now in range(NOW, NOW + 20)]
    assert all(before or not now for before, now in zip(good, after, strict=True))


def test_who_is_in_is_put_out_when_its_chain_ends_and_when_it_is_revoked() -> None:
    keeper = gatekeeper()
    short = (given_by(ROOT, PEER, end=NOW + 5),)
    keeper.let_in(PEER_ID, ShownChain(encoded(short), True))
    keeper.let_in(identity(OTHER).peer_id, ShownChain(encoded((given_by(ROOT, OTHER),)), False))
    assert keeper.next_end() == NOW + 5
    assert keeper.put_out(NOW + 4) == []
    assert keeper.put_out(NOW + 5) == [(PEER_ID, LinkFault.EXPIRED)]
    assert not keeper.is_in(PEER_ID)
    assert keeper.next_end() == END
    assert keeper.take([revoked(OTHER)]) == (revoked(OTHER),)
    assert keeper.take([revoked(OTHER)]) == (), "that is known"
    assert keeper.put_out(NOW) == [(identity(OTHER).peer_id, LinkFault.REVOKED)]
    assert keeper.next_end() == math.inf


def test_a_renewed_chain_takes_the_place_of_the_former() -> None:
    keeper = gatekeeper()
    keeper.let_in(PEER_ID, ShownChain(encoded((given_by(ROOT, PEER, end=NOW + 5),)), True))
    keeper.let_in(PEER_ID, ShownChain(encoded(DIRECT), True))
    assert keeper.next_end() == END
    assert keeper.put_out(NOW + 5) == []
    keeper.forget(PEER_ID)
    assert keeper.shown_by(PEER_ID) is None


def test_an_invitation_permits_what_it_says_and_to_admit() -> None:
    assert given_by(ROOT, INVITATION, CLIENT, may_admit=True).permits == (ADMIT, CLIENT)
