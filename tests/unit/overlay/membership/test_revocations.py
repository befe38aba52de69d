"""Lists of revocations: a union in which order, grouping and repetition don't matter, and what one takes back."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import LATEST
from overlay.membership.gatekeeper import MEMBER, certificate_for
from overlay.membership.revocation import ENTRY_BYTES, MOST_ENTRIES, Revocation, Revocations, encode_entry, genuine

NOW = 1_700_000_000


@lru_cache
def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


def key(number: int) -> bytes:
    return public_key_of(identity(number).peer_id)


ROOT, OTHER_ROOT, INVITATION, PEER, OTHER = range(1, 6)


@lru_cache(maxsize=4096)
def revoked(subject: int, time: int = NOW, root: int = ROOT) -> Revocation:
    return Revocation.by(identity(root), key(subject), time)


entries = st.lists(
    st.builds(revoked, st.integers(3, 12), st.integers(NOW, NOW + 3), st.sampled_from((ROOT, OTHER_ROOT))), max_size=12
)
lists = entries.map(lambda told: Revocations(told, most=3))
"""Often more than are kept."""


@given(lists, lists)
def test_union_is_commutative(a: Revocations, b: Revocations) -> None:
    assert a | b == b | a
    assert (a | b).digest() == (b | a).digest()


@given(lists, lists, lists)
def test_union_is_associative(a: Revocations, b: Revocations, c: Revocations) -> None:
    assert (a | b) | c == a | (b | c)


@given(lists)
def test_union_is_idempotent(a: Revocations) -> None:
    assert a | a == a == a | Revocations()


@given(entries)
def test_order_and_repetition_of_entries_do_not_matter(told: list[Revocation]) -> None:
    step_by_step = Revocations(most=3)
    for entry in [*reversed(told), *told]:
        step_by_step |= [entry]
    assert step_by_step == Revocations(told, most=3)


@given(lists, lists)
def test_what_one_lacks_makes_both_equal(a: Revocations, b: Revocations) -> None:
    assert a | b.beyond(a) == a | b
    assert not a.beyond(a)


@given(entries.map(Revocations), entries.map(Revocations))
def test_more_entries_never_let_in_whom_fewer_put_out(a: Revocations, b: Revocations) -> None:
    chain = (certificate_for(identity(ROOT), key(PEER), MEMBER, not_before=NOW + 1, expires_at=LATEST),)
    if a.revokes(chain):
        assert (a | b).revokes(chain)


def test_a_list_keeps_the_latest_entries_of_each_root() -> None:
    root = public_key_of(identity(ROOT).peer_id)
    many = [Revocation(root, number.to_bytes(32, "big"), number) for number in range(2 * MOST_ENTRIES)]
    others = [Revocation(key(OTHER_ROOT), key(PEER), 0)]
    kept = Revocations([*many, *others])
    assert set(kept) == {*many[MOST_ENTRIES:], *others}


def chain(not_before: int = NOW, *, invited: bool = False) -> tuple:
    if not invited:
        return (certificate_for(identity(ROOT), key(PEER), MEMBER, not_before=not_before, expires_at=LATEST),)
    invitation = certificate_for(
        identity(ROOT), key(INVITATION), MEMBER, not_before=not_before, expires_at=LATEST, may_admit=True
    )
    own = certificate_for(identity(INVITATION), key(PEER), MEMBER, not_before=not_before, expires_at=LATEST)
    return invitation, own


def test_a_peer_and_an_invitation_are_revoked_by_their_keys() -> None:
    assert Revocations([revoked(PEER)]).revokes(chain())
    assert Revocations([revoked(PEER)]).revokes(chain(invited=True))
    assert Revocations([revoked(INVITATION)]).revokes(chain(invited=True)), "all who joined by it are"
    assert not Revocations([revoked(INVITATION)]).revokes(chain())
    assert not Revocations([revoked(OTHER)]).revokes(chain())
    assert not Revocations([revoked(PEER, root=OTHER_ROOT)]).revokes(chain())


def test_a_later_certificate_by_the_root_alone_lets_a_revoked_peer_in_again() -> None:
    listed = Revocations([revoked(PEER)])
    assert listed.revokes(chain(NOW))
    assert not listed.revokes(chain(NOW + 1))
    assert listed.revokes(chain(NOW + 1, invited=True)), "who holds an invitation dates certificates as it likes"


def test_entries_survive_their_encoding_and_only_genuine_ones_are_taken() -> None:
    entry = revoked(PEER)
    assert len(encode_entry(entry)) <= ENTRY_BYTES
    forged = Revocation(entry.root, key(OTHER), NOW, entry.signature)
    unsigned = Revocation(entry.root, key(OTHER), NOW)
    told: list[object] = [
        encode_entry(entry),
        encode_entry(forged),
        encode_entry(unsigned),
        encode_entry(revoked(PEER, root=OTHER_ROOT)),
        encode_entry(entry) + b"\x00",
        b"",
        b"\xff" * 100,
        [1],
        None,
    ]
    assert genuine(told, [key(ROOT)]) == [entry]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_taken_and_nothing_else(encoded: bytes) -> None:
    assert genuine([encoded], [key(ROOT)]) == []
