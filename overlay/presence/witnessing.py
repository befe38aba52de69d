"""The hosts whose presence this peer keeps: what each said of itself, what is said of it, and who wants to be told.

`Witness` decides about one host; here its duties become messages, and what comes is checked: a presence and a word
count when they are genuine, and newer than what is known. A host that isn't known yet is taken from itself, from a node
that it names, or from another keeper of it. Bounded: hosts by `MOST_WITNESSED` (`KeptPlaces` says who gives way), of
each as many words as it has keepers and `MOST_SUBSCRIBERS`. Pure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

from msgspec import Struct, field

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, Dial, Role, SendTo
from overlay.presence.client_witness import ClientWitness
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.messages import (
    Accused,
    AskAbout,
    Hint,
    KnownVersion,
    Message,
    ProofWanted,
    Proven,
    Said,
    Told,
)
from overlay.presence.places import KeptPlaces, KnownBy
from overlay.presence.statements import NEVER, NONCE_BYTES, Presence, Proof, Version, Word
from overlay.presence.timers import Timers
from overlay.presence.timings import (
    ASKED_BURST,
    ASKED_RATE,
    ENOUGH_WORDS,
    FORGOTTEN,
    HEARSAY_FORGOTTEN,
    KEEPERS,
    LINKED_BURST,
    LINKED_RATE,
    MOST_ASKERS,
    MOST_SUBSCRIBERS,
    MOST_SUBSCRIPTIONS,
    MOST_UNTOLD,
    MOST_WITNESSED,
    NAMED_BURST,
    NAMED_RATE,
    SUBSCRIPTION,
    SUBSCRIPTIONS_LOOKED_AT,
    UNKNOWN_BURST,
    UNKNOWN_RATE,
    WITNESSES,
    WORD_RENEWED,
    WORD_TTL,
)
from overlay.presence.witness import Duty, Witness, WitnessState

_PASSING_ON: Final = 2  # witnesses that tell the others what a host said
_CHALLENGES: Final = 4  # of one light client, whose proofs count
_ASKED_FOR: Final = 10.0  # seconds in which a proof that a replica asked for is passed on to it

Near = Callable[[str], Sequence[str]]
"""The keepers of a peer's presence as far as known, nearest to it first, ourselves among them; empty if unknown."""
Check = Callable[[str, Presence | Word | Proof], bool]
"""Whether a statement that a peer told is genuine; also false where it told too many."""


class Witnessed(Struct):
    """One host."""

    witness: Witness | ClientWitness
    presence: Presence | None = None
    told: Version = NEVER
    """The latest version that a replica told, where we have none that is signed."""
    word: Word | None = None
    """Our own last one."""
    said_at: float = -math.inf
    words: dict[str, tuple[Word, float]] = field(default_factory=dict)
    """Those of other keepers, with when they end."""
    subscribers: dict[str, float] = field(default_factory=dict)
    """Until when each is told."""
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


class Witnessing:
    """All of them."""

    def __init__(
        self,
        own_id: str,
        *,
        near: Near,
        check: Check,
        sign: Callable[[Word], Word],
        judges: Callable[[float], bool],
        randomness: random.Random,
        number: int,
    ) -> None:
        """`judges`: whether this peer trusts its own links at that time. `number`: above those of all words before."""
        self._own_id = own_id
        self._near = near
        self._check = check
        self._sign = sign
        self._judges = judges
        self._randomness = randomness
        self._number = number
        self._hosts: dict[str, Witnessed] = {}
        self._places = KeptPlaces()
        self._asks = TokenBuckets(NAMED_RATE, NAMED_BURST)
        self._passed_on = TokenBuckets(ASKED_RATE, ASKED_BURST)
        self._subscribes = TokenBuckets(NAMED_RATE, NAMED_BURST)
        self._unknown = TokenBuckets(UNKNOWN_RATE, UNKNOWN_BURST)
        self._hearsay = TokenBuckets(UNKNOWN_RATE, UNKNOWN_BURST)
        self._links = TokenBuckets(LINKED_RATE, LINKED_BURST)
        self._clients: dict[str, dict[str, None]] = {}  # the light clients that are reached through each node
        self._timers: Timers[str] = Timers()
        self._subscriptions = 0  # of all hosts
        self._all_looked_at = -math.inf

    @property
    def hosts(self) -> Collection[str]:
        """Those that are kept."""
        return self._hosts.keys()

    @property
    def linked_hosts(self) -> list[str]:
        """Those of them whose links tell something: all but light clients."""
        return [name for name, known in self._hosts.items() if not isinstance(known.witness, ClientWitness)]

    def state_of(self, host: str) -> WitnessState | None:
        """What this peer as a witness thinks of a host; None for one that it doesn't keep."""
        known = self._hosts.get(host)
        return known.witness.state if known is not None else None

    def presence_of(self, host: str) -> Presence | None:
        """What a host said of itself last."""
        known = self._hosts.get(host)
        return known.presence if known is not None else None

    # What comes from the host itself.

    def beat(self, host: str, version: Version, now: float) -> list[Action]:
        """A beat came over the host's own link."""
        known = self._hosts.get(host)
        if known is None or known.presence is None:
            return [SendTo(host, KnownVersion(NEVER))]  # then it tells its presence
        if isinstance(known.witness, ClientWitness):
            return []  # they don't beat
        known.quiet_dials = 0
        self._note_heard(host, known)
        known.witness.set_role(now, is_witness=True)
        actions: list[Action] = [] if version == known.version else [SendTo(host, KnownVersion(known.version))]
        return actions + self._do(host, known, known.witness.heard(now), now)

    def told(self, sender: str, presence: Presence, now: float) -> list[Action]:
        """A presence came, from its host or from another keeper."""
        host, is_own = presence.peer_id, sender == presence.peer_id
        known = self._hosts.get(host)
        if known is not None and presence.version <= known.version and known.presence is not None:
            is_own = is_own or sender in known.presence.via or sender in presence.via
            actions = self._known_version(sender, host, known) if is_own else []
            if is_own and presence.version < known.version:
                actions.append(SendTo(sender, Told(known.presence)))
            if is_own and presence.version == known.version:
                self._note_source(sender, host, known, known.presence)
            if not is_own or presence.version < known.version or known.presence.is_leaving:
                return actions
            if isinstance(known.witness, ClientWitness):
                known.witness.there(sender, now)
                self._timers.set(host, known.witness.wake_at)
                return actions
            return actions + self._do(host, known, known.witness.heard(now), now)
        is_new = known is None or known.presence is None
        if (is_new and not self._may_tell(sender, presence, now)) or not self._check(sender, presence):
            return []
        known = known or self._add(host, *self._source(sender, presence), now)
        if known is None:
            return []
        return self._renew(host, known, presence, now, sender=sender)

    def client_gone(self, node: str, client: str, now: float) -> list[Action]:
        """A light client's node says that the client isn't linked to it."""
        known = self._hosts.get(client)
        if known is None or not isinstance(known.witness, ClientWitness):
            return []
        return self._do(client, known, known.witness.gone(node, now), now)

    def node_lost(self, node: str, now: float) -> list[Action]:
        """The link to a peer broke: clients may have lost their node."""
        actions: list[Action] = []
        for client in list(self._clients.get(node, ())):
            actions += self.client_gone(node, client, now)
        return actions

    def unreached(self, node: str) -> None:
        """No link could be made to a peer: for light clients it is tried less often, until it is heard."""
        for client in self._clients.get(node, ()):
            known = self._hosts[client]
            if node in known.reached:
                known.reached -= {node}

    # What links and the kernel tell.

    def link_ended(self, host: str, now: float) -> list[Action]:
        """The link to a host broke."""
        known = self._hosts.get(host)
        return self._do(host, known, known.witness.link_ended(now), now) if known is not None else []

    def silent(self, host: str, since: float, now: float) -> list[Action]:
        """Its kernel has acknowledged nothing since then."""
        known = self._hosts.get(host)
        if known is None:
            return []
        return self._do(host, known, known.witness.silent(since, now, judges=self._judges(now)), now)

    def acknowledged(self, host: str, now: float) -> None:
        """Its kernel acknowledged something, after it was silent."""
        known = self._hosts.get(host)
        if known is not None:
            known.witness.acknowledged(now)
            self._timers.set(host, known.witness.wake_at)

    def dialled(self, host: str, outcome: DialOutcome, began: float, now: float) -> list[Action]:
        """What became of a dial."""
        known = self._hosts.get(host)
        if known is None:
            return []
        if outcome is DialOutcome.ALIVE:
            known.quiet_dials += 1
            self._note_heard(host, known)
            if known.quiet_dials > 1:  # it beats to others by now
                known.witness.set_role(now, is_witness=False)
        return self._do(host, known, known.witness.dialled(outcome, began, now, judges=self._judges(now)), now)

    # What replicas and other keepers say.

    def asked(self, replica: str, ask: AskAbout, now: float) -> list[Action]:
        """A replica wants to know of a host, and a proof that it is there."""
        if not self._asks.take(replica, now):
            return []
        known = self._hosts.get(ask.host) or self._add_unknown(replica, ask.host, now)
        if known is None:
            return []
        if known.presence is None:
            known.told = max(known.told, ask.version)
        actions = self._news(replica, ask.host, known, ask.version, now)
        if known.witness.state is WitnessState.DOWN or known.witness.state is WitnessState.LEFT:
            return actions
        known.askers = {name: until for name, until in known.askers.items() if now < until}
        if not self._passed_on.take((replica, ask.host), now):
            return actions
        if len(known.askers) < MOST_ASKERS or replica in known.askers:
            known.askers[replica] = now + _ASKED_FOR
            actions += self._to_host(ask.host, known, ProofWanted(ask.host, ask.nonce, replica), now)
        return actions + self._do(ask.host, known, known.witness.asked(now), now)

    def proven(self, sender: str, proof: Proof, now: float) -> list[Action]:
        """A proof on its way to a replica that asked for it."""
        known = self._hosts.get(proof.peer_id)
        if known is None:
            return []
        witness = known.witness
        if isinstance(witness, ClientWitness):
            return self._client_proven(sender, known, witness, proof, now)
        if sender != proof.peer_id:
            return []
        actions: list[Action] = []
        self._note_heard(sender, known)
        if now < known.askers.get(proof.replica, -math.inf):
            actions.append(SendTo(proof.replica, Proven(proof)))
        return actions + self._do(sender, known, witness.heard(now), now)

    def subscribed(self, replica: str, host: str, seconds: float, now: float) -> list[Action]:
        """A replica wants to be told of a host from now on, and what is known of it."""
        if not self._subscribes.take(replica, now):
            return []
        known = self._hosts.get(host)
        if known is None and seconds > 0:
            known = self._add_unknown(replica, host, now)  # it may come later
        if known is None:
            return []
        if seconds > 0:
            if replica not in known.subscribers:
                self._forget_ended(known, now)
                if self._subscriptions >= MOST_SUBSCRIPTIONS and now - self._all_looked_at >= SUBSCRIPTIONS_LOOKED_AT:
                    self._all_looked_at = now  # it takes tens of milliseconds, and peers have it done
                    for each in self._hosts.values():
                        self._forget_ended(each, now)
            has_room = len(known.subscribers) < MOST_SUBSCRIBERS and self._subscriptions < MOST_SUBSCRIPTIONS
            if has_room or replica in known.subscribers:
                self._subscriptions += replica not in known.subscribers
                known.subscribers[replica] = now + min(seconds, SUBSCRIPTION)
        others = [SendTo(replica, Said(word)) for word, until in known.words.values() if now < until]
        return [*self._news(replica, host, known, NEVER, now), *others]

    def said(self, sender: str, word: Word, now: float) -> list[Action]:
        """Another keeper's word: kept, and passed on to subscribers."""
        known = self._hosts.get(word.accused)
        if known is None or word.witness == self._own_id or word.version < known.version:
            return []
        last = known.words.get(word.witness)
        if (last is not None and word.number <= last[0].number) or sender != word.witness:
            return []
        if word.witness not in self._near(word.accused)[:KEEPERS] or not self._check(sender, word):
            return []
        known.words = {name: kept for name, kept in known.words.items() if now < kept[1]}
        before = known.words.get(word.witness)
        if before is not None and before[0].version == word.version and before[1] - now > WORD_TTL / 2:
            return []  # told lately
        if len(known.words) < KEEPERS or word.witness in known.words:
            known.words[word.witness] = word, now + min(word.ttl, WORD_TTL)
        told = self._told(known, now) if self._words_told(known, now) <= ENOUGH_WORDS else []
        actions: list[Action] = [SendTo(name, Said(word)) for name in told]
        if isinstance(known.witness, ClientWitness) and word.is_down:
            actions += self._do(word.accused, known, known.witness.warned(now), now)
        return actions

    # Time, and what changes around us.

    def stalled(self, now: float) -> None:
        """This peer itself stood still until now."""
        for host, known in self._hosts.items():
            known.witness.stalled(now)
            self._timers.set(host, known.witness.wake_at)

    def note_home(self, now: float) -> None:
        """Who lies near to whom may have changed: hosts that others keep now are forgotten."""
        for host, known in list(self._hosts.items()):
            near = self._near(host)
            if near and self._own_id not in near and known.witness.state is not WitnessState.DOWN:
                self._forget(host)
            elif near:
                known.witness.set_role(now, is_witness=self._own_id in near[:WITNESSES])
                self._timers.set(host, known.witness.wake_at)

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        return self._timers.next_at

    def wake(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for host in self._timers.due(now):
            known = self._hosts.get(host)
            if known is None:
                continue
            is_hearsay = self._places.known_by(host) is KnownBy.HEARSAY
            if now - known.witness.down_since > (HEARSAY_FORGOTTEN if is_hearsay else FORGOTTEN):
                self._forget(host)
                continue
            actions += self._do(host, known, known.witness.wake(now, judges=self._judges(now)), now)
        return actions

    def _add_unknown(self, replica: str, host: str, now: float) -> Witnessed | None:
        """A host that a replica names, if it is for us to keep."""
        if not self._unknown.take(replica, now) or self._own_id not in self._near(host):
            return None
        return self._add(host, KnownBy.NAME, replica, now)

    def _may_tell(self, sender: str, presence: Presence, now: float) -> bool:
        """Whether a peer may tell of a host that isn't known: the host, a node that it names, or another keeper."""
        if sender == presence.peer_id or sender in presence.via:
            return True
        if not self._hearsay.take(sender, now):
            return False
        near = self._near(presence.peer_id)[:KEEPERS]
        return sender in near and self._own_id in near

    def _source(self, sender: str, presence: Presence) -> tuple[KnownBy, str]:
        """How a host is known that this peer told of, and to whom it counts."""
        if sender in presence.via:
            return KnownBy.NODE, sender
        if sender != presence.peer_id:
            return KnownBy.HEARSAY, sender
        # A light client tells its nodes; all that tell others by themselves count together.
        return (KnownBy.HEARSAY, "") if presence.via else (KnownBy.ITSELF, sender)

    def _note_source(self, sender: str, host: str, known: Witnessed, presence: Presence) -> None:
        """This peer told this presence of a known host."""
        source = known_by, _ = self._source(sender, presence)
        if known_by is KnownBy.NODE:
            known.reached |= {sender}
        before, teller = self._places.known_by(host), self._places.teller(host)
        is_other = (before is KnownBy.ITSELF and bool(presence.via)) or (
            before is KnownBy.NODE and teller not in presence.via
        )
        if known_by > before or is_other:
            self._places.put(host, *source)

    def _note_heard(self, host: str, known: Witnessed) -> None:
        """A host was heard that told its presence; not a light client, which is known by its nodes."""
        if known.presence is not None and not known.presence.via and self._places.known_by(host) < KnownBy.ITSELF:
            self._places.put(host, KnownBy.ITSELF, host)

    def _add(self, host: str, known_by: KnownBy, teller: str, now: float) -> Witnessed | None:
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
        known = self._hosts[host] = Witnessed(witness)
        self._places.put(host, known_by, teller)
        return known

    def _is_there(self, host: str) -> bool:
        return self._hosts[host].witness.state is WitnessState.OK

    def _words_told(self, known: Witnessed, now: float) -> int:
        """How many words against the version of now subscribers have of us."""
        others = sum(word.version >= known.version and word.is_down and now < end for word, end in known.words.values())
        return others + (known.witness.state is WitnessState.DOWN)

    def _forget_ended(self, known: Witnessed, now: float) -> None:
        before = len(known.subscribers)
        known.subscribers = {name: until for name, until in known.subscribers.items() if now < until}
        self._subscriptions -= before - len(known.subscribers)

    def _forget(self, host: str) -> None:
        self._subscriptions -= len(self._hosts[host].subscribers)
        self._note_via(host, self._hosts[host].presence, None)
        del self._hosts[host]
        self._places.drop(host)
        self._timers.set(host, math.inf)

    def _note_via(self, host: str, before: Presence | None, after: Presence | None) -> None:
        """Through whom a light client is reached, so that it is looked for when one of them is lost."""
        for node in before.via if before is not None else ():
            clients = self._clients.get(node, {})
            clients.pop(host, None)
            if not clients:
                self._clients.pop(node, None)
        for node in after.via if after is not None else ():
            self._clients.setdefault(node, {})[host] = None

    def _to_host(self, host: str, known: Witnessed, message: Message, now: float) -> list[Action]:
        """Say something to a host, or to each node of a light client; a link is made to those that are known to be."""
        via = known.presence.via if known.presence is not None else ()
        if not via:
            return [SendTo(host, message)]
        return [SendTo(node, message, needs_link=node in known.reached or self._may_link(host, now)) for node in via]

    def _may_link(self, host: str, now: float) -> bool:
        teller = self._places.teller(host)
        return self._links.has(teller, now) and self._links.take(teller, now)  # refused ones would keep it empty

    def _known_version(self, teller: str, host: str, known: Witnessed) -> list[Action]:
        if teller == host:
            return [SendTo(host, KnownVersion(known.version))]
        return [SendTo(teller, KnownVersion(known.version, host), needs_link=True)]

    def _client_proven(
        self, sender: str, known: Witnessed, witness: ClientWitness, proof: Proof, now: float
    ) -> list[Action]:
        """A light client's proof, through one of its nodes: for us by our own number, or to be passed on."""
        if known.presence is None or sender not in known.presence.via:
            return []
        if proof.replica != self._own_id:
            is_wanted = now < known.askers.get(proof.replica, -math.inf)
            return [SendTo(proof.replica, Proven(proof), needs_link=True)] if is_wanted else []
        if proof.nonce not in known.nonces or not self._check(sender, proof):
            return []
        known.nonces = ()
        self._note_source(sender, proof.peer_id, known, known.presence)
        return self._do(proof.peer_id, known, witness.proven(sender, now), now)

    def _challenge(self, host: str, known: Witnessed, now: float) -> list[Action]:
        nonce = self._randomness.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        known.nonces = (*known.nonces, nonce)[-_CHALLENGES:]
        return self._to_host(host, known, ProofWanted(host, nonce, self._own_id), now)

    def _renew(self, host: str, known: Witnessed, presence: Presence, now: float, *, sender: str) -> list[Action]:
        self._note_via(host, known.presence, presence)
        known.reached &= {*presence.via}
        self._note_source(sender, host, known, presence)
        if isinstance(known.witness, ClientWitness) != bool(presence.via):
            is_witness = self._own_id in self._near(host)[:WITNESSES]
            drawn = self._randomness.uniform(0.8, 1.2)
            known.witness = (
                ClientWitness(now, presence.via, is_witness=is_witness, phase=self._phase(host), jitter=drawn)
                if presence.via
                else Witness(now, is_witness=is_witness, is_known=False, jitter=drawn)
            )
        known.presence = presence
        known.words = {name: kept for name, kept in known.words.items() if kept[0].version >= presence.version}
        told = [SendTo(name, Told(presence)) for name in self._told(known, now) if name != host]
        actions: list[Action] = [*told]
        if sender == host or sender in presence.via:
            actions += self._known_version(sender, host, known)
            near = self._near(host)[:WITNESSES]
            if self._own_id in near[:_PASSING_ON]:  # for those that the host can't tell itself
                actions += [SendTo(name, Told(presence)) for name in near if name != self._own_id]
        if presence.is_leaving:
            known.witness.left()
            self._timers.set(host, math.inf)
            return actions
        if isinstance(known.witness, ClientWitness):
            known.witness.renewed(now, presence.via)
            self._timers.set(host, known.witness.wake_at)
            return actions
        return actions + self._do(host, known, known.witness.renewed(now, from_itself=sender == host), now)

    def _news(self, replica: str, host: str, known: Witnessed, version: Version, now: float) -> list[Action]:
        """What a replica that has this version may lack: the host's own statement, and our word."""
        actions: list[Action] = []
        if known.presence is not None and known.presence.version > version:
            actions.append(SendTo(replica, Told(known.presence)))
        if known.witness.state is WitnessState.DOWN:
            actions.append(SendTo(replica, Said(self._word(host, known, now))))
        return actions

    def _word(self, host: str, known: Witnessed, now: float) -> Word:
        """Our word, said anew where the last one is old, or of an older version."""
        word = known.word
        if word is None or word.version != known.version or now - known.said_at > WORD_RENEWED:
            self._number += 1
            word = self._sign(Word(self._own_id, host, known.version, True, self._number, int(WORD_TTL)))
            known.word, known.said_at = word, now
        return word

    def _phase(self, host: str) -> float:
        """When we challenge a light client, so that its witnesses take turns; the first of them comes first."""
        near = [*self._near(host)[:WITNESSES]]
        return (near.index(self._own_id) + 1) / WITNESSES if self._own_id in near else 1.0

    def _told(self, known: Witnessed, now: float) -> list[str]:
        return [name for name, until in known.subscribers.items() if now < until]

    def _do(self, host: str, known: Witnessed, duties: list[Duty], now: float) -> list[Action]:
        actions: list[Action] = []
        for duty in duties:
            match duty:
                case Duty.DIAL:
                    actions.append(Dial(host, known.witness.dial_timeout, Role.WITNESS))
                case Duty.HINT:
                    actions += [SendTo(name, Hint(host)) for name in self._told(known, now)]
                case Duty.ACCUSE:
                    is_client = isinstance(known.witness, ClientWitness)
                    actions += self._to_host(host, known, Accused(known.version, host if is_client else ""), now)
                case Duty.CHALLENGE:
                    actions += self._challenge(host, known, now)
                case Duty.SAY_DOWN:
                    known.said_at = -math.inf
                    said = Said(self._word(host, known, now))
                    others = [name for name in self._near(host)[:KEEPERS] if name != self._own_id]
                    askers = [name for name, until in known.askers.items() if now < until]
                    itself = [] if isinstance(known.witness, ClientWitness) else [host]
                    to = dict.fromkeys([*self._told(known, now), *askers, *others, *itself, self._own_id])
                    actions += [SendTo(name, said) for name in to]
        self._timers.set(host, known.witness.wake_at)
        return actions
