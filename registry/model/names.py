"""Names that people can say: `web@acme` is the resource with the label `web` of the owner whose alias is `acme`.

Rules:
1. The last `@` splits, so a label may hold some. What is right of it is an alias, an owner's peer id, or `me`, the own
   key; what is left of it is the label.
2. An alias is each user's own word for a peer id, from the settings. It never looks like a peer id, and none is `me`.
3. A text without `@` is a resource id or nothing: base58 has no `@`, so the two can't be mistaken for each other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from overlay.identity import is_peer_id
from registry.errors import InvalidValue
from registry.model.fields import check_text
from registry.model.signing import is_key_id, key_id_of
from registry.model.values import MAX_LABEL

OWN: Final = "me"
"""The owner's word for the own key."""
_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_SHOWN: Final = 80  # characters


class Names:
    """One user's aliases, and the resources that they name. Immutable."""

    def __init__(self, aliases: Mapping[str, str] | None = None, own: str | None = None) -> None:
        """`aliases`: alias to owner's peer id; `own`: the peer id that `me` is. Raises InvalidValue."""
        self.aliases: Mapping[str, str] = MappingProxyType(dict(aliases or {}))
        for alias, peer_id in self.aliases.items():
            check_alias(alias, peer_id)
        self._own = own
        # Of several aliases of one owner, the first is shown.
        self._words = {peer_id: alias for alias, peer_id in reversed(list(self.aliases.items()))}
        if own is not None:
            self._words.setdefault(own, OWN)

    def of(self, own: str | None) -> Names:
        """The same aliases, with another own key."""
        return Names(self.aliases, own)

    def with_aliases(self, aliases: Mapping[str, str]) -> Names:
        """The same own key, with other aliases. Raises InvalidValue."""
        return Names(aliases, self._own)

    def owner(self, word: str) -> str:
        """The peer id that an alias, `me` or a peer id means. Raises InvalidValue, with the remedy."""
        if word == OWN:
            if self._own is None:
                raise InvalidValue("there is no own key here that `me` could mean; write the owner's peer id")
            return self._own
        found = self.aliases.get(word)
        if found is not None:
            return found
        if is_peer_id(word):
            return word
        near = difflib.get_close_matches(word[:_LONGEST_SHOWN], self.aliases, 1)
        hint = f"did you mean {near[0]}? Or " if near else ""
        shown = word[:_LONGEST_SHOWN]
        key = shown if _ALIAS.fullmatch(word) else "ALIAS"
        raise InvalidValue(
            f"{shown!r} is no alias of an owner that is known here, nor a peer id; {hint}"
            f'set `names.{key} = "12D3KooW..."` in the settings, or write the owner\'s peer id'
        )

    def resource_id(self, text: str) -> str:
        """The id of the resource that a name or an id means. Raises InvalidValue for what is neither."""
        parts = label_and_owner(text)
        if parts is not None:
            label, word = parts
            check_text("the label", label, MAX_LABEL)
            return key_id_of(label, self.owner(word))
        if not is_key_id(text):
            shown = text[:_LONGEST_SHOWN]
            raise InvalidValue(
                f"{shown!r} is neither a resource id nor a name; a name has an owner: {shown}@me is that of your key,"
                f" {shown}@ALIAS or {shown}@PEER_ID another's"
            )
        return text

    def name(self, label: str, owner_peer_id: str) -> str:
        """What a resource is called here: with the owner's alias, or its peer id where it has none."""
        return f"{label}@{self._words.get(owner_peer_id, owner_peer_id)}"


def label_and_owner(text: str) -> tuple[str, str] | None:
    """The two sides of a name's last `@`; None for a text without."""
    label, at, owner = text.rpartition("@")
    return (label, owner) if at else None


def check_alias(alias: str, peer_id: str) -> None:
    """Raises InvalidValue, with the remedy, unless `alias` may stand for the owner `peer_id`."""
    if not _ALIAS.fullmatch(alias):
        raise InvalidValue(
            f"names.{alias[:_LONGEST_SHOWN]}: an alias has up to 64 letters, digits, '.', '_' and '-',"
            " and begins with a letter or a digit"
        )
    if alias == OWN or is_peer_id(alias):
        raise InvalidValue(f"names.{alias}: it means something already; choose another word")
    if not is_peer_id(peer_id):
        raise InvalidValue(
            f"names.{alias}: {peer_id[:_LONGEST_SHOWN]!r} isn't the peer id of an owner, like 12D3KooW...;"
            " `aqua-registry key show` prints one's own"
        )
