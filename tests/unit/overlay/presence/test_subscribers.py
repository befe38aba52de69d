"""Who is told of which host, and how many at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.presence import subscribers as module
from overlay.presence.subscribers import Subscribers
from overlay.presence.timings import MOST_SUBSCRIBERS, SUBSCRIPTION, SUBSCRIPTIONS_LOOKED_AT


def test_a_subscription_lasts_as_long_as_was_asked_for_but_not_longer_than_it_may() -> None:
    subscribers = Subscribers()
    subscribers.add("short", "host", 5.0, 0.0)
    subscribers.add("long", "host", 2 * SUBSCRIPTION, 0.0)
    assert subscribers.of("host", 4.0) == ["short", "long"]
    assert subscribers.of("host", 5.0) == ["long"]
    assert subscribers.of("host", SUBSCRIPTION) == []
    assert subscribers.of("other", 0.0) == []


def test_a_host_has_so_many_subscribers_and_who_is_one_may_stay_one() -> None:
    subscribers = Subscribers()
    for number in range(MOST_SUBSCRIBERS + 5):
        subscribers.add(str(number), "host", 10.0, 0.0)
    assert len(subscribers.of("host", 0.0)) == MOST_SUBSCRIBERS
    subscribers.add("0", "host", 20.0, 5.0)
    subscribers.add("late", "host", 20.0, 11.0)
    assert subscribers.of("host", 11.0) == ["0", "late"]


def test_what_has_ended_at_other_hosts_is_looked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUBSCRIPTIONS", 2)
    subscribers = Subscribers()
    subscribers.add("a", "one", 1.0, 0.0)
    subscribers.add("b", "two", 5.0, 0.0)
    subscribers.add("c", "three", 60.0, 2.0)
    assert subscribers.of("three", 2.0) == ["c"], "a's has ended"
    subscribers.add("d", "four", 60.0, 6.0)
    assert subscribers.of("four", 6.0) == [], "it was looked a moment ago"
    subscribers.add("d", "four", 60.0, 2.0 + SUBSCRIPTIONS_LOOKED_AT)
    assert subscribers.of("four", 2.0 + SUBSCRIPTIONS_LOOKED_AT) == ["d"]


replicas = st.sampled_from("abcd")
hosts = st.sampled_from(["one", "two", "three"])


@given(st.lists(st.tuples(replicas, hosts, st.sampled_from([1.0, 3.0, 0.0]), st.floats(0.0, 2.0))))
def test_whatever_comes_there_are_never_more_and_a_host_that_is_dropped_makes_room(
    events: list[tuple[str, str, float, float]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "MOST_SUBSCRIPTIONS", 4)
        patched.setattr(module, "MOST_SUBSCRIBERS", 3)
        patched.setattr(module, "SUBSCRIPTIONS_LOOKED_AT", 0.0)
        subscribers, now = Subscribers(), 0.0
        for replica, host, seconds, pause in events:
            now += pause
            if not seconds:
                subscribers.drop_host(host)
                assert subscribers.of(host, now) == []
                continue
            total = sum(len(subscribers.of(each, now)) for each in ("one", "two", "three"))
            before = subscribers.of(host, now)
            subscribers.add(replica, host, seconds, now)
            has_room = replica in before or (total < 4 and len(before) < 3)
            assert (replica in subscribers.of(host, now)) == has_room
