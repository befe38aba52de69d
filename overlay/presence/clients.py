"""What a node does for the light clients whose presence names it: nobody else can reach them.

1. It tells a client's presence to the client's keepers, until each of them took it, and anew when they change.
2. When the link to a client is lost, or its kernel is silent for `KERNEL_DOWN`, it tells the keepers that it is gone.
3. It passes on what keepers want of a client, and the client's proofs to those who wanted them.

It can withhold, but it signs nothing for a client. Bounded by `MOST_CLIENTS`, and for each client by `_MOST_PROOFS`.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct, field

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, FindKeepers, SendTo
from overlay.presence.messages import Accused, ClientGone, KnownVersion, ProofWanted, Proven, Told
from overlay.presence.statements import NEVER, Presence, Proof, Version, Word
from overlay.presence.timers import Timers
from overlay.presence.timings import (
    CLIENT_NEWS_BURST,
    CLIENT_NEWS_RATE,
    JOIN_FAST,
    JOIN_PAUSE,
    JOIN_SLOW,
    KERNEL_DOWN,
    MOST_CLIENTS,
)

_MOST_PROOFS: Final = 64  # that are under way to one client
_LOOK_UP_AGAIN: Final = 300.0  # seconds after which a client's keepers are looked up, and told, anew
_LOOKED_AT: Final = 64  # clients whose kernels are looked at each time
_FORGOTTEN: Final = 60.0  # seconds after a client is gone


class _Client(Struct):
    presence: Presence
    is_here: bool = True
    keepers: tuple[str, ...] = ()
    taken: dict[str, Version] = field(default_factory=dict)
    """Which version each keeper took."""
    tries: int = 0
    tell_at: float = math.inf
    look_up_at: float = math.inf
    forget_at: float = math.inf
    wanted: dict[tuple[bytes, str], dict[str, None]] = field(default_factory=dict)
    """Who wants a proof, by its number and for whom it is; the latest."""


class Clients:
    """All light clients of a node."""

    def __init__(self, own_id: str, *, check: Callable[[str, Presence | Word | Proof], bool]) -> None:
        self._own_id = own_id
        self._check = check
        self._clients: dict[str, _Client] = {}
        self._timers: Timers[str] = Timers()
        self._news = TokenBuckets(CLIENT_NEWS_RATE, CLIENT_NEWS_BURST)
        self._looked_at = 0

    def __contains__(self, client: str) -> bool:
        """Whether a client acts through us, or did just now."""
        return client in self._clients

    def to_look_at(self) -> list[str]:
        """Some of the clients, others each time, whose kernels are to be looked at."""
        here = [name for name, client in self._clients.items() if client.is_here]
        first = self._looked_at if self._looked_at < len(here) else 0
        self._looked_at = first + _LOOKED_AT
        return here[first : self._looked_at]

    # What clients tell, and their links.

    def told(self, name: str, presence: Presence, now: float) -> list[Action]:
        """A client told its presence, over its own link."""
        known = self._clients.get(name)
        if known is None or presence.version > known.presence.version:
            is_full = known is None and len(self._clients) >= MOST_CLIENTS
            if is_full or not self._news.take(name, now) or not self._check(name, presence):
                return []
            if known is None:
                known = self._clients[name] = _Client(presence)
            known.presence = presence
        elif presence.version < known.presence.version:
            return [SendTo(name, Told(known.presence)), SendTo(name, KnownVersion(known.presence.version))]
        elif known.is_here:
            return [SendTo(name, KnownVersion(presence.version))]
        known.is_here, known.forget_at = True, math.inf
        known.taken, known.tries = {}, 0
        actions: list[Action] = [SendTo(name, KnownVersion(presence.version))]
        if known.look_up_at == math.inf:
            known.look_up_at = now + _LOOK_UP_AGAIN
            actions.append(FindKeepers(name))
        if presence.is_leaving:
            known.forget_at = now + _FORGOTTEN
        return actions + self._tell(name, known, now)

    def lost(self, name: str, now: float) -> list[Action]:
        """The link to a client ended."""
        known = self._clients.get(name)
        if known is None or not known.is_here:
            return []
        known.is_here = False
        known.forget_at = now + _FORGOTTEN
        if known.presence.is_leaving:
            self._set_timer(name, known)
            return []
        known.tell_at = math.inf
        self._set_timer(name, known)
        return [SendTo(keeper, ClientGone(name), needs_link=True) for keeper in known.keepers]

    def silent(self, name: str, since: float, now: float) -> list[Action]:
        """A client's kernel has acknowledged nothing since then."""
        return self.lost(name, now) if now - since >= KERNEL_DOWN else []

    def acknowledged(self, name: str, now: float) -> list[Action]:
        """The kernel of a client that was silent has acknowledged something."""
        known = self._clients.get(name)
        return [] if known is None or known.is_here else self.told(name, known.presence, now)

    def proven(self, name: str, proof: Proof) -> list[Action]:
        """A client's proof, on its way to those who wanted it."""
        known = self._clients.get(name)
        if known is None or proof.peer_id != name:
            return []
        askers = known.wanted.pop((proof.nonce, proof.replica), {})
        return [SendTo(asker, Proven(proof), needs_link=True) for asker in askers]

    # What keepers tell.

    def found(self, name: str, keepers: Sequence[str], now: float) -> list[Action]:
        """Who keeps a client's presence."""
        known = self._clients.get(name)
        if known is None:
            return []
        known.keepers = tuple(keepers)
        known.tries = 0
        return self._tell(name, known, now) if known.is_here or known.presence.is_leaving else []

    def taken(self, keeper: str, name: str, version: Version) -> list[Action]:
        """A keeper says which version of a client's presence it has."""
        known = self._clients.get(name)
        if known is not None and keeper in known.keepers:
            known.taken[keeper] = version
            if not self._lacking(known):
                known.tell_at = math.inf
                self._set_timer(name, known)
        return []

    def exceeded(self, presence: Presence) -> list[Action]:
        """Somebody has a presence of a client of another run of it."""
        known = self._clients.get(presence.peer_id)
        is_newer = known is not None and known.is_here and presence.version > known.presence.version
        return [SendTo(presence.peer_id, Told(presence))] if is_newer else []

    def accused(self, name: str, version: Version) -> list[Action]:
        """A witness holds a client to be down."""
        known = self._clients.get(name)
        return [SendTo(name, Accused(version))] if known is not None and known.is_here else []

    def proof_wanted(self, asker: str, wanted: ProofWanted) -> list[Action]:
        """A keeper wants a proof of a client."""
        known = self._clients.get(wanted.host)
        if known is None or not known.is_here:
            return [SendTo(asker, ClientGone(wanted.host), needs_link=True)]
        key = wanted.nonce, wanted.replica
        known.wanted.setdefault(key, {})[asker] = None
        if len(known.wanted) > _MOST_PROOFS:
            del known.wanted[next(iter(known.wanted))]
        return [SendTo(wanted.host, wanted)]

    def link_up(self, peer_id: str, now: float) -> list[Action]:
        """A link came up; it may be to another run of a keeper's process, which knows nothing of our clients."""
        actions: list[Action] = []
        for name, known in self._clients.items():
            if peer_id in known.keepers and known.is_here:
                known.taken.pop(peer_id, None)
                known.tries = 0
                actions += self._tell(name, known, now)
        return actions

    # Time.

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        return self._timers.next_at

    def wake(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for name in self._timers.due(now):
            known = self._clients.get(name)
            if known is None:
                continue
            if now >= known.forget_at:
                del self._clients[name]
                continue
            if now >= known.look_up_at:
                known.look_up_at = now + _LOOK_UP_AGAIN
                known.taken = {}
                actions.append(FindKeepers(name))
            if now >= known.tell_at:
                known.tries += 1
                actions += self._tell(name, known, now)
            self._set_timer(name, known)
        return actions

    def _lacking(self, known: _Client) -> list[str]:
        return [keeper for keeper in known.keepers if known.taken.get(keeper, NEVER) < known.presence.version]

    def _tell(self, name: str, known: _Client, now: float) -> list[Action]:
        lacking = self._lacking(known)
        known.tell_at = now + (JOIN_PAUSE if known.tries < JOIN_FAST else JOIN_SLOW) if lacking else math.inf
        self._set_timer(name, known)
        return [SendTo(keeper, Told(known.presence), needs_link=True) for keeper in lacking]

    def _set_timer(self, name: str, known: _Client) -> None:
        self._timers.set(name, min(known.tell_at, known.look_up_at, known.forget_at))
