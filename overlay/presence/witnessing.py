"""What this peer owes the hosts whose presence it keeps, their other keepers, and the replicas that want to be told.

`Witness` decides about one host; here its duties become messages, and what comes is checked: a presence and a word
count when they are genuine, and newer than what is known. Bounded: hosts by `admission`, of each as many words as it
has keepers, and its `Subscribers`. Pure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from typing import Final

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, Dial, Role, SendTo
from overlay.presence.admission import Near, WitnessedHosts
from overlay.presence.client_witness import ClientWitness
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.messages import Accused, AskAbout, Hint, KnownVersion, Message, ProofWanted, Proven, Said, Told
from overlay.presence.statements import NEVER, NONCE_BYTES, Presence, Proof, Version, Word
from overlay.presence.subscribers import Subscribers
from overlay.presence.timers import Timers
from overlay.presence.timings import (
    ASKED_BURST,
    ASKED_RATE,
    ENOUGH_WORDS,
    KEEPERS,
    NAMED_BURST,
    NAMED_RATE,
    WITNESSES,
    WORD_RENEWED,
    WORD_TTL,
)
from overlay.presence.witness import Duty, WitnessState
from overlay.presence.witnessed_host import WitnessedHost

_PASSING_ON: Final = 2  # witnesses that tell the others what a host said

Check = Callable[[str, Presence | Word | Proof], bool]
"""Whether a statement that a peer told is genuine; also false where it told too many."""


class Witnessing:
    """One peer's part as a keeper, for all of its hosts."""

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
        self._hosts = WitnessedHosts(own_id, near=near, on_forgotten=self._forgotten, randomness=randomness)
        self._subscribers = Subscribers()
        self._asks = TokenBuckets(NAMED_RATE, NAMED_BURST)
        self._passed_on = TokenBuckets(ASKED_RATE, ASKED_BURST)
        self._subscribes = TokenBuckets(NAMED_RATE, NAMED_BURST)
        self._timers: Timers[str] = Timers()

    @property
    def hosts(self) -> Collection[str]:
        """Those that are kept."""
        return self._hosts.names

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
        self._hosts.note_heard(host, known)
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
                self._hosts.note_source(sender, known, known.presence)
            if not is_own or presence.version < known.version or known.presence.is_leaving:
                return actions
            if isinstance(known.witness, ClientWitness):
                known.witness.there(sender, now)
                self._timers.set(host, known.witness.wake_at)
                return actions
            return actions + self._do(host, known, known.witness.heard(now), now)
        is_new = known is None or known.presence is None
        if (is_new and not self._hosts.may_tell(sender, presence, now)) or not self._check(sender, presence):
            return []
        known = known or self._hosts.add_told(sender, presence, now)
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
        for client in self._hosts.clients_of(node):
            actions += self.client_gone(node, client, now)
        return actions

    def unreached(self, node: str) -> None:
        """No link could be made to a peer: for light clients it is tried less often, until it is heard."""
        for client in self._hosts.clients_of(node):
            known = self._hosts.get(client)
            if known is not None and node in known.reached:
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
            self._hosts.note_heard(host, known)
            if known.quiet_dials > 1:  # it beats to others by now
                known.witness.set_role(now, is_witness=False)
        return self._do(host, known, known.witness.dialled(outcome, began, now, judges=self._judges(now)), now)

    # What replicas and other keepers say.

    def asked(self, replica: str, ask: AskAbout, now: float) -> list[Action]:
        """A replica wants to know of a host, and a proof that it is there."""
        if not self._asks.take(replica, now):
            return []
        known = self._hosts.get(ask.host) or self._hosts.add_named(replica, ask.host, now)
        if known is None:
            return []
        if known.presence is None:
            known.told = max(known.told, ask.version)
        actions = self._news(replica, ask.host, known, ask.version, now)
        if known.witness.state is WitnessState.DOWN or known.witness.state is WitnessState.LEFT:
            return actions
        if not self._passed_on.take((replica, ask.host), now):
            return actions
        if known.add_asker(replica, now):
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
        self._hosts.note_heard(sender, known)
        if known.awaits_proof(proof.replica, now):
            actions.append(SendTo(proof.replica, Proven(proof)))
        return actions + self._do(sender, known, witness.heard(now), now)

    def subscribed(self, replica: str, host: str, seconds: float, now: float) -> list[Action]:
        """A replica wants to be told of a host from now on, and what is known of it."""
        if not self._subscribes.take(replica, now):
            return []
        known = self._hosts.get(host)
        if known is None and seconds > 0:
            known = self._hosts.add_named(replica, host, now)  # it may come later
        if known is None:
            return []
        if seconds > 0:
            self._subscribers.add(replica, host, seconds, now)
        others = [SendTo(replica, Said(word)) for word in known.words_now(now)]
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
        if not known.add_word(word, now):
            return []
        told = self._subscribers.of(word.accused, now) if known.words_against(now) <= ENOUGH_WORDS else []
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
            if near and not self._hosts.forget_if_others(host, known, near):
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
            if known is None or self._hosts.forget_if_long_down(host, known, now):
                continue
            actions += self._do(host, known, known.witness.wake(now, judges=self._judges(now)), now)
        return actions

    def _forgotten(self, host: str) -> None:
        self._subscribers.drop_host(host)
        self._timers.set(host, math.inf)

    def _to_host(self, host: str, known: WitnessedHost, message: Message, now: float) -> list[Action]:
        """Say something to a host, or to each node of a light client; a link is made to those that are known to be."""
        via = known.presence.via if known.presence is not None else ()
        if not via:
            return [SendTo(host, message)]
        return [
            SendTo(node, message, needs_link=node in known.reached or self._hosts.may_link(host, now)) for node in via
        ]

    def _known_version(self, teller: str, host: str, known: WitnessedHost) -> list[Action]:
        if teller == host:
            return [SendTo(host, KnownVersion(known.version))]
        return [SendTo(teller, KnownVersion(known.version, host), needs_link=True)]

    def _client_proven(
        self, sender: str, known: WitnessedHost, witness: ClientWitness, proof: Proof, now: float
    ) -> list[Action]:
        """A light client's proof, through one of its nodes: for us by our own number, or to be passed on."""
        if known.presence is None or sender not in known.presence.via:
            return []
        if proof.replica != self._own_id:
            is_wanted = known.awaits_proof(proof.replica, now)
            return [SendTo(proof.replica, Proven(proof), needs_link=True)] if is_wanted else []
        if proof.nonce not in known.nonces or not self._check(sender, proof):
            return []
        known.nonces = ()
        self._hosts.note_source(sender, known, known.presence)
        return self._do(proof.peer_id, known, witness.proven(sender, now), now)

    def _challenge(self, host: str, known: WitnessedHost, now: float) -> list[Action]:
        nonce = self._randomness.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        known.add_challenge(nonce)
        return self._to_host(host, known, ProofWanted(host, nonce, self._own_id), now)

    def _renew(self, host: str, known: WitnessedHost, presence: Presence, now: float, *, sender: str) -> list[Action]:
        self._hosts.note_presence(sender, known, presence, now)
        told = [SendTo(name, Told(presence)) for name in self._subscribers.of(host, now) if name != host]
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

    def _news(self, replica: str, host: str, known: WitnessedHost, version: Version, now: float) -> list[Action]:
        """What a replica that has this version may lack: the host's own statement, and our word."""
        actions: list[Action] = []
        if known.presence is not None and known.presence.version > version:
            actions.append(SendTo(replica, Told(known.presence)))
        if known.witness.state is WitnessState.DOWN:
            actions.append(SendTo(replica, Said(self._word(host, known, now))))
        return actions

    def _word(self, host: str, known: WitnessedHost, now: float) -> Word:
        """Our word, said anew where the last one is old, or of an older version."""
        word = known.word
        if word is None or word.version != known.version or now - known.said_at > WORD_RENEWED:
            self._number += 1
            word = self._sign(Word(self._own_id, host, known.version, True, self._number, int(WORD_TTL)))
            known.word, known.said_at = word, now
        return word

    def _do(self, host: str, known: WitnessedHost, duties: list[Duty], now: float) -> list[Action]:
        actions: list[Action] = []
        for duty in duties:
            match duty:
                case Duty.DIAL:
                    actions.append(Dial(host, known.witness.dial_timeout, Role.WITNESS))
                case Duty.HINT:
                    actions += [SendTo(name, Hint(host)) for name in self._subscribers.of(host, now)]
                case Duty.ACCUSE:
                    is_client = isinstance(known.witness, ClientWitness)
                    actions += self._to_host(host, known, Accused(known.version, host if is_client else ""), now)
                case Duty.CHALLENGE:
                    actions += self._challenge(host, known, now)
                case Duty.SAY_DOWN:
                    known.said_at = -math.inf
                    said = Said(self._word(host, known, now))
                    others = [name for name in self._near(host)[:KEEPERS] if name != self._own_id]
                    itself = [] if isinstance(known.witness, ClientWitness) else [host]
                    to = dict.fromkeys(
                        [*self._subscribers.of(host, now), *known.askers_now(now), *others, *itself, self._own_id]
                    )
                    actions += [SendTo(name, said) for name in to]
        self._timers.set(host, known.witness.wake_at)
        return actions
