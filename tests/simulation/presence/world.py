"""A network in virtual time whose peers run the step machines of `overlay.presence`, as the real ones do.

Every peer is a host, a witness of those to whom it is near, and a replica of a few hosts. A stalled process handles its
timers first when it runs again, and what it was told after that, which is the worst order. What is said to one peer
gathers in notices as on the network (`overlay.presence.outgoing`). What work costs is counted as
`python -m benchmarks.presence_costs` measures it, or a little above.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct

from overlay.presence.actions import Action, Changed, Dial, PingLink, Role, SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.messages import AskAbout, Message, ProofWanted, Said, SubscribeTo, Told
from overlay.presence.node import PresenceNode
from overlay.presence.outgoing import GATHERING
from overlay.presence.statements import Presence, Version, Word
from overlay.presence.timings import KEEPERS, KERNEL_PING, LOOK, WITNESSES
from tests.simulation.presence.machines import Machines, Trouble

NOTICE: Final = 0.0004  # seconds of CPU at either end: encoding, encrypting and waking
NOTICE_MORE: Final = 0.0001  # of one that a peer sends or reads while it is at work anyway
MESSAGE: Final = 0.00003  # for each in it, at either end
CHECK: Final = 0.0001  # of a signature
DIALLED: Final = 0.01  # at either end; a link for a message takes as much
VAIN_DIAL: Final = 0.0004
HOME: Final = 28
PINGS: Final = (0.0, 0.2, 0.6, 1.4)  # when the kernel sends again what isn't acknowledged


class Hidden(Struct, frozen=True):
    """A replica hid a host, or listed it again."""

    at: float
    replica: int
    host: int
    is_listed: bool


class Lie(Struct, frozen=True):
    """What a lying witness does: it says "down" of everybody, or nothing to anybody."""

    says_down: bool


class World:
    """Peers, links and time."""

    def __init__(
        self,
        count: int = 400,
        seed: int = 1,
        *,
        seconds: float = 300.0,
        loss: float = 0.0,
        replicas: int = 5,
        home: int = HOME,
        incarnation_of: Callable[[int, float, int], int] = lambda own, now, last: last + 1,
    ) -> None:
        """`replicas`: of each host. `home`: members that each peer is linked with around it. `incarnation_of`: of a
        peer's run that begins at a time, where the run before had the last one."""
        self.randomness = random.Random(seed)
        self.count, self.seconds = count, seconds
        self.machines = Machines(count, self.randomness, loss=loss)
        self.now = 0.0
        self.names = [f"peer-{number}" for number in range(count)]
        self._numbers = {name: number for number, name in enumerate(self.names)}
        positions = [self.randomness.getrandbits(64) for _ in range(count)]
        self.near = [
            sorted(
                (other for other in range(count) if other != own), key=lambda other: positions[other] ^ positions[own]
            )[: max(home, KEEPERS)]
            for own in range(count)
        ]
        self._keepers = {
            self.names[own]: [self.names[other] for other in self.near[own][:KEEPERS]] for own in range(count)
        }
        self.replicas = [
            self.randomness.sample([other for other in range(count) if other != own], min(replicas, count - 1))
            for own in range(count)
        ]
        self._replica_names = {
            self.names[own]: [self.names[other] for other in self.replicas[own]] for own in range(count)
        }
        self.follows: list[list[int]] = [[] for _ in range(count)]
        for own in range(count):
            for replica in self.replicas[own]:
                self.follows[replica].append(own)
        self.linked: list[set[int]] = [set(near) for near in self.near]
        for own in range(count):
            for other in self.near[own]:
                self.linked[other].add(own)
        self.lies: dict[int, Lie] = {}
        self.cpu = [0.0] * count
        self._busy_until = [0.0] * count
        self.dials = 0
        self.links_made = [0] * count
        """By each peer, to say something to others with whom it has none."""
        self.sent: Counter[str] = Counter()  # messages by their kinds
        self.changes: list[Hidden] = []
        self._lie_number = 10**9
        self._runs = [0] * count
        self._incarnation_of = incarnation_of
        self._broken: set[tuple[int, int]] = set()
        self._made: set[tuple[int, int]] = set()  # links beside those to the neighbours
        self._said_at: dict[tuple[int, int], float] = {}
        self._gathered: dict[tuple[int, int], list[Message]] = {}
        self._last: dict[tuple[int, int], float] = {}
        self._events: list[tuple[float, int, int, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._event = 0
        self._woken_at = [math.inf] * count
        self._disks: list[dict[int, Presence]] = [{} for _ in range(count)]
        self._silences: set[tuple[int, int]] = set()
        self._acked: dict[tuple[int, int], float] = {}
        self.nodes = [self._start(own, incarnation_of(own, 0.0, 999), 0.0) for own in range(count)]

    def _start(self, own: int, incarnation: int, now: float) -> PresenceNode:
        return PresenceNode(
            Presence(self.names[own], Version(incarnation)),
            now,
            near=self._near_of,
            sign_presence=lambda presence: presence,
            sign_word=lambda word: word,
            sign_proof=lambda proof: proof,
            is_genuine=partial(self._checked, own),
            randomness=random.Random(self.randomness.getrandbits(32)),
        )

    def _spend(self, own: int, seconds: float) -> None:
        self.cpu[own] += seconds
        self._busy_until[own] = max(self._busy_until[own], self.now) + seconds

    def _spend_on_notice(self, own: int, messages: Sequence[Message]) -> None:
        self._spend(own, (NOTICE_MORE if self.now < self._busy_until[own] else NOTICE) + MESSAGE * len(messages))

    def _checked(self, own: int, statement: object) -> bool:
        self._spend(own, CHECK)
        return True

    def _near_of(self, name: str) -> Sequence[str]:
        return self._keepers[name]

    def add_replica(self, replica: int, hosts: Sequence[int]) -> None:
        """Have a peer follow these hosts, too, from the beginning on."""
        for host in hosts:
            self.replicas[host].append(replica)
            self._replica_names[self.names[host]].append(self.names[replica])
            self.follows[replica].append(host)

    # Events.

    def at(self, when: float, order: int, machine: int, do: Callable[..., None], *arguments: Any) -> None:
        """Have something done then, at a machine's process while it is the same run; -1: whatever happens."""
        if when < self.seconds:
            self._event += 1
            run = self._runs[machine] if machine >= 0 else 0
            heapq.heappush(self._events, (when, order, self._event, machine, run, do, arguments))

    def run(self) -> World:
        """Let the time pass."""
        self.machines.begin()
        for own in range(self.count):
            self._join(own, is_first=True)
            for outage in self.machines.outages[own]:
                if outage.kind is not Trouble.STALLED:
                    self.at(outage.start, 0, -1, self._dies, own, outage.kind)
                    self.at(outage.end, 0, -1, self._restarts, own)
        for own in self.lies:
            if self.lies[own].says_down:
                self.at(10 + 5 * self.randomness.random(), 0, own, self._lie, own)
        if self.machines.loss:
            for own in range(self.count):
                for other in self.linked[own]:
                    self._lose_probes(own, other)
        for cut in self.machines.cuts:
            self.at(cut.start, 0, -1, self._cut_begins, cut.stops)
        while self._events and self._events[0][0] < self.seconds:
            self.now, _, _, machine, run, do, arguments = heapq.heappop(self._events)
            if machine < 0 or run == self._runs[machine]:
                do(*arguments)
        return self

    def _join(self, own: int, *, is_first: bool = False) -> None:
        node, names = self.nodes[own], self.names
        keepers = [names[other] for other in self.near[own][:KEEPERS]]
        home = [names[other] for other in self.near[own]]
        self._do(own, node.note_home(home, keepers, self.now))
        for host in self.follows[own]:
            wait = self.randomness.uniform(1.0, 3.0) if not is_first else self.randomness.random()
            self.at(self.now + wait, 0, own, self._follow, own, host)

    def _follow(self, own: int, host: int) -> None:
        name, kept = self.names[host], self._disks[own].get(host)
        self._do(own, self.nodes[own].follow(name, self._keepers[name], self.now, kept))

    def _wake(self, own: int) -> None:
        """Timers, if they are due; the process may have stood still since."""
        self._woken_at[own] = math.inf
        runs_at = self.machines.runs_at(own, self.now)
        if runs_at > self.now:
            self._set_wake(own, runs_at)
            return
        node = self.nodes[own]
        self._do(own, node.wake(self.now) if node.wake_at <= self.now else [])

    def _set_wake(self, own: int, at: float) -> None:
        if at < self._woken_at[own]:
            self._woken_at[own] = at
            self.at(max(at, self.now), 0, own, self._wake, own)

    def _do(self, own: int, actions: Sequence[Action]) -> None:
        outgoing: dict[int, list[Message]] = {}
        for action in self._lied(own, actions) if own in self.lies else actions:
            match action:
                case SendTo():
                    outgoing.setdefault(self._numbers[action.to], []).append(action.message)
                case Dial():
                    self._dial(own, self._numbers[action.peer_id], action.timeout, action.role)
                case PingLink():
                    self._ping(own, self._numbers[action.peer_id])
                case Changed():
                    self.changes.append(Hidden(self.now, own, self._numbers[action.peer_id], action.is_listed))
        for other, messages in outgoing.items():
            self._say(own, other, messages)
        self._set_wake(own, self.nodes[own].wake_at)

    def _say(self, own: int, other: int, messages: list[Message]) -> None:
        """At once to a peer to which nothing was said just now; else it gathers."""
        if own == other:
            self.at(self.now, 1, own, self._received, own, own, messages)
        elif (own, other) in self._gathered:
            self._gathered[own, other] += messages
        elif self.now - self._said_at.get((own, other), -math.inf) >= GATHERING:
            self._send(own, other, messages)
        else:
            self._gathered[own, other] = [*messages]
            self.at(self.now + GATHERING, 0, -1, self._say_gathered, own, other, self._runs[own])

    def _say_gathered(self, own: int, other: int, run: int) -> None:
        messages = self._gathered.pop((own, other))
        if run == self._runs[own]:
            self._send(own, other, messages)

    def _send(self, own: int, other: int, messages: list[Message]) -> None:
        """One notice."""
        self._said_at[own, other] = self.now
        self.sent.update(type(message).__name__ for message in messages)
        pair = min(own, other), max(own, other)
        is_asking = any(isinstance(message, AskAbout | SubscribeTo) for message in messages)
        if pair in self._broken:
            outage = self.machines.outage(other, self.now)
            if not is_asking or outage is not None:
                self._spend(own, VAIN_DIAL if is_asking else 0.0)
                return
            self._mend(own, other)
        elif is_asking and other not in self.linked[own] and pair not in self._made:
            self._made.add(pair)
            self.links_made[own] += 1
            self._spend(own, DIALLED)
            self._spend(other, DIALLED)
        self._spend_on_notice(own, messages)
        arrival = max(self.machines.arrival(own, other, self.now), self._last.get((own, other), 0.0))
        if arrival < math.inf:
            if self.machines.loss or self.machines.cuts:
                self._last[own, other] = arrival
            self.at(self.machines.runs_at(other, arrival), 1, other, self._received, other, own, messages)

    def _received(self, own: int, sender: int, messages: list[Message]) -> None:
        runs_at = self.machines.runs_at(own, self.now)
        if runs_at > self.now:
            self.at(runs_at, 1, own, self._received, own, sender, messages)
            return
        if own != sender:
            self._spend_on_notice(own, messages)
        if (own, sender) in self._silences:
            self._acked[own, sender] = self.now  # what comes acknowledges too
        if own in self.lies:
            asked = [message.host for message in messages if isinstance(message, AskAbout)]
            if asked and self.lies[own].says_down:
                self._say(own, sender, [Said(self._false_word(own, host)) for host in asked])
            messages = [message for message in messages if not isinstance(message, AskAbout)]
        self._do(own, self.nodes[own].receive(self.names[sender], messages, self.now))

    def _dial(self, own: int, other: int, timeout: float, role: Role) -> None:
        self.dials += 1
        outcome, until = self.machines.dial(own, other, self.now, timeout)
        self._spend(own, DIALLED if outcome is DialOutcome.ALIVE else VAIN_DIAL)
        self._spend(other, DIALLED if outcome is DialOutcome.ALIVE else 0.0)
        self.at(self.machines.runs_at(own, until), 1, own, self._dialled, own, other, role, outcome, self.now)

    def _dialled(self, own: int, other: int, role: Role, outcome: DialOutcome, began: float) -> None:
        runs_at = self.machines.runs_at(own, self.now)
        if runs_at > self.now:
            self.at(runs_at, 1, own, self._dialled, own, other, role, outcome, began)
            return
        self._do(own, self.nodes[own].dialled(self.names[other], role, outcome, began, self.now))
        if role is Role.HOST and outcome is DialOutcome.ALIVE:
            self._mend(own, other)

    def _mend(self, one: int, other: int) -> None:
        """A link comes up."""
        pair = min(one, other), max(one, other)
        if pair in self._broken:
            self._broken.discard(pair)
            for own, peer in (one, other), (other, one):
                self.at(self.now, 1, own, self._link_up, own, peer)

    def _link_up(self, own: int, other: int) -> None:
        self._do(own, self.nodes[own].link_up(self.names[other], self.now))

    def _links_of(self, own: int) -> set[int]:
        """Who is linked with a peer now: its neighbours, and where replicas subscribe."""
        found = set(self.linked[own])
        for replica in range(self.count):
            if self.nodes[replica].following.subscribes_at(self.names[own]):
                found.add(replica)
        return found

    def _dies(self, own: int, kind: Trouble) -> None:
        links = self._links_of(own)
        self._runs[own] += 1
        for other in links:
            if kind is Trouble.VANISHED:
                self._begin_silence(other, own)
            else:
                when = self.machines.runs_at(other, self.now + self.machines.delay(own, other))
                self.at(when, 1, other, self._link_ended, other, own)

    def _link_ended(self, own: int, other: int) -> None:
        self._broken.add((min(own, other), max(own, other)))
        self._do(own, self.nodes[own].link_ended(self.names[other], self.now))

    def break_link(self, own: int, other: int, seconds: float) -> None:
        """The link between two breaks, for no fault of either; after so many seconds there is another one."""
        if (min(own, other), max(own, other)) in self._broken:
            return
        for one, peer in (own, other), (other, own):
            if self.machines.outage(one, self.now) is None:
                self.at(self.now, 1, one, self._link_ended, one, peer)
        self.at(self.now + seconds, 0, -1, self._relink, own, other)

    def _restarts(self, own: int) -> None:
        self._runs[own] += 1
        self._woken_at[own] = math.inf
        incarnation = self._incarnation_of(own, self.now, self.nodes[own].host.version.incarnation)
        for host in self.follows[own]:
            presence = self.nodes[own].following.presence_of(self.names[host])
            if presence is not None:
                self._disks[own][host] = presence
        for other in self.linked[own]:
            self._broken.add((min(own, other), max(own, other)))
        self.nodes[own] = self._start(own, incarnation, self.now)
        self._join(own)
        for other in self.linked[own]:
            self.at(self.now + self.randomness.uniform(0.1, 1.0), 1, own, self._relink, own, other)

    def _relink(self, own: int, other: int) -> None:
        is_there = self.machines.outage(own, self.now) is None and self.machines.outage(other, self.now) is None
        if is_there and not self.machines.is_cut(own, other, self.now):
            self._mend(own, other)

    def complain(self, own: int, host: int) -> None:
        """A caller at a replica can't reach a host, every 2 s."""
        self._do(own, self.nodes[own].complained(self.names[host], self.now))
        self.at(self.now + 2.0, 0, own, self.complain, own, host)

    def read(self, own: int) -> None:
        """Somebody reads of all hosts that a replica follows, every 2 s."""
        for host in self.follows[own]:
            self._do(own, self.nodes[own].looked_for(self.names[host], self.now))
        self.at(self.now + 2.0, 0, own, self.read, own)

    # Kernels.

    def _cut_begins(self, stops: Callable[[int, int], bool]) -> None:
        for own in range(self.count):
            subscribed_at = {self._numbers[name] for name in self.nodes[own].following.witnesses}
            for other in self.linked[own] | subscribed_at:
                if stops(own, other) or stops(other, own):
                    self._begin_silence(own, other)

    def _lose_probes(self, own: int, other: int) -> None:
        """Under loss: draw when two probes in a row, one a second, go unanswered next."""
        lost, when = 1 - (1 - self.machines.loss) ** 2, self.now
        while when < self.seconds:
            when += 1 + int(math.log(1 - self.randomness.random()) / math.log(1 - lost))
            if self.randomness.random() < lost:
                self.at(when + 2 + self.randomness.random(), 0, -1, self._begin_silence, own, other, 2.0)
                return

    def _begin_silence(self, own: int, other: int, since: float | None = None) -> None:
        if (own, other) in self._silences:
            return
        self._silences.add((own, other))
        self._acked[own, other] = self.now - (self.randomness.random() if since is None else since)
        self.at(self.now + self.randomness.random(), 0, -1, self._probe, own, other)
        self.at(self.now + LOOK * self.randomness.random(), 0, -1, self._look, own, other)

    def _probe(self, own: int, other: int) -> None:
        """The kernel's keep-alive, once a second."""
        if (own, other) in self._silences:
            if self.machines.answers(own, other, self.now):
                self._acked[own, other] = self.now
            self.at(self.now + 1.0, 0, -1, self._probe, own, other)

    def _ping(self, own: int, other: int) -> None:
        if own == other:
            return
        if (own, other) not in self._silences:
            if self.machines.outage(other, self.now) is None and self.machines.answers(own, other, self.now):
                self.at(self.now + 2 * self.machines.delay(own, other), 1, own, self._pong, own, other)
            return
        for wait in PINGS:
            self.at(self.now + wait, 0, -1, self._ping_again, own, other)

    def _pong(self, own: int, other: int) -> None:
        self._do(own, self.nodes[own].answered(self.names[other], self.now))

    def _ping_again(self, own: int, other: int) -> None:
        if (own, other) in self._silences and self.machines.answers(own, other, self.now):
            self._acked[own, other] = self.now

    def _look(self, own: int, other: int) -> None:
        """The process looks at the kernel's figures."""
        pair = min(own, other), max(own, other)
        outage = self.machines.outage(own, self.now)
        if pair in self._broken or (outage is not None and outage.kind is not Trouble.STALLED):
            self._silences.discard((own, other))
            return
        runs_at = self.machines.runs_at(own, self.now)
        if runs_at > self.now:
            self.at(runs_at, 0, -1, self._look, own, other)
            return
        node, name = self.nodes[own], self.names[other]
        acked = self._acked[own, other]
        if self.now - acked >= KERNEL_PING:
            self._do(own, node.silent(name, acked, self.now))
        elif node.is_silent(name):
            self._do(own, node.acknowledged(name, self.now))
        if self.now - acked < KERNEL_PING and self._is_well(own, other):
            self._silences.discard((own, other))
            if self.machines.loss:
                self._lose_probes(own, other)
            return
        self.at(self.now + LOOK, 0, -1, self._look, own, other)

    def _is_well(self, own: int, other: int) -> bool:
        outage = self.machines.outage(other, self.now)
        is_gone = outage is not None and outage.kind is Trouble.VANISHED
        return (
            not is_gone
            and not self.machines.is_cut(own, other, self.now)
            and not self.machines.is_cut(other, own, self.now)
        )

    # Liars.

    def _false_word(self, own: int, host: str) -> Word:
        self._lie_number += 1
        version = self.nodes[self._numbers[host]].host.version  # it knows the latest
        return Word(self.names[own], host, version, True, self._lie_number, 30)

    def _lie(self, own: int) -> None:
        for host in list(self.nodes[own].witnessing.hosts):
            word = Said(self._false_word(own, host))
            others = [name for name in self._keepers[host][:WITNESSES] if name != self.names[own]]
            for name in (*self._replica_names[host], *others):
                self._say(own, self._numbers[name], [word])
        self.at(self.now + 5.0, 0, own, self._lie, own)

    def _lied(self, own: int, actions: Sequence[Action]) -> list[Action]:
        """What a liar does of that which its step machines want: it passes nothing on."""
        kept: list[Action] = []
        for action in actions:
            message = action.message if isinstance(action, SendTo) else None
            is_own = isinstance(message, Told) and message.presence.peer_id == self.names[own]
            is_of_others = isinstance(message, Said | Told | ProofWanted) and not is_own
            if not is_of_others:
                kept.append(action)
        return kept
