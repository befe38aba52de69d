"""Who was asked to compare what this node lacks, and whose word that it was compared suffices. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from registry.protocol.address_groups import AddressGroups


class PullRound:
    """One round of asking for some resources. `failed`: who was asked and didn't compare."""

    def __init__(
        self,
        keepers: Mapping[str, set[str]],
        groups: AddressGroups,
        is_patient: Callable[[str], bool],
        words: Callable[[str], Collection[str]],
    ) -> None:
        """`keepers`: which of the resources each replica keeps. `is_patient`: whether the word of those who don't
        compare is still waited for, of a resource. `words`: who has compared a resource already, in earlier rounds."""
        self._keepers = keepers
        self._groups = groups
        self._is_patient = is_patient
        self._words = {key_id: {*words(key_id)} for kept in keepers.values() for key_id in kept}
        self.left = set(self._words)
        """Resources of which not enough is heard yet."""
        self.failed: set[str] = set()
        self.under_way: set[str] = set()
        """Who is asked at the moment."""
        self.any_compared = False
        """Whether somebody has, in this round."""
        self._look()

    @property
    def done(self) -> set[str]:
        """Resources of which enough is heard."""
        return self._words.keys() - self.left

    def next_one(self, failures: Mapping[str, int]) -> str | None:
        """Whom to ask now, who counts as asked then: of those who failed the fewest times (`failures`), who keeps most
        of what is left."""
        free = sorted(self._keepers.keys() - self.failed - self.under_way)
        worthy = [peer_id for peer_id in free if self._worth(peer_id) != (0, 0)]
        chosen = max(worthy, key=lambda peer_id: (-failures.get(peer_id, 0), self._worth(peer_id)), default=None)
        if chosen is not None:
            self.under_way.add(chosen)
        return chosen

    def compared(self, peer_id: str) -> set[str]:
        """One has compared; the resources for which that counts."""
        self.any_compared = True
        counted = self._keepers[peer_id] & self.left
        for key_id in counted:
            self._words[key_id].add(peer_id)
        self.under_way.discard(peer_id)
        self._look()
        return counted

    def didnt_compare(self, *peer_ids: str) -> None:
        """These won't."""
        self.failed.update(peer_ids)
        self.under_way.difference_update(peer_ids)
        self._look()

    def _look(self) -> None:
        self.left = {key_id for key_id in self.left if not self._suffices(key_id)}

    def _worth(self, peer_id: str) -> tuple[int, int]:
        """For how many resources a peer's word would be the first of its address group, and its first."""
        unheard = [key_id for key_id in self._keepers[peer_id] & self.left if peer_id not in self._words[key_id]]
        group = self._groups.of(peer_id)
        return sum(group not in map(self._groups.of, self._words[key_id]) for key_id in unheard), len(unheard)

    def _suffices(self, key_id: str) -> bool:
        possible = {peer_id for peer_id, kept in self._keepers.items() if key_id in kept}
        if not self._is_patient(key_id):
            possible -= self.failed
        return bool(self._words[key_id]) and self._groups.suffices(self._words[key_id], possible)
