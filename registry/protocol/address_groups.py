"""In which networks peers are: the words of two that one party runs are worth one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import trio
from cachetools import TTLCache

from overlay.discovery.address_group import address_group
from registry.protocol.network import Network

GROUPS: Final = 2  # address groups whose word is asked for, where there are so many
WORDS: Final = 2  # replicas, likewise
_REMEMBERED_FOR: Final = 60.0  # seconds
_MAX_PEERS: Final = 4096


class AddressGroups:
    """The address groups of peers, as they tell their addresses themselves or others do; remembered for a minute."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._groups: TTLCache[str, str] = TTLCache(_MAX_PEERS, _REMEMBERED_FOR, timer=trio.current_time)

    def of(self, peer_id: str) -> str:
        """The group of a peer; empty where none is known."""
        group = self._groups.get(peer_id)
        if group is None:
            group = self._groups[peer_id] = address_group(self._network.addresses_of(peer_id))
        return group

    def suffices(self, words: Collection[str], possible: Collection[str]) -> bool:
        """Whether so many peers said something that it isn't a single one's word: two of different groups, as far as
        there are such in `possible`, which are all that could have said it."""
        if len(words) < min(WORDS, len({*possible, *words})):
            return False
        groups = set(map(self.of, words))
        return len(groups) >= min(GROUPS, len(groups.union(map(self.of, possible))))
