"""Edits of policies: each does what it says, once, and leaves what others did."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.permission.edits import Edit, EditKind, edited, holds, narrows
from registry.permission.errors import InvalidPolicy
from registry.permission.permitted import Claim, why_not_permitted
from registry.permission.policy import (
    ANY_HOST,
    FOR_EVER,
    LONGEST_CHAIN,
    MAX_DENIALS,
    Denial,
    Policy,
    UnknownPolicy,
    encode_policy,
    policy_digest,
)
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW, OWNER, STRANGER, a_key, identity, keys_of, public_key

KEYS = st.sampled_from([public_key(who) for who in (ISSUER, STRANGER, NODE)])
HOSTS = st.sampled_from((ANY_HOST, public_key(HOST)))
OTHER_KINDS = st.sampled_from([kind for kind in EditKind if kind not in (EditKind.DENY, EditKind.LONGEST_CHAIN)])
EDITS = (
    st.builds(Edit, OTHER_KINDS, KEYS, st.just(ANY_HOST), st.just(FOR_EVER))
    | st.builds(Edit, st.just(EditKind.DENY), KEYS, HOSTS, st.sampled_from((NOW, NOW + 9)))
    | st.builds(Edit, st.just(EditKind.LONGEST_CHAIN), number=st.integers(0, LONGEST_CHAIN))
)


@given(edits=st.lists(EDITS, max_size=6), last=EDITS)
def test_an_edit_holds_once_it_is_made_and_making_it_again_changes_nothing_else(edits: list[Edit], last: Edit) -> None:
    policy = edited(edited(None, edits), [last])
    assert policy.revision == 2
    assert holds(policy, last)
    again = edited(policy, [last])
    assert msgspec.structs.replace(again, revision=2, previous=policy.previous) == policy
    assert again.previous == policy_digest("policy/1", encode_policy(policy))


@given(one=EDITS, other=EDITS)
def test_two_edits_of_different_things_both_hold(one: Edit, other: Edit) -> None:
    both = edited(edited(None, [one]), [other])
    assert holds(both, other)
    assert holds(both, one) or subject(one) == subject(other)


def subject(edit: Edit) -> object:
    if edit.kind in (EditKind.OPEN, EditKind.CLOSE):
        return "open"
    if edit.kind is EditKind.LONGEST_CHAIN:
        return "longest chain"
    is_denial = edit.kind in (EditKind.DENY, EditKind.DROP_DENIAL)
    return "deny" if is_denial else edit.kind.value.split("-")[-1].removeprefix("dis"), edit.key, edit.host


def test_the_first_edit_of_an_open_resource_leaves_it_open_to_all_others() -> None:
    pair = Edit(EditKind.DENY, public_key(STRANGER), public_key(HOST))
    assert edited(None, [pair]) == Policy(
        revision=1, open=True, deny=(Denial(public_key(STRANGER), public_key(HOST), pair.until),)
    )


def test_lifting_a_denial_lets_in_what_is_issued_from_now_on_and_not_what_was_before() -> None:
    denied = edited(None, [Edit(EditKind.DENY, public_key(ISSUER), public_key(HOST))])
    lifted = edited(denied, [Edit(EditKind.DENY, public_key(ISSUER), public_key(HOST), NOW)])
    key = a_key()
    for issued, is_permitted in ((NOW, False), (NOW + 1, True)):
        claim = Claim(key.id, key.label, OWNER.peer_id, ISSUER.peer_id, HOST.peer_id, issued, b"")
        assert (why_not_permitted(lifted, claim, NOW + 5) is None) is is_permitted
        assert why_not_permitted(denied, claim, NOW + 5) is not None


def test_a_denial_is_dropped_only_once_it_has_ended_by_then() -> None:
    pair = (public_key(ISSUER), public_key(HOST))
    denied = edited(None, [Edit(EditKind.DENY, *pair, NOW), Edit(EditKind.DENY, pair[0])])
    for until, is_kept in ((NOW - 1, True), (NOW, False)):
        drop = Edit(EditKind.DROP_DENIAL, *pair, until)
        assert holds(denied, drop) is is_kept
        dropped = edited(denied, [drop])
        assert ((*pair, NOW) in [msgspec.structs.astuple(each) for each in dropped.deny]) is is_kept
        assert (pair[0], ANY_HOST, FOR_EVER) in [msgspec.structs.astuple(each) for each in dropped.deny]
        assert holds(dropped, drop)


def test_a_full_list_says_what_to_use_instead() -> None:
    many = [Edit(EditKind.DENY, public_key(identity(number))) for number in range(MAX_DENIALS + 1)]
    with pytest.raises(InvalidPolicy, match="use allow or roots"):
        edited(None, many)


def test_the_longest_chain_is_within_what_is_verified_and_shortening_it_only_takes_away() -> None:
    policy = edited(None, [Edit(EditKind.LONGEST_CHAIN, number=1)])
    assert policy == Policy(revision=1, open=True, longest_chain=1)
    assert narrows(policy, Edit(EditKind.LONGEST_CHAIN, number=0))
    for number in (1, 2):
        assert not narrows(policy, Edit(EditKind.LONGEST_CHAIN, number=number))
    for number in (-1, LONGEST_CHAIN + 1):
        with pytest.raises(InvalidPolicy, match="within 0 and 3"):
            edited(None, [Edit(EditKind.LONGEST_CHAIN, number=number)])


def test_a_policy_of_a_later_version_isnt_edited() -> None:
    with pytest.raises(InvalidPolicy, match="later version"):
        edited(UnknownPolicy(3), [Edit(EditKind.OPEN)])
    assert not holds(UnknownPolicy(3), Edit(EditKind.OPEN))
    assert edited(Policy(revision=3, allow=keys_of(ISSUER)), [Edit(EditKind.CLOSE)]).revision == 4
