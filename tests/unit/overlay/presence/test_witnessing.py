"""What a keeper tells those who subscribed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from overlay.presence import witnessing as module
from overlay.presence.actions import Action, SendTo
from overlay.presence.messages import AskAbout, ProofWanted, Said, Told
from overlay.presence.statements import Presence, Version, Word
from overlay.presence.timings import ENOUGH_WORDS, MOST_UNTOLD, MOST_WITNESSED, PROOF_RATE, SUBSCRIPTION, UNKNOWN_BURST
from overlay.presence.witnessing import Near, Witnessing

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
