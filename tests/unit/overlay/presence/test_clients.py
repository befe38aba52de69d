"""Light clients' presence: a client, its nodes, its keepers and a replica, all of them the real step machines."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from overlay.presence.actions import Action, Changed, Dial, FindKeepers, Role, SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.messages import Beat, ClientGone, Message, ProofWanted, Proven, Told
from overlay.presence.node import PresenceNode
from overlay.presence.statements import Presence, Proof, Version
from overlay.presence.timings import (
    CLIENT_CHALLENGE,
    CLIENT_GRACE,
    KEEPERS,
    LOOK,
    MOST_CLIENTS,
    NO_BEAT,
    WITH_WORDS,
    WITNESSES,
)

CLIENT = "client"
MEMBERS = [f"member-{number}" for number in range(12)]
ONE, OTHER, REPLICA = MEMBERS[9], MEMBERS[10], MEMBERS[11]
SAID = 1.0  # seconds in which what witnesses say is heard, looked into and believed


class World:
    """Everybody is linked with everybody, but for the client; messages take no time."""

    def __init__(self, *nodes: str) -> None:
        self.now = 0.0
        self.gone: set[str] = set()
        self.frozen: set[str] = set()
        self.nodes: tuple[str, ...] = ()
        self.lies: Callable[[str, str, Message], bool] = lambda *_: False
        """Whether a message from one to another is withheld."""
        self.said: list[tuple[str, str, Message]] = []
        self.changes: list[tuple[float, bool]] = []
        self._held: list[tuple[str, str, Message]] = []
        self.parties = {name: self.started(name, 1) for name in (*MEMBERS, CLIENT)}
        self.do(REPLICA, self.parties[REPLICA].follow(CLIENT, MEMBERS[:KEEPERS], 0.0))
        self.links(*nodes)
        self.passes(5.0)
        assert self.parties[REPLICA].following.presence_of(CLIENT) is not None, "it has heard of the client"

    def started(self, name: str, incarnation: int) -> PresenceNode:
        return PresenceNode(
            Presence(name, Version(incarnation)),
            self.now,
            near=lambda _: MEMBERS[:KEEPERS],
            sign_presence=lambda each: each,
            sign_word=lambda each: each,
            sign_proof=lambda each: each,
            is_genuine=lambda _: True,
            randomness=random.Random(name),
        )

    @property
    def is_listed(self) -> bool:
        view = self.parties[REPLICA].view_of(CLIENT)
        return view is not None and view.is_listed

    def links(self, *nodes: str) -> None:
        """The client acts through these from now on, and says so."""
        self.nodes = nodes
        client = self.parties[CLIENT]
        self.do(CLIENT, client.host.change(self.now, via=nodes))
        self.do(CLIENT, client.note_home((), nodes, self.now))

    def loses(self, *nodes: str) -> None:
        """The client's links to these end."""
        self.nodes = tuple(node for node in self.nodes if node not in nodes)
        for node in nodes:
            if node not in self.gone:
                self.do(node, self.parties[node].link_ended(CLIENT, self.now))

    def dies(self, name: str) -> None:
        """A process is gone, and its links with it."""
        self.gone.add(name)
        if name == CLIENT:
            self.loses(*self.nodes)
            return
        self.loses(name)
        for other in MEMBERS:
            if other not in self.gone:
                self.do(other, self.parties[other].link_ended(name, self.now))

    def thaws(self, name: str) -> None:
        self.frozen.discard(name)
        held, self._held = self._held, []
        for sender, receiver, message in held:
            self._deliver(sender, receiver, message)

    def passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += LOOK / 2
            for name, party in self.parties.items():
                if name not in self.gone and name not in self.frozen and party.wake_at <= self.now:
                    self.do(name, party.wake(self.now))

    def hidden_after(self, at_most: float) -> float:
        """Seconds until the replica hides the client."""
        began = self.now
        while self.is_listed:
            self.passes(LOOK / 2)
            assert self.now - began <= at_most, "still listed"
        return self.now - began

    def do(self, own: str, actions: Sequence[Action]) -> None:
        party = self.parties[own]
        for action in actions:
            match action:
                case SendTo():
                    self._deliver(own, action.to, action.message)
                case FindKeepers():
                    self.do(own, party.found(action.client, MEMBERS[:KEEPERS], self.now))
                case Dial(peer_id=peer, role=role):
                    self.do(own, party.dialled(peer, role, self._dialled(peer, role), self.now, self.now))
                case Changed(is_listed=is_listed):
                    self.changes.append((self.now, is_listed))
                case _:
                    pass

    def _dialled(self, peer: str, role: Role) -> DialOutcome:
        is_there = peer not in self.gone and peer not in self.frozen
        if peer == CLIENT:
            assert role is Role.REPLICA, "nobody dials a light client, but a replica through its nodes"
            is_there = is_there and any(node not in self.gone for node in self.nodes)
        return DialOutcome.ALIVE if is_there else DialOutcome.MUTE

    def _deliver(self, sender: str, receiver: str, message: Message) -> None:
        self.said.append((sender, receiver, message))
        is_cut = CLIENT in (sender, receiver) and not {sender, receiver} & {*self.nodes}
        if receiver in self.gone or sender in self.gone or is_cut or self.lies(sender, receiver, message):
            return
        if receiver in self.frozen:
            self._held.append((sender, receiver, message))
            return
        self.do(receiver, self.parties[receiver].receive(sender, [message], self.now))


def test_a_killed_client_is_hidden_after_its_grace() -> None:
    world = World(ONE)
    world.passes(3 * CLIENT_CHALLENGE)
    assert world.is_listed
    world.dies(CLIENT)
    assert CLIENT_GRACE <= world.hidden_after(10) <= CLIENT_GRACE + SAID


def test_a_client_says_little_and_beats_to_nobody() -> None:
    world = World(ONE)
    world.said.clear()
    world.passes(10 * CLIENT_CHALLENGE)
    assert not any(isinstance(message, Beat) and sender == CLIENT for sender, _, message in world.said)
    of_client = [message for sender, receiver, message in world.said if CLIENT in (sender, receiver)]
    assert len(of_client) <= 10 * 2 * WITNESSES + 4, (
        "a challenge and a proof of each witness, and once more its presence"
    )


def test_a_client_that_finds_another_node_in_time_is_never_hidden() -> None:
    world = World(ONE)
    for node, other in ((ONE, OTHER), (OTHER, MEMBERS[8])):
        world.dies(node)
        world.passes(CLIENT_GRACE - 2)
        world.links(other)
        world.passes(60)
    assert world.changes == []


def test_a_client_that_links_to_the_same_node_again_is_never_hidden() -> None:
    world = World(ONE)
    world.loses(ONE)
    world.passes(CLIENT_GRACE - 2)
    world.nodes = (ONE,)
    world.do(CLIENT, world.parties[CLIENT].link_up(ONE, world.now))
    world.passes(60)
    assert world.changes == []


def test_a_client_with_two_nodes_is_there_while_one_of_them_is() -> None:
    world = World(ONE, OTHER)
    world.dies(ONE)
    world.passes(120)
    assert world.changes == []
    world.dies(CLIENT)
    assert world.hidden_after(10) <= CLIENT_GRACE + SAID


def test_a_client_that_dies_with_its_node_is_hidden() -> None:
    world = World(ONE)
    world.dies(ONE)
    world.dies(CLIENT)
    assert CLIENT_GRACE <= world.hidden_after(10) <= CLIENT_GRACE + SAID


def test_a_node_that_conceals_that_its_client_died_is_found_out() -> None:
    world = World(ONE)
    world.gone.add(CLIENT)  # its node doesn't tell, and goes on as if it were there
    longest = CLIENT_CHALLENGE / WITNESSES + 2 * NO_BEAT + SAID
    assert world.hidden_after(longest) > CLIENT_GRACE


def test_a_node_that_repeats_old_proofs_is_found_out() -> None:
    world = World(ONE)
    proofs: list[Proof] = [message.proof for _, _, message in world.said if isinstance(message, Proven)]
    world.passes(CLIENT_CHALLENGE)
    proofs = [message.proof for sender, _, message in world.said if isinstance(message, Proven) and sender == CLIENT]
    assert proofs
    world.gone.add(CLIENT)

    def repeats(sender: str, receiver: str, message: Message) -> bool:
        if receiver == ONE and isinstance(message, ProofWanted):
            for proof in proofs:
                world.do(sender, world.parties[sender].receive(ONE, [Proven(proof)], world.now))
            return True
        return False

    world.lies = repeats
    world.hidden_after(CLIENT_CHALLENGE / WITNESSES + 2 * NO_BEAT + SAID)


def test_nobody_but_its_node_can_say_that_a_client_is_gone() -> None:
    world = World(ONE)
    world.said.clear()
    for keeper in MEMBERS[:KEEPERS]:
        world.do(keeper, world.parties[keeper].receive(OTHER, [ClientGone(CLIENT)], world.now))
    assert world.said == [], "it isn't even asked"
    world.passes(60)
    assert world.changes == []


def test_a_node_that_says_its_client_is_gone_hides_nobody_whom_the_replica_reaches() -> None:
    world = World(ONE)
    for keeper in MEMBERS[:KEEPERS]:
        world.do(keeper, world.parties[keeper].receive(ONE, [ClientGone(CLIENT)], world.now))
    world.lies = lambda sender, receiver, message: receiver == ONE and isinstance(message, ProofWanted)
    world.passes(CLIENT_GRACE + 2 * WITH_WORDS[0])
    assert world.is_listed


def test_a_client_that_stalls_is_not_hidden_and_a_frozen_one_is_until_it_goes_on() -> None:
    world = World(ONE)
    for _ in range(10):
        world.frozen.add(CLIENT)
        world.passes(5)
        world.thaws(CLIENT)
        world.passes(7.3)
    assert world.changes == []
    world.frozen.add(CLIENT)
    world.hidden_after(CLIENT_CHALLENGE / WITNESSES + 2 * NO_BEAT + SAID)
    world.thaws(CLIENT)
    world.passes(2.5)
    assert world.is_listed


def test_a_client_that_leaves_is_off_the_list_at_once_and_back_with_its_next_run() -> None:
    world = World(ONE)
    world.do(CLIENT, world.parties[CLIENT].leave(world.now))
    assert not world.is_listed
    world.dies(CLIENT)
    world.passes(30)
    world.gone.clear()
    world.parties[CLIENT] = world.started(CLIENT, 100_000)
    world.links(OTHER)
    assert world.is_listed


def test_a_restarted_keeper_is_told_again() -> None:
    world = World(ONE)
    world.parties[MEMBERS[0]] = world.started(MEMBERS[0], 100_000)
    world.do(ONE, world.parties[ONE].link_up(MEMBERS[0], world.now))
    kept = world.parties[MEMBERS[0]].witnessing.presence_of(CLIENT)
    assert kept is not None
    assert kept.via == (ONE,)


def test_a_node_serves_so_many_clients_and_no_more() -> None:
    node = World(ONE).parties[ONE]
    for number in range(MOST_CLIENTS + 10):
        presence = Presence(f"client-{number}", Version(1), via=(ONE,))
        node.clients.told(presence.peer_id, presence, 1.0)
    assert f"client-{MOST_CLIENTS + 5}" not in node.clients
    assert len(node.clients.to_look_at()) < 100, "few at a time: each takes a call of the system"


def test_a_client_that_tells_much_makes_its_node_say_little() -> None:
    world = World(ONE)
    client = world.parties[CLIENT]
    world.said.clear()
    for number in range(500):
        world.do(CLIENT, client.host.change(world.now, exceptions=b"%d" % number))
    assert (
        len([None for sender, _, message in world.said if sender == ONE and isinstance(message, Told)]) < 30 * KEEPERS
    )
    world.passes(30)
    view = world.parties[REPLICA].following.presence_of(CLIENT)
    assert view is not None
    assert view.exceptions == b"499", "the last is told in the end"


def test_two_processes_of_one_client_do_not_outdo_each_other_for_ever() -> None:
    world = World(ONE)
    client = world.parties[CLIENT]
    bumps = 0
    for number in range(200):
        theirs = Presence(CLIENT, Version(client.host.version.incarnation + 5), via=(ONE,))
        before = client.host.version
        client.host.exceeded(theirs, world.now + number / 100)
        bumps += client.host.version != before
    assert bumps < 10
