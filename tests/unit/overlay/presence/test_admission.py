"""Which hosts a keeper takes, and which it forgets; what floods of them do is in `test_witnessing`."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.presence import admission as module
from overlay.presence.admission import Near, WitnessedHosts
from overlay.presence.client_witness import ClientWitness
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.statements import Presence, Version
from overlay.presence.timings import FORGOTTEN, HEARSAY_FORGOTTEN
from overlay.presence.witness import Witness, WitnessState

KEEPERS = ["own", *(f"keeper {number}" for number in range(7))]
OTHERS = [*KEEPERS[1:], "nearer"]


class Keeper:
    """A keeper's hosts, and those that it forgot."""

    def __init__(self, near: Near = lambda _: KEEPERS) -> None:
        self.forgotten: list[str] = []
        self.hosts = WitnessedHosts("own", near=near, on_forgotten=self.forgotten.append, randomness=random.Random(1))

    def tell(self, sender: str, presence: Presence, now: float = 0.0) -> bool:
        """A peer tells a presence that is genuine; whether its host is kept then."""
        known = self.hosts.get(presence.peer_id)
        if known is None and self.hosts.may_tell(sender, presence, now):
            known = self.hosts.add_told(sender, presence, now)
        if known is not None:
            self.hosts.note_presence(sender, known, presence, now)
        return known is not None

    def down(self, host: str, now: float = 0.0) -> None:
        known = self.hosts.get(host)
        assert known is not None
        known.witness.dialled(DialOutcome.REFUSED, now, now)
        assert known.witness.state is WitnessState.DOWN

    def forget_if_others(self, host: str, near: Sequence[str]) -> bool:
        known = self.hosts.get(host)
        assert known is not None
        return self.hosts.forget_if_others(host, known, near)

    def forget_if_long_down(self, host: str, now: float) -> bool:
        known = self.hosts.get(host)
        assert known is not None
        return self.hosts.forget_if_long_down(host, known, now)


def test_a_host_may_be_told_of_by_itself_by_its_nodes_and_by_its_other_keepers() -> None:
    host, client = Presence("host", Version(1)), Presence("client", Version(1), via=("node",))
    for near, tellers in ((KEEPERS, {"host", KEEPERS[1]}), (OTHERS, {"host"})):
        hosts = Keeper(lambda _, near=near: near).hosts
        senders = ("host", "node", "stranger", KEEPERS[1], "nearer")
        assert {sender for sender in senders if hosts.may_tell(sender, host, 0.0)} == tellers
        assert hosts.may_tell("node", client, 0.0)


def test_a_host_that_others_keep_is_not_taken_because_a_replica_names_it() -> None:
    assert Keeper().hosts.add_named("replica", "host", 0.0) is not None
    assert Keeper(lambda _: OTHERS).hosts.add_named("replica", "host", 0.0) is None


def test_a_host_that_others_keep_now_is_forgotten_unless_it_is_down() -> None:
    keeper = Keeper()
    for host in ("host", "dead"):
        keeper.tell(host, Presence(host, Version(1)))
    keeper.down("dead")
    for host in ("host", "dead"):
        assert not keeper.forget_if_others(host, KEEPERS)
        assert not keeper.forget_if_others(host, []), "nothing is known"
    assert keeper.forget_if_others("host", OTHERS)
    assert not keeper.forget_if_others("dead", OTHERS)
    assert keeper.forgotten == ["host"]
    assert {*keeper.hosts.names} == {"dead"}


def test_a_host_that_is_down_is_forgotten_sooner_where_it_was_never_heard() -> None:
    keeper = Keeper()
    keeper.tell("heard", Presence("heard", Version(1)))
    for host in ("heard later", "never heard"):
        keeper.tell(KEEPERS[1], Presence(host, Version(1)))
    later = keeper.hosts.get("heard later")
    assert later is not None
    keeper.hosts.note_heard("heard later", later)
    for host in keeper.hosts.names:
        keeper.down(host)
    soon, late = HEARSAY_FORGOTTEN + 1, FORGOTTEN + 1
    assert not keeper.forget_if_long_down("never heard", HEARSAY_FORGOTTEN)
    assert [host for host in list(keeper.hosts.names) if keeper.forget_if_long_down(host, soon)] == ["never heard"]
    assert [host for host in list(keeper.hosts.names) if keeper.forget_if_long_down(host, late)] == [
        "heard",
        "heard later",
    ]
    assert keeper.forgotten == ["never heard", "heard", "heard later"]


def test_a_host_is_looked_at_as_what_it_says_that_it_is() -> None:
    keeper = Keeper()
    for version, via in ((1, ()), (2, ("node",)), (3, ("other", "node")), (4, ())):
        keeper.tell("host", Presence("host", Version(version), via=via))
        known = keeper.hosts.get("host")
        assert known is not None
        assert isinstance(known.witness, ClientWitness if via else Witness)
        assert [node for node in ("node", "other") if keeper.hosts.clients_of(node)] == sorted(via)


names = st.integers(0, 11).map("host {}".format)
nodes = st.lists(st.sampled_from(["node", "other node"]), max_size=2, unique=True).map(tuple)


@given(st.lists(st.tuples(names, st.sampled_from(["named", "itself", "its node", "keeper", "down", "moved"]), nodes)))
def test_whatever_happens_places_are_bounded_and_each_that_is_forgotten_is_told(
    events: list[tuple[str, str, tuple[str, ...]]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "MOST_WITNESSED", 5)
        patched.setattr(module, "MOST_UNTOLD", 2)
        keeper, known = Keeper(), set[str]()
        for number, (host, event, via) in enumerate(events):
            kept = keeper.hosts.get(host)
            match event:
                case "named" if kept is None:
                    keeper.hosts.add_named("replica", host, 0.0)
                case "itself" | "its node" | "keeper":
                    sender = {"itself": host, "its node": "node", "keeper": KEEPERS[1]}[event]
                    keeper.tell(sender, Presence(host, Version(number), via=via), 0.0)
                case "down" if kept is not None and not isinstance(kept.witness, ClientWitness):
                    keeper.down(host)
                case "moved" if kept is not None:
                    keeper.forget_if_others(host, OTHERS)
            names_now = {*keeper.hosts.names}
            assert len(names_now) <= 5
            assert known - names_now <= {*keeper.forgotten}
            assert not names_now & {*keeper.forgotten}
            keeper.forgotten.clear()
            known = names_now
            for node in ("node", "other node"):
                clients = {name for name, each in keeper.hosts.items() if each.presence and node in each.presence.via}
                assert {*keeper.hosts.clients_of(node)} == clients
