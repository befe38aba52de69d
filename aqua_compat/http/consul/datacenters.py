"""Whose each datacenter is: the default one of one owner, and one for each alias of an owner that the node knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from registry.errors import InvalidValue
from registry.model.names import OWN, Names


class Datacenters:
    """Those of a node at the moment."""

    def __init__(self, default: str, owner: str, names: Callable[[], Names], own: str) -> None:
        """`default`: the name of the default one, which is that of `owner`, an alias, a peer id or `me`. `names`: those
        of the moment, the same until they change; `own`: the peer id of the node. Raises InvalidValue for an owner who
        is unknown."""
        self.default = default.lower()
        self._word = owner
        self._own = own
        self._names = names
        self._known = names()
        self._owners = self._by_name(self._known.owner(owner))

    def owners(self) -> Mapping[str, str]:
        """The peer ids of the owners, by the names of datacenters in lower case; the default one first."""
        if (names := self._names()) is not self._known:
            self._known = names
            owner = self._owners[self.default]
            with suppress(InvalidValue):  # it stays that of whom the word meant
                owner = names.owner(self._word)
            self._owners = self._by_name(owner)
        return self._owners

    def _by_name(self, default_owner: str) -> dict[str, str]:
        owners = {self.default: default_owner}
        for alias, peer_id in {**self._known.aliases, OWN: self._own}.items():
            owners.setdefault(alias.lower(), peer_id)
        return owners
