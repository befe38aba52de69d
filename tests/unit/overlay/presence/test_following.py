"""At whom a replica subscribes, and that it always does again."""

from __future__ import annotations

import random
from collections.abc import Sequence

from overlay.presence.actions import Action, SendTo
from overlay.presence.dial_outcome import DialOutcome
from overlay.presence.following import Following
from overlay.presence.host_hiding import ViewState
from overlay.presence.messages import AskAbout, SubscribeTo
from overlay.presence.statements import Presence, Version, Word
from overlay.presence.timings import LOOKED_AT, MOST_LINKED, SUBSCRIBED_AGAIN, SUBSCRIBED_AT, WITNESSES

KEEPERS = [f"keeper {number}" for number in range(8)]


def following() -> Following:
    return Following(
        "own",
        check=lambda *_: True,
        judges=lambda _: True,
        randomness=random.Random(1),
    )


def subscribed(actions: Sequence[Action]) -> list[str]:
    """At whom, for a while."""
    return [
        action.to
        for action in actions
        if isinstance(action, SendTo) and isinstance(action.message, SubscribeTo) and action.message.seconds
    ]


def test_another_witness_is_taken_for_one_that_was_not_reached() -> None:
    known = following()
    first, second, other = subscribed(known.follow("host", KEEPERS, 0.0))
    assert other in KEEPERS[WITNESSES:]
    (third,) = subscribed(known.unreached(first, 1.0))
    assert third not in (first, second)
    assert not list(known.subscribed_at(first))
    assert list(known.subscribed_at(third)) == ["host"]


def test_the_only_witness_is_asked_again_when_it_was_not_reached_or_its_link_broke() -> None:
    for lose in (Following.unreached, Following.link_ended):
        known = following()
        assert subscribed(known.follow("host", ["own", "keeper"], 0.0)) == ["keeper"]
        assert subscribed(lose(known, "keeper", 1.0)) == []
        assert known.wake_at <= 1.0 + SUBSCRIBED_AGAIN
        assert subscribed(known.wake(1.0 + SUBSCRIBED_AGAIN)) == ["keeper"]


def test_nobody_is_asked_again_where_there_are_no_others() -> None:
    known = following()
    assert len(subscribed(known.follow("host", KEEPERS[: SUBSCRIBED_AT - 1], 0.0))) == SUBSCRIBED_AT - 1
    known.wake(10.0)
    assert known.wake_at > 100.0


def test_links_for_subscriptions_are_bounded_and_shared() -> None:
    known = following()
    for number in range(100):
        keepers = [f"keeper {number} {place}" for place in range(7)]
        known.follow(f"host {number}", ["shared", *keepers], 0.0)
    assert len([*known.witnesses]) == MOST_LINKED
    assert len([*known.subscribed_at("shared")]) == 100


def test_a_host_of_which_nobody_would_tell_is_looked_at_when_somebody_reads_of_it() -> None:
    known = following()
    for number in range(MOST_LINKED):
        known.follow(f"host {number}", [f"keeper {number} {place}" for place in range(8)], 0.0)
    known.follow("host", KEEPERS, 0.0, Presence("host", Version(1)))
    assert not any(known.subscribed_at(keeper) for keeper in KEEPERS)
    looks = [known.looked_for("host", at) for at in (0.0, LOOKED_AT / 2, LOOKED_AT + 1.0)]
    asked = [[a.to for a in actions if isinstance(a, SendTo) and isinstance(a.message, AskAbout)] for actions in looks]
    assert [len(each) for each in asked] == [2, 0, 0]  # the first look is still under way
    assert not known.looked_for("host 0", 0.0)


def asked(actions: Sequence[Action]) -> list[str]:
    """Of whom a proof is wanted."""
    return [action.to for action in actions if isinstance(action, SendTo) and isinstance(action.message, AskAbout)]


def hidden(outcome: DialOutcome, *, spoken: Sequence[str]) -> Following:
    """Who hides a host at 10 s whose dial failed so, and of which these keepers just said that it is down."""
    known = following()
    known.follow("host", KEEPERS, 0.0, Presence("host", Version(1)))
    known.hinted(KEEPERS[0], "host", 9.0)
    for witness in spoken:
        known.said(witness, Word(witness, "host", Version(1), True, 1, 30), 9.5)
    known.dialled("host", outcome, 9.6, 9.8)
    known.wake(10.0)
    view = known.view_of("host")
    assert view is not None
    assert view.state is ViewState.HIDDEN
    return known


def test_about_a_hidden_host_those_are_not_asked_who_just_said_that_it_is_down() -> None:
    known = hidden(DialOutcome.SILENT, spoken=KEEPERS[:3])
    assert asked(known.wake(11.3)) == KEEPERS[3:WITNESSES]
    assert asked(known.wake(17.0)) == KEEPERS[:WITNESSES]


def test_two_are_asked_about_a_hidden_host_whose_machine_refuses_our_dials() -> None:
    known = hidden(DialOutcome.REFUSED, spoken=KEEPERS[:3])
    assert asked(known.wake(11.3)) == KEEPERS[3:WITNESSES]
    known.dialled("host", DialOutcome.REFUSED, 11.3, 11.4)
    assert len({*asked(known.wake(17.0))} & {*KEEPERS[:WITNESSES]}) == 2
