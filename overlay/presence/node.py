"""All of one peer's presence, as one step machine: host, witness and replica at once.

Events and the time come in: what peers say, what becomes of links, what their kernels acknowledge, what dials bring,
and `wake`, at `wake_at` and so at least every `LOOK` seconds. A list of actions comes out of each. Whoever drives it
tells the outcome of each dial, and lets what waits to be read be read before `wake`. The clock doesn't go back, and
runs on while the machine sleeps; the wall clock is in incarnations alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from overlay.limits.token_bucket import TokenBuckets
from overlay.presence.actions import Action, PingLink, Role, SendTo
from overlay.presence.admission import Near
from overlay.presence.clients import Clients
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.following import Following
from overlay.presence.host_hiding import HostView
from overlay.presence.messages import (
    Accused,
    AskAbout,
    Beat,
    ClientGone,
    Hint,
    KnownVersion,
    Message,
    ProofWanted,
    Proven,
    Said,
    SubscribeTo,
    Told,
)
from overlay.presence.own_presence import OwnPresence
from overlay.presence.own_stalls import OwnStalls
from overlay.presence.self_doubt import SelfDoubt
from overlay.presence.statements import Presence, Proof, Word, is_genuine
from overlay.presence.timings import CHECK_BURST, CHECK_RATE, KERNEL_DOUBT, LOOK
from overlay.presence.witnessing import Witnessing


class PresenceNode:
    """One peer's part in presence."""

    def __init__(
        self,
        presence: Presence,
        now: float,
        *,
        near: Near,
        sign_presence: Callable[[Presence], Presence],
        sign_word: Callable[[Word], Word],
        sign_proof: Callable[[Proof], Proof],
        is_genuine: Callable[[Presence | Word | Proof], bool] = is_genuine,
        randomness: random.Random,
    ) -> None:
        """`presence`: our own, unsigned; its incarnation is above those before."""
        self.own_id = presence.peer_id
        self._is_genuine = is_genuine
        self._checks = TokenBuckets(CHECK_RATE, CHECK_BURST)
        self._stalls = OwnStalls(now)
        self._self_doubt = SelfDoubt()
        self._look_at = now + LOOK
        self._silent: dict[str, bool] = {}  # whether for so long that it counts as lost
        self.host = OwnPresence(
            presence, sign_presence=sign_presence, sign_proof=sign_proof, phase=randomness.uniform(0.05, 1.0)
        )
        """What we say of ourselves."""
        self.witnessing = Witnessing(
            self.own_id,
            near=near,
            check=self._check,
            sign=sign_word,
            judges=self._judges,
            randomness=randomness,
            number=presence.version.incarnation,
        )
        """The hosts that we are a keeper of."""
        self.following = Following(self.own_id, check=self._check, judges=self._judges, randomness=randomness)
        """The hosts that we follow."""
        self.clients = Clients(self.own_id, check=self._check)
        """The light clients that act through us."""
        self._now = now

    def view_of(self, host: str) -> HostView | None:
        """What this peer thinks of a host that it follows."""
        return self.following.view_of(host)

    # Events.

    def receive(self, sender: str, messages: Iterable[Message], now: float) -> list[Action]:
        """What a peer said on its link."""
        actions = self._note(now)
        for message in messages:
            actions += self._received(sender, message, now)
        return actions

    def link_up(self, peer_id: str, now: float) -> list[Action]:
        """A link came up, or was replaced by one to another run of the peer's process."""
        actions = self._note(now)
        self._answered(peer_id, now)
        return actions + self.host.link_up(peer_id, now) + self.clients.link_up(peer_id, now)

    def link_ended(self, peer_id: str, now: float) -> list[Action]:
        """A link broke; not for one that was closed on purpose."""
        actions = self._note(now)
        self._silent.pop(peer_id, None)
        self.host.link_ended(peer_id, now)
        actions += self.witnessing.link_ended(peer_id, now)
        actions += self.following.link_ended(peer_id, now)
        actions += self.clients.lost(peer_id, now) + self.witnessing.node_lost(peer_id, now)
        return actions + self._lost(peer_id, now)

    def link_closed(self, peer_id: str, now: float) -> list[Action]:
        """A link was closed on purpose."""
        actions = self._note(now)
        self._silent.pop(peer_id, None)
        self.host.link_ended(peer_id, now)
        return actions + self.following.link_closed(peer_id, now) + self.clients.lost(peer_id, now)

    def unreached(self, peer_id: str, now: float) -> list[Action]:
        """No link could be made to a peer, for what was to be said to it."""
        self.witnessing.unreached(peer_id)
        return self._note(now) + self.following.unreached(peer_id, now)

    def silent(self, peer_id: str, since: float, now: float) -> list[Action]:
        """The kernel of a linked peer has acknowledged nothing since then; told at each look, from `KERNEL_PING` on."""
        actions = self._note(now)
        if peer_id not in self._silent:
            self._silent[peer_id] = False
            actions.append(PingLink(peer_id))  # any acknowledgement is enough
        actions += self.witnessing.silent(peer_id, since, now)
        actions += self.clients.silent(peer_id, since, now)
        if now - since >= KERNEL_DOUBT and not self._silent[peer_id]:
            self._silent[peer_id] = True
            actions += self.following.link_ended(peer_id, now) + self._lost(peer_id, now)
        return actions

    def acknowledged(self, peer_id: str, now: float) -> list[Action]:
        """The kernel of a peer that was silent has acknowledged something."""
        actions = self._note(now)
        self._silent.pop(peer_id, None)
        self.witnessing.acknowledged(peer_id, now)
        self._answered(peer_id, now)
        return actions + self.clients.acknowledged(peer_id, now)

    def answered(self, peer_id: str, now: float) -> list[Action]:
        """A peer answered a ping that was sent for `PingLink`."""
        actions = self._note(now)
        self._answered(peer_id, now)
        return actions

    @property
    def hears_silence(self) -> bool:
        """Whether any peer's kernel was silent at the last look."""
        return bool(self._silent)

    def is_silent(self, peer_id: str) -> bool:
        """Whether a peer's kernel was silent at the last look."""
        return peer_id in self._silent

    def dialled(self, peer_id: str, role: Role, outcome: DialOutcome, began: float, now: float) -> list[Action]:
        """What became of a dial that began then."""
        actions = self._note(now)
        if outcome not in (DialOutcome.SILENT, DialOutcome.OWN_FAULT):
            self._answered(peer_id, now)
        if role is Role.WITNESS:
            actions += self.witnessing.dialled(peer_id, outcome, began, now)
        elif role is Role.REPLICA:
            actions += self.following.dialled(peer_id, outcome, began, now)
        return actions

    def complained(self, host: str, now: float) -> list[Action]:
        """A caller couldn't reach a host."""
        return self._note(now) + self.following.complained(host, now)

    def looked_for(self, host: str, now: float) -> list[Action]:
        """Somebody reads of a followed host."""
        return self._note(now) + self.following.looked_for(host, now)

    def found(self, client: str, keepers: Sequence[str], now: float) -> list[Action]:
        """Who lies nearest to a light client, as was looked up for `FindKeepers`."""
        return self._note(now) + self.clients.found(client, keepers, now)

    def follow(self, host: str, keepers: Sequence[str], now: float, presence: Presence | None = None) -> list[Action]:
        """Follow a host from now on; also to tell its keepers of today. `presence`: as it was kept from earlier."""
        return self._note(now) + self.following.follow(host, keepers, now, presence)

    def note_home(self, members: Sequence[str], keepers: Sequence[str], now: float) -> list[Action]:
        """Who is linked around our own position, and who is nearest to it, nearest first."""
        actions = self._note(now)
        self._self_doubt.note_home(members, now)
        self.witnessing.note_home(now)
        return actions + self.host.set_keepers(keepers, now)

    def forget_silence(self, peer_id: str) -> None:
        """Nothing is known of a peer's kernel any more."""
        self._silent.pop(peer_id, None)

    def is_time_to_look(self, now: float) -> bool:
        """Whether the kernels' figures are to be looked at, before `wake`."""
        return now >= self._look_at

    def watched(self) -> list[str]:
        """The peers whose kernels are to be looked at, beside the home: hosts that we witness, our own keepers, and
        some of our light clients."""
        return [
            *self.witnessing.linked_hosts,
            *self.host.keepers,
            *self.following.witnesses,
            *self.clients.to_look_at(),
            *self._silent,
        ]

    def leave(self, now: float) -> list[Action]:
        """Say that we stop."""
        return self._note(now) + self.host.leave(now)

    @property
    def wake_at(self) -> float:
        """When to call `wake` next."""
        parts = self.host, self.witnessing, self.following, self.clients
        return min(self._look_at, *(part.wake_at for part in parts))

    def wake(self, now: float) -> list[Action]:
        """Time has passed."""
        actions = self._note(now)
        is_looking = now >= self._look_at
        if is_looking:
            self._look_at = now + LOOK
        # A beat that is due before the next look goes out with this one: each time that a process wakes costs.
        ahead = LOOK if is_looking else 0.0
        if self.host.wake_at <= now + ahead:
            actions += self.host.wake(now, ahead=ahead)
        if now >= self.witnessing.wake_at:
            actions += self.witnessing.wake(now)
        if now >= self.following.wake_at:
            actions += self.following.wake(now)
        if now >= self.clients.wake_at:
            actions += self.clients.wake(now)
        return actions

    # Within.

    def _note(self, now: float) -> list[Action]:
        """Each event begins so: whether we stood still matters to what it means."""
        self._now = now
        pause = self._stalls.note(now)
        if not pause:
            return []
        self._look_at = now + LOOK
        self.witnessing.stalled(now)
        self.following.stalled(now)
        return self.host.stalled(pause, now)

    def _received(  # noqa: PLR0911 - a kind of message each
        self, sender: str, message: Message, now: float
    ) -> list[Action]:
        match message:
            case Beat():
                return self.witnessing.beat(sender, message.version, now)
            case Told():
                return self._told(sender, message.presence, now)
            case KnownVersion() if message.host in ("", self.own_id):
                return self.host.taken(sender, message.version, now)
            case Said():
                return self.witnessing.said(sender, message.word, now) + self.following.said(sender, message.word, now)
            case Hint():
                return self.following.hinted(sender, message.host, now)
            case Accused() if message.host in ("", self.own_id):
                return self.host.accused(message.version, now)
            case AskAbout():
                return self.witnessing.asked(sender, message, now)
            case ProofWanted() if message.host == self.own_id:
                return self.host.prove(sender, message.nonce, message.replica, now)
            case Proven():
                passed_on = self.witnessing.proven(sender, message.proof, now)
                passed_on += self.clients.proven(sender, message.proof)
                return passed_on + self.following.proven(sender, message.proof, now)
            case SubscribeTo():
                return self._subscribed(sender, message, now)
            case _:
                return self._of_client(sender, message, now)

    def _of_client(self, sender: str, message: Message, now: float) -> list[Action]:
        """What is said about a light client, to its keeper or to its node."""
        match message:
            case KnownVersion():
                return self.clients.taken(sender, message.host, message.version)
            case Accused():
                return self.clients.accused(message.host, message.version)
            case ProofWanted():
                return self.clients.proof_wanted(sender, message)
            case ClientGone():
                return self.witnessing.client_gone(sender, message.client, now)
            case _:
                return []

    def _subscribed(self, sender: str, message: SubscribeTo, now: float) -> list[Action]:
        actions: list[Action] = []
        for host in message.hosts:
            if host == self.own_id:  # whose keepers may withhold it
                actions.append(SendTo(sender, Told(self.host.presence)))
            else:
                actions += self.witnessing.subscribed(sender, host, message.seconds, now)
        return actions

    def _told(self, sender: str, presence: Presence, now: float) -> list[Action]:
        if presence.peer_id == self.own_id:
            is_news = presence.version > self.host.version and self._check(sender, presence)
            return self.host.exceeded(presence, now) if is_news else []
        if sender == presence.peer_id and self.own_id in presence.via:
            # As one of its keepers we hear of it as they do: by ourselves.
            return self.clients.told(sender, presence, now) + self.following.told(sender, presence, now)
        actions = self.witnessing.told(sender, presence, now) + self.following.told(sender, presence, now)
        return actions + self.clients.exceeded(presence)

    def _check(self, sender: str, statement: Presence | Word | Proof) -> bool:
        return self._checks.take(sender, self._now) and self._is_genuine(statement)

    def _judges(self, now: float) -> bool:
        return not self._self_doubt.is_doubting(now)

    def _lost(self, peer_id: str, now: float) -> list[Action]:
        if not self._self_doubt.lost(peer_id, now):
            return []
        return [PingLink(member) for member in self._self_doubt.home()]

    def _answered(self, peer_id: str, now: float) -> None:
        was_doubting = self._self_doubt.is_doubting(now)
        self._self_doubt.answered(peer_id, now)
        if was_doubting and not self._self_doubt.is_doubting(now):
            self.following.links_returned(now)
