"""The hosts that this peer follows, as it keeps or reads their records: whom it asks, whom it believes, what it lists.

`HostView` decides about one host; here its moves become messages and dials, and what comes is checked: words count of
keepers alone, a proof for a number that we drew. We subscribe at `SUBSCRIBED_AT` witnesses of each host, and at
`ALSO_AT` other keepers; when the link to one is lost, another takes its place, and the host counts as complained of,
since it may have gone with its witness. Pure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct, field

from overlay.presence.actions import Action, Changed, Dial, Learnt, Role, SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.host_hiding import HostView, Move
from overlay.presence.messages import AskAbout, SubscribeTo
from overlay.presence.statements import NONCE_BYTES, Presence, Proof, Word
from overlay.presence.timers import Timers
from overlay.presence.timings import (
    ALSO_AT,
    KEEPERS,
    LOOKED_AT,
    MOST_FOLLOWED,
    MOST_LINKED,
    MOST_TRIES,
    OWN_TRY,
    PROOF_PATIENCE,
    SUBSCRIBED_AGAIN,
    SUBSCRIBED_AT,
    SUBSCRIPTION,
    WITNESSES,
)
from overlay.presence.witnessing import Check

_FEW: Final = 2  # keepers that are asked where there is no hurry
_NONCES: Final = 3  # rounds of asking whose proofs count


class Followed(Struct):
    """One host."""

    view: HostView
    keepers: tuple[str, ...]
    """As far as known, nearest to the host first."""
    presence: Presence | None = None
    words: dict[str, Word] = field(default_factory=dict)
    """The last word of each keeper, for those who want to see for themselves."""
    look_at: float = math.inf
    """When to look for its presence at all keepers, where the witnesses have none, or say so."""
    looked_at: float = -math.inf
    """When somebody read of it last while we subscribed nowhere."""
    subscribed: dict[str, float] = field(default_factory=dict)
    """Until when at each witness."""
    nonces: tuple[bytes, ...] = ()
    proven: bytes = b""
    """The number of the last proof, which comes once from each keeper."""


class Following:
    """All of them."""

    def __init__(
        self,
        own_id: str,
        *,
        check: Check,
        judges: Callable[[float], bool],
        randomness: random.Random,
    ) -> None:
        """`judges`: whether this peer trusts its own links at that time."""
        self._own_id = own_id
        self._check = check
        self._judges = judges
        self._randomness = randomness
        self._hosts: dict[str, Followed] = {}
        self._by_witness: dict[str, dict[str, None]] = {}
        self._timers: Timers[str] = Timers()
        self._renewals: Timers[str] = Timers()
        self._trying: set[str] = set()
        self._waiting: dict[str, None] = {}

    @property
    def hosts(self) -> Iterable[str]:
        """Those that are followed."""
        return self._hosts.keys()

    @property
    def witnesses(self) -> Iterable[str]:
        """Those at which we subscribe."""
        return self._by_witness.keys()

    def view_of(self, host: str) -> HostView | None:
        """What is thought of a host; None where it isn't followed."""
        known = self._hosts.get(host)
        return known.view if known is not None else None

    def presence_of(self, host: str) -> Presence | None:
        """What a host said of itself last."""
        known = self._hosts.get(host)
        return known.presence if known is not None else None

    def words_of(self, host: str, now: float) -> tuple[Word, ...]:
        """The keepers' words by which a host counts as down now, as they signed them."""
        known = self._hosts.get(host)
        if known is None:
            return ()
        accusing = known.view.accusing(now)
        return tuple(word for witness, word in known.words.items() if witness in accusing)

    def subscribed_at(self, witness: str) -> Iterable[str]:
        """The hosts of which the witness is to tell us."""
        return self._by_witness.get(witness, {}).keys()

    def subscribes_at(self, witness: str) -> bool:
        """Whether a link to the peer is needed for what it tells."""
        return witness in self._by_witness

    def follow(self, host: str, keepers: Sequence[str], now: float, presence: Presence | None = None) -> list[Action]:
        """Follow a host from now on, or take note of its keepers of today; nothing where there are too many hosts.

        `presence`: what it said earlier, genuine, as this peer kept it; without any nothing hides the host.
        """
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= MOST_FOLLOWED:
                return []
            known = Followed(HostView(jitter=self._randomness.uniform(0.8, 1.2)), (), look_at=now + PROOF_PATIENCE)
            self._hosts[host] = known
        actions: list[Action] = []
        if presence is not None and presence.version > known.view.version:
            known.presence = presence
            moves = known.view.renewed(presence.version, now, is_leaving=presence.is_leaving)
            actions += self._do(host, known, moves, now)
        known.keepers = tuple(name for name in keepers if name != host)[:KEEPERS]
        known.view.keep_keepers([*known.keepers])
        known.words = {witness: word for witness, word in known.words.items() if witness in known.keepers}
        for witness in [name for name in known.subscribed if name not in known.keepers]:
            self._unsubscribe(host, known, witness)
        return actions + self._subscribe(host, known, now)

    def unfollow(self, host: str) -> None:
        """Follow a host no more."""
        known = self._hosts.pop(host, None)
        if known is not None:
            for witness in list(known.subscribed):
                self._unsubscribe(host, known, witness)
            self._timers.set(host, math.inf)
            self._renewals.set(host, math.inf)
            self._waiting.pop(host, None)

    # What comes.

    def hinted(self, sender: str, host: str, now: float) -> list[Action]:
        """A keeper warns of a host."""
        known = self._hosts.get(host)
        if known is None or sender not in known.keepers:
            return []
        return self._do(host, known, known.view.hinted(sender, now), now)

    def said(self, sender: str, word: Word, now: float) -> list[Action]:
        """A word came, from its witness or passed on."""
        known = self._hosts.get(word.accused)
        if known is None or word.witness not in known.keepers or word.version < known.view.version:
            return []
        if not known.view.is_newer(word) or not self._check(sender, word):
            return []
        known.words[word.witness] = word
        return self._do(word.accused, known, known.view.said(word, now, judges=self._judges(now)), now)

    def told(self, sender: str, presence: Presence, now: float) -> list[Action]:
        """A host's own statement came, from whomever."""
        known = self._hosts.get(presence.peer_id)
        if known is None or presence.version <= known.view.version or not self._check(sender, presence):
            return []
        before, known.presence = known.presence, presence
        moves = known.view.renewed(presence.version, now, is_leaving=presence.is_leaving)
        actions = self._do(presence.peer_id, known, moves, now)
        if before is None or before.exceptions != presence.exceptions:
            actions.append(Learnt(presence.peer_id))
        return actions

    def proven(self, sender: str, proof: Proof, now: float) -> list[Action]:
        """A proof came."""
        known = self._hosts.get(proof.peer_id)
        if known is None or proof.replica != self._own_id or proof.nonce not in known.nonces:
            return []
        if proof.nonce == known.proven or not self._check(sender, proof):
            return []
        known.proven = proof.nonce
        return self._do(proof.peer_id, known, known.view.proven(proof.version, now), now)

    def complained(self, host: str, now: float) -> list[Action]:
        """A caller couldn't reach a host."""
        known = self._hosts.get(host)
        return self._do(host, known, known.view.complained(now), now) if known is not None else []

    def looked_for(self, host: str, now: float) -> list[Action]:
        """Somebody reads of a host: where nobody would tell us that it died, see whether it is there."""
        known = self._hosts.get(host)
        if known is None or known.subscribed or now - known.looked_at < LOOKED_AT:
            return []
        known.looked_at = now
        return self._do(host, known, known.view.complained(now), now)

    def link_ended(self, witness: str, now: float) -> list[Action]:
        """A link broke: with it all subscriptions at that peer."""
        actions: list[Action] = []
        for host in list(self._by_witness.get(witness, ())):
            known = self._hosts[host]
            self._unsubscribe(host, known, witness)
            actions += self._subscribe(host, known, now, without=witness)
            actions += self._do(host, known, known.view.complained(now), now)
        return actions

    def link_closed(self, witness: str, now: float) -> list[Action]:
        """A link was closed on purpose, which says nothing of any host: subscribe anew."""
        actions: list[Action] = []
        for host in list(self._by_witness.get(witness, ())):
            known = self._hosts[host]
            self._unsubscribe(host, known, witness)
            actions += self._subscribe(host, known, now)
        return actions

    def unreached(self, witness: str, now: float) -> list[Action]:
        """What was to be said to a witness didn't get there, so it knows nothing of subscriptions: try others."""
        actions: list[Action] = []
        for host in list(self._by_witness.get(witness, ())):
            known = self._hosts[host]
            self._unsubscribe(host, known, witness)
            actions += self._subscribe(host, known, now, without=witness)
        return actions

    def links_returned(self, now: float) -> None:
        """Links came back after a cut."""
        for host, known in self._hosts.items():
            known.view.links_returned(now)
            self._timers.set(host, known.view.wake_at)

    def dialled(self, host: str, outcome: DialOutcome, began: float, now: float) -> list[Action]:
        """What became of an own try."""
        self._trying.discard(host)
        actions: list[Action] = []
        known = self._hosts.get(host)
        if known is not None:
            moves = known.view.tried(outcome, began, now, judges=self._judges(now))
            actions += self._do(host, known, moves, now)
        while self._waiting and len(self._trying) < MOST_TRIES:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            actions += self._try(waiting)
        return actions

    def stalled(self, now: float) -> None:
        """This peer itself stood still until now."""
        for host, known in self._hosts.items():
            known.view.stalled(now)
            self._timers.set(host, known.view.wake_at)

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        return min(self._timers.next_at, self._renewals.next_at)

    def wake(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for host in self._timers.due(now):
            known = self._hosts.get(host)
            if known is not None:
                actions += self._do(host, known, known.view.wake(now, judges=self._judges(now)), now)
        for host in self._renewals.due(now):
            known = self._hosts.get(host)
            if known is not None:
                actions += self._look(host, known, now)
                actions += self._subscribe(host, known, now)
        return actions

    def _look(self, host: str, known: Followed, now: float) -> list[Action]:
        if now < known.look_at:
            return []
        known.look_at = math.inf
        if known.presence is None:
            others = [name for name in known.keepers if name not in known.subscribed and name != self._own_id]
            return [SendTo(name, SubscribeTo((host,), 0)) for name in (*others, host)]
        # It may have died before we came: then nobody will tell of it.
        return self._do(host, known, known.view.complained(now), now)

    def _subscribe(self, host: str, known: Followed, now: float, *, without: str = "") -> list[Action]:
        """Have as many subscriptions as is wanted, those renewed that are half over; later, where there are too few."""
        soon, again = now + SUBSCRIPTION / 2, math.inf
        at = [witness for witness, until in known.subscribed.items() if until <= soon]
        for keepers, wanted in (known.keepers[:WITNESSES], SUBSCRIBED_AT), (known.keepers[WITNESSES:], ALSO_AT):
            others = [name for name in keepers if name not in known.subscribed and name != self._own_id]
            lacking = wanted - sum(name in known.subscribed for name in keepers)
            free = self._randomness.sample(others, len(others)) if lacking > 0 else []
            free = [name for name in free if name != without]
            free.sort(key=lambda name: name not in self._by_witness)  # a pair of peers costs less than two
            linked = len(self._by_witness) + sum(name not in self._by_witness for name in at)
            room = max(MOST_LINKED - linked, 0)
            near = [name for name in free if name in self._by_witness]
            at += [*near, *free[len(near) : len(near) + room]][: max(lacking, 0)]
            if len(free) < min(lacking, len(others)):
                again = now + SUBSCRIBED_AGAIN
        for witness in at:
            known.subscribed[witness] = now + SUBSCRIPTION
            self._by_witness.setdefault(witness, {})[host] = None
        renewal = min(known.subscribed.values(), default=math.inf) - SUBSCRIPTION / 2
        self._renewals.set(host, min(renewal, again, known.look_at))
        return [SendTo(witness, SubscribeTo((host,), int(SUBSCRIPTION))) for witness in at]

    def _unsubscribe(self, host: str, known: Followed, witness: str) -> None:
        known.subscribed.pop(witness, None)
        hosts = self._by_witness.get(witness, {})
        hosts.pop(host, None)
        if not hosts:
            self._by_witness.pop(witness, None)

    def _try(self, host: str) -> list[Action]:
        if len(self._trying) >= MOST_TRIES:
            self._waiting[host] = None
            return []
        self._trying.add(host)
        return [Dial(host, OWN_TRY, Role.REPLICA)]

    def _worth_asking(self, known: Followed, now: float) -> Sequence[str]:
        """The witnesses to ask about a hidden host: a thousand may have died together.

        Not those that just said it is down. Where its machine refuses our dials these tell as soon as witnesses would
        that it is back, and two are enough, rather such as aren't hidden themselves.
        """
        spoken = known.view.spoken_lately(now)
        silent = [name for name in known.keepers[:WITNESSES] if name not in spoken]
        if not known.view.is_refused:
            return silent
        listed = [name for name in silent if (view := self.view_of(name)) is None or view.is_listed] or silent
        return self._randomness.sample(listed, min(_FEW, len(listed)))

    def _ask(self, host: str, known: Followed, names: Sequence[str], *, is_new: bool = True) -> list[Action]:
        if is_new or not known.nonces:
            nonce = self._randomness.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
            known.nonces = (*known.nonces, nonce)[-_NONCES:]
        ask = AskAbout(host, known.nonces[-1], known.view.version)
        return [SendTo(name, ask) for name in names if name != self._own_id]

    def _do(self, host: str, known: Followed, moves: list[Move], now: float) -> list[Action]:
        actions: list[Action] = []
        for move in moves:
            match move:
                case Move.ASK_FEW:
                    near = known.keepers[:WITNESSES]
                    others = [name for name in near if name not in known.subscribed] or near
                    few = self._randomness.sample(others, min(_FEW, len(others)))
                    actions += self._ask(host, known, few)
                case Move.ASK:
                    asked = known.keepers[:WITNESSES] if known.view.is_listed else self._worth_asking(known, now)
                    actions += self._ask(host, known, asked)
                case Move.ASK_MORE:
                    actions += self._ask(host, known, known.keepers[WITNESSES:], is_new=False)
                case Move.TRY:
                    actions += self._try(host)
                case Move.HIDE | Move.SHOW:
                    actions.append(Changed(host, move is Move.SHOW, known.view.version))
        self._timers.set(host, known.view.wake_at)
        return actions
