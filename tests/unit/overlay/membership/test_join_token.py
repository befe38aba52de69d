"""Tokens: what is in one, for whom, and that none tells its secret."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import Identity
from overlay.membership.gatekeeper import CLIENT, LinkFault, ShownChain, encoded
from overlay.membership.join_token import PREFIX, JoinToken, TokenError, parse_token
from tests.unit.overlay.membership.test_gatekeeper import END, gatekeeper, given_by
from tests.unit.overlay.membership.test_revocations import INVITATION, NOW, OTHER, PEER, ROOT, identity, key

ADDRESS = f"/ip4/192.0.2.7/tcp/7001/p2p/{identity(OTHER).peer_id}"
FOR_PEER = JoinToken((key(ROOT),), (ADDRESS,), (given_by(ROOT, PEER),))
INVITING = JoinToken((key(ROOT),), (ADDRESS,), (given_by(ROOT, INVITATION, may_admit=True),), identity(INVITATION).seed)
INVITING_CLIENTS = JoinToken(
    (key(ROOT),), (), (given_by(ROOT, INVITATION, CLIENT, may_admit=True),), identity(INVITATION).seed
)


OWNED = msgspec.structs.replace(FOR_PEER, owner=key(OTHER), registrars=(key(PEER),))
NAMED = msgspec.structs.replace(OWNED, alias="acme")


@pytest.mark.parametrize("token", [FOR_PEER, INVITING, INVITING_CLIENTS, OWNED, NAMED])
def test_a_token_survives_as_text(token: JoinToken) -> None:
    assert parse_token(f"\n {token.text()}\r\n") == token
    assert token.text().isascii()
    assert len(token.text().split()) == 1


def test_a_token_for_a_peer_is_for_no_other() -> None:
    assert FOR_PEER.joined(identity(PEER)) == FOR_PEER
    with pytest.raises(TokenError, match="--for") as raised:
        FOR_PEER.joined(identity(OTHER))
    assert raised.value.fault is LinkFault.WRONG_SUBJECT


def test_an_invitation_lets_whoever_has_it_in_and_is_a_secret_no_more_then() -> None:
    for number in (PEER, OTHER):
        joined = INVITING.joined(identity(number))
        assert not joined.is_secret
        assert joined.ends_at == INVITING.ends_at == END
        assert gatekeeper().fault_of(identity(number).peer_id, ShownChain(encoded(joined.chain), True), NOW) is None
        assert parse_token(joined.text()).joined(identity(number)) == joined


def test_an_invitation_of_clients_makes_clients() -> None:
    joined = INVITING_CLIENTS.joined(identity(PEER))
    assert not INVITING_CLIENTS.is_for_member
    assert not joined.is_for_member
    shown = encoded(joined.chain)
    assert gatekeeper().fault_of(identity(PEER).peer_id, ShownChain(shown, False), NOW) is None
    assert gatekeeper().fault_of(identity(PEER).peer_id, ShownChain(shown, True), NOW) is LinkFault.NOT_PERMITTED


def test_a_token_shows_nothing_of_itself() -> None:
    assert repr(INVITING) == "JoinToken(an invitation)"
    assert identity(INVITATION).seed.hex() not in str(INVITING)


@pytest.mark.parametrize(
    "token",
    [
        JoinToken((), (), FOR_PEER.chain),
        JoinToken((b"short",), (), FOR_PEER.chain),
        JoinToken((key(ROOT),) * 9, (), FOR_PEER.chain),
        JoinToken((key(ROOT),), (ADDRESS,) * 17, FOR_PEER.chain),
        JoinToken((key(ROOT),), ("/" * 257,), FOR_PEER.chain),
        JoinToken((key(ROOT),), (), ()),
        JoinToken((key(ROOT),), (), FOR_PEER.chain, identity(PEER).seed),
        JoinToken((key(ROOT),), (), INVITING.chain),
        JoinToken((key(ROOT),), (), INVITING.chain, Identity.generate().seed),
        JoinToken((key(ROOT),), (), INVITING.chain, b"short"),
        JoinToken((key(ROOT),), (), FOR_PEER.chain, owner=b"short"),
        JoinToken((key(ROOT),), (), FOR_PEER.chain, owner=key(ROOT), registrars=(b"short",)),
        JoinToken((key(ROOT),), (), FOR_PEER.chain, owner=key(ROOT), registrars=(key(PEER),) * 9),
        JoinToken((key(ROOT),), (), FOR_PEER.chain, alias="acme"),
        msgspec.structs.replace(OWNED, alias="a" * 65),
    ],
)
def test_what_lacks_something_or_has_too_much_is_no_token(token: JoinToken) -> None:
    with pytest.raises(TokenError) as raised:
        parse_token(token.text())
    assert raised.value.fault is LinkFault.INVALID


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: PREFIX + raw.hex()))
def test_any_other_text_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(TokenError) as raised:
        parse_token(text)
    assert len(text) < 8 or text not in str(raised.value)


@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_a_token_with_a_wrong_letter_lets_nobody_else_in(place: int, letter: str) -> None:
    text = FOR_PEER.text()
    place = len(PREFIX) + place % (len(text) - len(PREFIX))
    try:
        token = parse_token(text[:place] + letter + text[place + 1 :])
        token.joined(identity(PEER)).check(identity(PEER).peer_id, NOW)
    except TokenError:
        return
    assert (token.chain, token.roots) == (FOR_PEER.chain, FOR_PEER.roots)


def test_a_token_that_has_ended_is_of_no_use_and_one_that_begins_later_may_be() -> None:
    peer_id = identity(PEER).peer_id
    FOR_PEER.check(peer_id, END - 1)
    INVITING_CLIENTS.joined(identity(PEER)).check(peer_id, 0)
    with pytest.raises(TokenError, match=r"invite` again.*\(expired\)"):
        FOR_PEER.check(peer_id, END)


def test_a_token_tells_whose_names_are_the_networks() -> None:
    telling = msgspec.structs.replace(INVITING, owner=key(ROOT), registrars=(key(PEER), key(INVITATION)))
    assert parse_token(telling.text()) == telling
    joined = telling.joined(identity(PEER))
    assert (joined.owner, joined.registrars, joined.is_secret) == (key(ROOT), telling.registrars, False)
    assert parse_token(joined.text()) == joined
