"""Names of resources: what they mean, what is shown, and what is told of wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.model.names import Names, label_and_owner
from registry.model.signing import key_id_of
from registry.model.values import MAX_LABEL
from tests.unit.registry.builders import ISSUER, OWNER, STRANGER

NAMES = Names({"acme": OWNER.peer_id, "again": OWNER.peer_id, "other.org": ISSUER.peer_id}, STRANGER.peer_id)


def test_owners_are_named_by_alias_by_peer_id_or_as_me() -> None:
    assert NAMES.resource_id("web@acme") == key_id_of("web", OWNER.peer_id)
    assert NAMES.resource_id("web@other.org") == key_id_of("web", ISSUER.peer_id)
    assert NAMES.resource_id(f"web@{ISSUER.peer_id}") == key_id_of("web", ISSUER.peer_id)
    assert NAMES.resource_id("web@me") == key_id_of("web", STRANGER.peer_id)
    assert NAMES.of(OWNER.peer_id).resource_id("web@me") == NAMES.resource_id("web@acme")
    an_id = key_id_of("web", OWNER.peer_id)
    assert Names().resource_id(an_id) == an_id


def test_the_last_at_splits() -> None:
    assert NAMES.resource_id("a@b@@acme") == key_id_of("a@b@", OWNER.peer_id)
    assert NAMES.resource_id("@acme") == key_id_of("", OWNER.peer_id)
    assert label_and_owner("web") is None


@settings(max_examples=50)
@given(st.text("ab@ .é漢", max_size=8), st.sampled_from([OWNER, ISSUER, STRANGER]))
def test_every_name_that_is_shown_means_what_it_is_shown_for(label: str, owner: object) -> None:
    peer_id = owner.peer_id  # type: ignore[attr-defined]
    assert NAMES.resource_id(NAMES.name(label, peer_id)) == key_id_of(label, peer_id)


def test_the_first_alias_is_shown_and_an_alias_before_me() -> None:
    assert NAMES.name("web", OWNER.peer_id) == "web@acme"
    assert NAMES.name("web", STRANGER.peer_id) == "web@me"
    assert NAMES.of(OWNER.peer_id).name("web", OWNER.peer_id) == "web@acme"
    assert Names().name("web", OWNER.peer_id) == f"web@{OWNER.peer_id}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("web@acne", r"'acne' is no alias .* did you mean acme\? .*names\.acne = "),
        ("web@", r"'' is no alias .*names\.ALIAS = "),
        ("web@12D3KooWx", "'12D3KooWx' is no alias"),
        ("web@" + "x" * 5000, "is no alias"),
        ("web", "'web' is neither a resource id nor a name; .* web@me is that of your key"),
        ("", "'' is neither"),
        ("a" * (MAX_LABEL + 1) + "@acme", "the label has 4097 bytes"),
        ("\ud800@acme", "UTF-8"),
    ],
)
def test_what_means_nothing_is_told_with_a_remedy(text: str, error: str) -> None:
    with pytest.raises(InvalidValue, match=error):
        NAMES.resource_id(text)


def test_me_is_nobody_without_an_own_key() -> None:
    with pytest.raises(InvalidValue, match="no own key here"):
        Names().resource_id("web@me")


@pytest.mark.parametrize(
    ("alias", "peer_id", "error"),
    [
        ("a b", OWNER.peer_id, r"names\.a b: an alias has up to 64"),
        ("", OWNER.peer_id, "an alias has up to 64"),
        ("x" * 65, OWNER.peer_id, "an alias has up to 64"),
        ("a@b", OWNER.peer_id, "an alias has up to 64"),
        ("me", OWNER.peer_id, r"names\.me: it means something already"),
        (ISSUER.peer_id, OWNER.peer_id, "it means something already"),
        ("acme", "12D3", r"names\.acme: '12D3' isn't the peer id"),
    ],
)
def test_wrong_aliases_are_refused(alias: str, peer_id: str, error: str) -> None:
    with pytest.raises(InvalidValue, match=error):
        Names({alias: peer_id})
