"""Whose names a private network's are, as the token says by which one joined it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from overlay.identity import peer_id_of
from registry.errors import InvalidValue
from registry.model.names import check_alias

if TYPE_CHECKING:
    from overlay.membership.join_token import JoinToken


def network_owner(token: JoinToken | None) -> str:
    """The peer id of the network's default owner; empty where there is none."""
    return peer_id_of(token.owner) if token is not None and token.owner else ""


def with_invited(aliases: Mapping[str, str], token: JoinToken | None) -> dict[str, str]:
    """One's own aliases, and below them the token's: where one has that word for somebody else, it doesn't count, and
    where one has another word for that owner, the own one is shown. A word that can be no alias here is passed over."""
    known = dict(aliases)
    owner = network_owner(token)
    if token is not None and token.alias and token.alias not in known:
        try:
            check_alias(token.alias, owner)
        except InvalidValue:
            return known
        known[token.alias] = owner
    return known
