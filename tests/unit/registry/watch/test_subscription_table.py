"""The table of subscriptions: places of members and clients apart, bounds, and both of its indexes in step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.settings import WatchSettings
from registry.watch.subscription_table import MAX_SUBSCRIPTIONS_OF_PEER, Subscription, SubscriptionTable


def a_subscription(until: float = 1.0, *, is_member: bool = True) -> Subscription:
    return Subscription(until, on_topic=True, is_member=is_member, serves=False)


def test_clients_that_fill_their_places_leave_those_of_members() -> None:
    table = SubscriptionTable(WatchSettings(max_watchers=2, max_client_watchers=3))
    for number in range(3):
        client = f"client {number}"
        assert table.has_place_for(client, "key", is_member=False)
        table.put(client, "key", a_subscription(is_member=False))
    assert not table.has_place_for("another client", "key", is_member=False)
    assert table.has_place_for("client 0", "key", is_member=False), "it has its place"
    assert table.has_place_for("member", "key", is_member=True)
    table.end("client 1", "key")
    assert table.has_place_for("another client", "key", is_member=False)


def test_one_watcher_has_so_many_subscriptions_and_no_more() -> None:
    table = SubscriptionTable(WatchSettings())
    for number in range(MAX_SUBSCRIPTIONS_OF_PEER):
        table.put("greedy", str(number), a_subscription())
    assert not table.has_place_for("greedy", "one more", is_member=True)
    assert table.has_place_for("greedy", "0", is_member=True)
    assert table.has_place_for("modest", "one more", is_member=True)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from([None, 1.0, 2.0, 3.0])), max_size=40
    ),
    st.floats(0, 4),
)
def test_the_table_is_what_a_set_of_pairs_would_be(steps: list[tuple[str, str, float | None]], now: float) -> None:
    table, model = SubscriptionTable(WatchSettings()), dict[tuple[str, str], float]()
    for watcher, key_id, until in steps:
        if until is None:
            model.pop((watcher, key_id), None)
            assert table.end(watcher, key_id) == all(key != key_id for _, key in model)
        else:
            table.put(watcher, key_id, a_subscription(until))
            model[watcher, key_id] = until
        assert len(table) == len(model)
        for key in "xyz":
            assert set(table.watchers(key)) == {each for each, of in model if of == key}
            assert (key in table) == any(of == key for _, of in model)
        for each in "abc":
            assert set(table.keys_of(each)) == {of for who, of in model if who == each}
    assert sorted(table.expired(now)) == sorted(pair for pair, until in model.items() if until <= now)
