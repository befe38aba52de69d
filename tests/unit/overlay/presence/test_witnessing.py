"""What a keeper tells those who subscribed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from overlay.presence import subscribers as module
from overlay.presence.actions import Action, Dial, SendTo
from overlay.presence.admission import Near
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.messages import Accused, AskAbout, ProofWanted, Said, Told
from overlay.presence.statements import Presence, Proof, Version, Word
from overlay.presence.timings import (
    CLIENT_CHALLENGE,
    CLIENT_RETRY_DOWN,
    ENOUGH_WORDS,
    FEW_BROUGHT,
    FORGOTTEN,
    HEARSAY_FORGOTTEN,
    LINKED_BURST,
    LINKED_RATE,
    MOST_UNTOLD,
    MOST_WITNESSED,
    NO_BEAT,
    PROOF_RATE,
    SUBSCRIPTION,
    UNKNOWN_BURST,
)
from overlay.presence.witness import WitnessState
from overlay.presence.witnessing import Witnessing

KEEPERS = ["own", *(f"keeper {number}" for number in range(7))]


def witnessing(near: Near = lambda _: KEEPERS) -> Witnessing:
    return Witnessing(
        "own",
        near=near,
        check=lambda *_: True,
        sign=lambda word: word,
        judges=lambda _: True,
        randomness=random.Random(1),
        number=1,
    )


def told(actions: Sequence[Action], kind: type) -> list[str]:
    return [action.to for action in actions if isinstance(action, SendTo) and isinstance(action.message, kind)]


def passes(keeper: Witnessing, now: float, until: float) -> list[Action]:
    """What a keeper does in that time; whom it dials doesn't answer."""
    actions: list[Action] = []
    while (now := max(now, keeper.wake_at)) <= until:
        done = keeper.wake(now)
        actions += done
        for action in done:
            if isinstance(action, Dial):
                actions += keeper.dialled(action.peer_id, DialOutcome.SILENT, now, now)
    return actions


def linked(actions: Sequence[Action]) -> list[str]:
    """The peers to which links are to be made."""
    return [action.to for action in actions if isinstance(action, SendTo) and action.needs_link]


def test_subscribers_are_told_as_many_words_of_others_as_are_enough() -> None:
    keeper = witnessing()
    keeper.told("host", Presence("host", Version(1)), 0.0)
    keeper.subscribed("replica", "host", SUBSCRIPTION, 0.0)
    passed_on = [
        told(keeper.said(name, Word(name, "host", Version(1), True, 1, 30), 1.0), Said) for name in KEEPERS[1:]
    ]
    assert passed_on == [["replica"]] * ENOUGH_WORDS + [[]] * (len(passed_on) - ENOUGH_WORDS)
    late = told(keeper.subscribed("late", "host", SUBSCRIPTION, 2.0), Said)
    assert late == ["late"] * len(passed_on)


def test_subscriptions_are_bounded_in_all_until_some_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUBSCRIPTIONS", 2)
    keeper = witnessing()
    for replica, host, now in (("a", "one", 0.0), ("b", "two", 0.0), ("c", "one", 1.0), ("d", "two", SUBSCRIPTION + 2)):
        keeper.subscribed(replica, host, SUBSCRIPTION, now)
    now = SUBSCRIPTION + 3
    for host, subscribers in (("one", []), ("two", ["d"])):
        assert told(keeper.told(host, Presence(host, Version(1)), now), Told)[: len(subscribers)] == subscribers
        assert "c" not in told(keeper.told(host, Presence(host, Version(2)), now), Told)


def test_hosts_that_one_peer_names_in_a_flood_take_neither_time_nor_places() -> None:
    asked = list[str]()

    def near(host: str) -> Sequence[str]:
        asked.append(host)
        return KEEPERS

    keeper = witnessing(near)
    keeper.told("host", Presence("host", Version(1)), 0.0)
    for number in range(2 * MOST_WITNESSED):
        keeper.subscribed("flood", f"ghost {number}", SUBSCRIPTION, 1.0)
        keeper.asked("flood", AskAbout(f"other ghost {number}", bytes(8), Version(1)), 1.0)
    assert len(keeper.hosts) <= UNKNOWN_BURST + 1
    assert len(asked) <= 3 * UNKNOWN_BURST
    for peer in range(20):
        for number in range(500):
            keeper.subscribed(f"flood {peer}", f"ghost {peer} {number}", SUBSCRIPTION, 2.0)
    assert len(keeper.hosts) <= MOST_UNTOLD + 1
    assert told(keeper.subscribed("replica", "host", SUBSCRIPTION, 3.0), Told) == ["replica"]


def test_one_peer_that_asks_without_end_uses_up_no_proofs_of_others() -> None:
    keeper = witnessing()
    keeper.told("host", Presence("host", Version(1)), 0.0)
    ask = AskAbout("host", bytes(8), Version(1))
    passed_on = sum(len(told(keeper.asked("flood", ask, second / 100), ProofWanted)) for second in range(3000))
    assert passed_on <= 30 * PROOF_RATE / 4
    assert told(keeper.asked("replica", ask, 30.0), ProofWanted) == ["host"]


def test_a_stranger_has_nobody_kept() -> None:
    keeper = witnessing()
    keeper.told("stranger", Presence("host", Version(1)), 0.0)
    keeper.told("stranger", Presence("client", Version(1), via=("node",)), 0.0)
    keeper.asked("replica", AskAbout("named", bytes(8), Version(1)), 0.0)
    keeper.told("stranger", Presence("named", Version(1), via=("node",)), 0.0)
    assert {*keeper.hosts} == {"named"}
    assert keeper.presence_of("named") is None
    keeper.told("node", Presence("client", Version(1), via=("node",)), 0.0)
    keeper.told(KEEPERS[1], Presence("host", Version(1)), 0.0)
    assert {*keeper.hosts} == {"named", "client", "host"}
    keeper.told("stranger", Presence("host", Version(2)), 0.0)
    assert keeper.presence_of("host") == Presence("host", Version(2)), "it is signed, and known already"


def test_a_peer_keeps_nobody_to_whom_others_are_nearer_because_another_keeper_says_so() -> None:
    keeper = witnessing(lambda _: [*KEEPERS[1:], "nearer"])
    keeper.told(KEEPERS[1], Presence("host", Version(1)), 0.0)
    assert {*keeper.hosts} == set()
    keeper.told("host", Presence("host", Version(1)), 0.0)
    assert {*keeper.hosts} == {"host"}, "who just came has yet to learn of others"


def test_another_keeper_that_tells_of_hosts_without_end_takes_no_places_of_those_that_were_heard() -> None:
    keeper = witnessing()
    keeper.told("dead", Presence("dead", Version(1)), 0.0)
    keeper.dialled("dead", DialOutcome.REFUSED, 0.0, 0.0)
    keeper.told("node", Presence("client", Version(1), via=("node",)), 0.0)
    for liar in KEEPERS[1:]:
        for number in range(2 * MOST_WITNESSED):
            keeper.told(liar, Presence(f"{liar} {number}", Version(1)), number / 20)
    assert len(keeper.hosts) <= MOST_WITNESSED
    assert keeper.state_of("dead") is WitnessState.DOWN
    assert keeper.presence_of("client") is not None


def test_a_node_that_brings_clients_without_end_takes_neither_others_places_nor_those_of_the_dead() -> None:
    keeper = witnessing()
    keeper.told("dead", Presence("dead", Version(1)), 0.0)
    keeper.dialled("dead", DialOutcome.REFUSED, 0.0, 0.0)
    for number in range(FEW_BROUGHT):
        keeper.told("node", Presence(f"client {number}", Version(1), via=("node",)), 0.0)
    for number in range(2 * MOST_WITNESSED):
        keeper.told("flood", Presence(f"fake {number}", Version(1), via=("flood", "ghost")), 1.0)
    keeper.told("node", Presence("late", Version(1), via=("node",)), 2.0)
    keeper.told("host", Presence("host", Version(1)), 2.0)
    kept = {*keeper.hosts}
    assert len(kept) == MOST_WITNESSED
    assert {"dead", "late", "host", *(f"client {number}" for number in range(FEW_BROUGHT))} < kept


def test_made_up_nodes_of_many_clients_cost_few_links() -> None:
    keeper = witnessing()
    for number in range(1000):
        via = "flood", *(f"ghost {number} {each}" for each in range(3))
        keeper.told("flood", Presence(f"fake {number}", Version(1), via=via), 0.0)
    ended = 2 * CLIENT_CHALLENGE
    tried = [to for to in linked(passes(keeper, 0.0, ended)) if to != "flood"]
    assert LINKED_BURST <= len(tried) <= LINKED_BURST + LINKED_RATE * ended
    keeper.unreached("flood")
    assert len(linked(passes(keeper, ended, ended + 60))) <= 60 * LINKED_RATE + 1, "no more than the others"


def test_a_node_that_told_of_its_client_is_always_linked_to_for_it_until_it_was_not_reached() -> None:
    keeper = witnessing()
    for number in range(200):
        client = Presence(f"client {number}", Version(1), via=("one", "other"))
        keeper.told("one", client, 0.0)
        keeper.told("other", client, 0.0)
    keeper.unreached("one")
    keeper.told("one", Presence("client 0", Version(1), via=("one", "other")), 0.5)
    asked = [linked(keeper.asked("replica", AskAbout(f"client {each}", bytes(8), Version(1)), 1.0)) for each in (0, 1)]
    assert asked[0] == ["one", "other"]
    assert [linked(keeper.client_gone("other", f"client {each}", 2.0)).count("other") for each in range(200)] == [
        1
    ] * 200


def test_a_client_whose_nodes_were_never_heard_is_forgotten_soon_after_its_death_and_others_are_not() -> None:
    keeper = witnessing()
    keeper.told(KEEPERS[1], Presence("told of", Version(1), via=("node",)), 0.0)
    keeper.told(KEEPERS[1], Presence("host", Version(1)), 0.0)
    keeper.told("node", Presence("brought", Version(1), via=("node",)), 0.0)
    now = CLIENT_CHALLENGE + 2 * NO_BEAT
    passes(keeper, 0.0, now)
    assert {keeper.state_of(host) for host in ("told of", "host", "brought")} == {WitnessState.DOWN}
    passes(keeper, now, now + HEARSAY_FORGOTTEN + 100)
    assert {*keeper.hosts} == {"brought"}
    passes(keeper, now + HEARSAY_FORGOTTEN + 100, now + FORGOTTEN + 1.25 * CLIENT_RETRY_DOWN[1])
    assert {*keeper.hosts} == set()


def test_a_client_that_proves_itself_through_its_node_counts_as_heard() -> None:
    keeper = witnessing()
    keeper.told(KEEPERS[1], Presence("client", Version(1), via=("node",)), 0.0)
    challenges = [
        action.message
        for action in passes(keeper, 0.0, CLIENT_CHALLENGE)
        if isinstance(action, SendTo) and isinstance(action.message, ProofWanted)
    ]
    keeper.proven("node", Proof("client", Version(1), challenges[-1].nonce, "own"), CLIENT_CHALLENGE)
    passes(keeper, CLIENT_CHALLENGE, 4 * CLIENT_CHALLENGE + HEARSAY_FORGOTTEN)
    assert keeper.state_of("client") is WitnessState.DOWN


def test_a_client_that_is_down_is_challenged_ever_more_rarely_but_at_once_when_a_node_tells_of_it() -> None:
    keeper, client = witnessing(), Presence("client", Version(1), via=("node",))
    keeper.told("node", client, 0.0)
    keeper.client_gone("node", "client", 0.0)
    day = 86_000.0
    assert len(told(passes(keeper, 0.0, day), ProofWanted)) < day / CLIENT_RETRY_DOWN[1] * 1.25 + 50
    assert keeper.state_of("client") is WitnessState.DOWN
    for _ in range(100):
        keeper.told("node", client, day)
    challenges = [
        action.message
        for action in passes(keeper, day, day + 1)
        if isinstance(action, SendTo) and isinstance(action.message, ProofWanted)
    ]
    assert len(challenges) == 1
    accused = keeper.proven("node", Proof("client", Version(1), challenges[0].nonce, "own"), day + 1)
    assert told(accused, Accused) == ["node"]
