"""Whose presence a keeper keeps at all: who is believed that a host is there, who gives way, and who is forgotten.

1. A host that isn't known yet is taken from itself, from a node that it names, from another keeper of it, and by its
   name alone from a replica that asks about it. The last two only if we are one of its keepers, and so many a second
   of each peer: ids can be made up.
2. There are `MOST_WITNESSED` places, and `MOST_UNTOLD` among them for those known by name alone. Whom others tell of by
   better right gets the place of another one (`KeptPlaces` says whose).
3. One that others keep now is forgotten, unless it is down: we may be the only one who knows that. One that is down is,
   once its records have expired, or much sooner if neither it nor a node of it was ever heard.
4. For light clients we link to nodes of theirs that weren't reached yet: for each peer that told of clients so many a
   second.

Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, ItemsView, Sequence

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.client_witness import ClientWitness
from overlay.presence.places import KeptPlaces, KnownBy
from overlay.presence.statements import Presence
from overlay.presence.timings import (
    FORGOTTEN,
    HEARSAY_FORGOTTEN,
    KEEPERS,
    LINKED_BURST,
    LINKED_RATE,
    MOST_UNTOLD,
    MOST_WITNESSED,
    UNKNOWN_BURST,
    UNKNOWN_RATE,
    WITNESSES,
)
from overlay.presence.witness import Witness, WitnessState
from overlay.presence.witnessed_host import WitnessedHost

Near = Callable[[str], Sequence[str]]
"""The keepers of a peer's presence as far as known, nearest to it first, ourselves among them; empty if unknown."""


class WitnessedHosts:
    """The hosts that have a place at one keeper."""

    def __init__(
        self, own_id: str, *, near: Near, on_forgotten: Callable[[str], None], randomness: random.Random
    ) -> None:
        """`on_forgotten`: is told each host that has its place no more."""
        self._own_id = own_id
        self._near = near
        self._on_forgotten = on_forgotten
        self._randomness = randomness
        self._hosts: dict[str, WitnessedHost] = {}
        self._places = KeptPlaces()
        self._unknown = TokenBuckets(UNKNOWN_RATE, UNKNOWN_BURST)
        self._hearsay = TokenBuckets(UNKNOWN_RATE, UNKNOWN_BURST)
        self._links = TokenBuckets(LINKED_RATE, LINKED_BURST)
        self._clients: dict[str, dict[str, None]] = {}  # the light clients that are reached through each node

    def get(self, host: str) -> WitnessedHost | None:
        """What is known of a host; None for one that isn't kept."""
        return self._hosts.get(host)

    @property
    def names(self) -> Collection[str]:
        """The ids of all of them."""
        return self._hosts.keys()

    def items(self) -> ItemsView[str, WitnessedHost]:
        """All of them, each with what is known of it."""
        return self._hosts.items()

    def clients_of(self, node: str) -> list[str]:
        """The light clients that name this node."""
        return list(self._clients.get(node, ()))

    # Who is taken (rules 1 and 2).

    def add_named(self, replica: str, host: str, now: float) -> WitnessedHost | None:
        """A host that isn't known, and a replica names; None if it isn't for us to keep, or has no place."""
        if not self._unknown.take(replica, now) or self._own_id not in self._near(host):
            return None
        return self._add(host, KnownBy.NAME, replica, now)

    def may_tell(self, sender: str, presence: Presence, now: float) -> bool:
        """Whether a peer may tell of a host that isn't known: the host, a node that it names, or another keeper."""
        if sender == presence.peer_id or sender in presence.via:
            return True
        if not self._hearsay.take(sender, now):
            return False
        near = self._near(presence.peer_id)[:KEEPERS]
        return sender in near and self._own_id in near

    def add_told(self, sender: str, presence: Presence, now: float) -> WitnessedHost | None:
        """A host that isn't known, and this peer told of, which may; None if it has no place. Its presence is then
        told by `note_presence`."""
        return self._add(presence.peer_id, *_source(sender, presence), now)

    def _add(self, host: str, known_by: KnownBy, teller: str, now: float) -> WitnessedHost | None:
        first = self._places.first_named() if self._places.named >= MOST_UNTOLD else None
        if first is not None:
            self._forget(first)
        if len(self._hosts) >= MOST_WITNESSED:
            first = self._places.giving_way(known_by, teller, self._is_there)
            if first is None:
                return None
            self._forget(first)
        is_witness = self._own_id in self._near(host)[:WITNESSES]
        witness = Witness(now, is_witness=is_witness, is_known=False, jitter=self._randomness.uniform(0.8, 1.2))
        known = self._hosts[host] = WitnessedHost(witness)
        self._places.put(host, known_by, teller)
        return known

    def _is_there(self, host: str) -> bool:
        return self._hosts[host].witness.state is WitnessState.OK

    # How those that were taken are known.

    def note_presence(self, sender: str, known: WitnessedHost, presence: Presence, now: float) -> None:
        """This peer told a newer presence of a host than was known. From then on the host is looked at as a light
        client, or not any more, if that is what it says."""
        host = presence.peer_id
        self._note_via(host, known.presence, presence)
        known.presence = presence
        known.reached &= {*presence.via}
        self.note_source(sender, known, presence)
        if isinstance(known.witness, ClientWitness) != bool(presence.via):
            is_witness = self._own_id in self._near(host)[:WITNESSES]
            drawn = self._randomness.uniform(0.8, 1.2)
            known.witness = (
                ClientWitness(now, presence.via, is_witness=is_witness, phase=self._phase(host), jitter=drawn)
                if presence.via
                else Witness(now, is_witness=is_witness, is_known=False, jitter=drawn)
            )
        known.drop_words_before(presence.version)

    def note_source(self, sender: str, known: WitnessedHost, presence: Presence) -> None:
        """This peer told the presence of a host that is known, or proved it through itself."""
        host = presence.peer_id
        source = known_by, _ = _source(sender, presence)
        if known_by is KnownBy.NODE:
            known.reached |= {sender}
        before, teller = self._places.known_by(host), self._places.teller(host)
        is_other = (before is KnownBy.ITSELF and bool(presence.via)) or (
            before is KnownBy.NODE and teller not in presence.via
        )
        if known_by > before or is_other:
            self._places.put(host, *source)

    def note_heard(self, host: str, known: WitnessedHost) -> None:
        """A host was heard that told its presence; not a light client, which is known by its nodes."""
        if known.presence is not None and not known.presence.via and self._places.known_by(host) < KnownBy.ITSELF:
            self._places.put(host, KnownBy.ITSELF, host)

    def may_link(self, host: str, now: float) -> bool:
        """Whether a link may be made for a light client to a node of it that wasn't reached; it counts as made (rule
        4)."""
        teller = self._places.teller(host)
        return self._links.has(teller, now) and self._links.take(teller, now)  # refused ones would keep it empty

    def _phase(self, host: str) -> float:
        """When we challenge a light client, so that its witnesses take turns; the first of them comes first."""
        near = [*self._near(host)[:WITNESSES]]
        return (near.index(self._own_id) + 1) / WITNESSES if self._own_id in near else 1.0

    # Who is forgotten (rule 3).

    def forget_if_others(self, host: str, known: WitnessedHost, near: Sequence[str]) -> bool:
        """Forgets a host whose keepers are these, if we aren't one of them; whether it did."""
        is_others = bool(near) and self._own_id not in near and known.witness.state is not WitnessState.DOWN
        if is_others:
            self._forget(host)
        return is_others

    def forget_if_long_down(self, host: str, known: WitnessedHost, now: float) -> bool:
        """Forgets a host that has been down for long; whether it did."""
        is_hearsay = self._places.known_by(host) is KnownBy.HEARSAY
        is_long = now - known.witness.down_since > (HEARSAY_FORGOTTEN if is_hearsay else FORGOTTEN)
        if is_long:
            self._forget(host)
        return is_long

    def _forget(self, host: str) -> None:
        self._note_via(host, self._hosts[host].presence, None)
        del self._hosts[host]
        self._places.drop(host)
        self._on_forgotten(host)

    def _note_via(self, host: str, before: Presence | None, after: Presence | None) -> None:
        """Through whom a light client is reached, so that it is looked for when one of them is lost."""
        for node in before.via if before is not None else ():
            clients = self._clients.get(node, {})
            clients.pop(host, None)
            if not clients:
                self._clients.pop(node, None)
        for node in after.via if after is not None else ():
            self._clients.setdefault(node, {})[host] = None


def _source(sender: str, presence: Presence) -> tuple[KnownBy, str]:
    """How a host is known that this peer told of, and to whom it counts."""
    if sender in presence.via:
        return KnownBy.NODE, sender
    if sender != presence.peer_id:
        return KnownBy.HEARSAY, sender
    # A light client tells its nodes; all that tell others by themselves count together.
    return (KnownBy.HEARSAY, "") if presence.via else (KnownBy.ITSELF, sender)
