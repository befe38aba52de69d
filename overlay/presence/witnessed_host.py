"""What a keeper knows of one host: its presence, the words about it, and who waits for proof that it is there. Bounded:
words by `KEEPERS`, those who wait by `MOST_ASKERS`. Pure.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct, field

from overlay.presence.client_witness import ClientWitness
from overlay.presence.statements import NEVER, Presence, Version, Word
from overlay.presence.timings import KEEPERS, MOST_ASKERS, WORD_TTL
from overlay.presence.witness import Witness, WitnessState

_CHALLENGES: Final = 4  # of one light client, whose proofs count
_ASKED_FOR: Final = 10.0  # seconds in which a proof that a replica asked for is passed on to it


class WitnessedHost(Struct):
    """One host, as one of its keepers knows it."""

    witness: Witness | ClientWitness
    presence: Presence | None = None
    told: Version = NEVER
    """The latest version that a replica told, where we have none that is signed."""
    word: Word | None = None
    """Our own last one."""
    said_at: float = -math.inf
    words: dict[str, tuple[Word, float]] = field(default_factory=dict)
    """Those of other keepers, with when they end."""
    askers: dict[str, float] = field(default_factory=dict)
    """Until when a proof is passed on to each."""
    nonces: tuple[bytes, ...] = ()
    """The numbers of our own latest challenges of a light client."""
    reached: frozenset[str] = frozenset()
    """The nodes of a light client that told or proved it, and were reached since."""
    quiet_dials: int = 0
    """Dials in a row that found the host alive, without a beat between them."""

    @property
    def version(self) -> Version:
        """The latest known."""
        return self.presence.version if self.presence is not None else self.told

    def add_word(self, word: Word, now: float) -> bool:
        """Keeps another keeper's word, which is newer than its last one; False if that said the same lately."""
        self.words = {name: kept for name, kept in self.words.items() if now < kept[1]}
        before = self.words.get(word.witness)
        if before is not None and before[0].version == word.version and before[1] - now > WORD_TTL / 2:
            return False
        if len(self.words) < KEEPERS or word.witness in self.words:
            self.words[word.witness] = word, now + min(word.ttl, WORD_TTL)
        return True

    def words_now(self, now: float) -> list[Word]:
        """What other keepers say."""
        return [word for word, until in self.words.values() if now < until]

    def words_against(self, now: float) -> int:
        """How many keepers say that the version of now is down, ourselves included."""
        others = sum(word.version >= self.version and word.is_down for word in self.words_now(now))
        return others + (self.witness.state is WitnessState.DOWN)

    def drop_words_before(self, version: Version) -> None:
        """What was said of earlier versions counts no more."""
        self.words = {name: kept for name, kept in self.words.items() if kept[0].version >= version}

    def add_asker(self, replica: str, now: float) -> bool:
        """A replica waits for a proof from now on; False where too many do."""
        self.askers = {name: until for name, until in self.askers.items() if now < until}
        has_room = len(self.askers) < MOST_ASKERS or replica in self.askers
        if has_room:
            self.askers[replica] = now + _ASKED_FOR
        return has_room

    def askers_now(self, now: float) -> list[str]:
        """The replicas that wait for a proof."""
        return [name for name, until in self.askers.items() if now < until]

    def awaits_proof(self, replica: str, now: float) -> bool:
        """Whether a replica waits for one."""
        return now < self.askers.get(replica, -math.inf)

    def add_challenge(self, nonce: bytes) -> None:
        """A proof over this number counts from now on, in place of the oldest one."""
        self.nonces = (*self.nonces, nonce)[-_CHALLENGES:]
