"""What is awaited of replicas that compare, against a list that forgets by the same rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.replication.awaited import Awaited

MOST, MOST_OF_ONE = 12, 5

ADDED = st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(1, 4))


def test_what_was_added_is_taken_once_and_in_order() -> None:
    awaited = Awaited[str](MOST, MOST_OF_ONE)
    for what in ("one", "two", "one"):
        awaited.add("a", what)
    assert (awaited.take("a"), awaited.take("a"), awaited.total) == (["one", "two"], [], 0)


@given(st.lists(ADDED | st.sampled_from("abcd"), max_size=60))
def test_it_is_bounded_of_one_replica_and_of_all_and_what_is_oldest_is_forgotten(steps: list[object]) -> None:
    awaited = Awaited[int](MOST, MOST_OF_ONE)
    expected: dict[str, list[tuple[int, int]]] = {}  # the replica that added last at the end
    for step in steps:
        if isinstance(step, tuple):
            peer, what, size = step
            of = expected.pop(peer, [])
            expected[peer] = of if any(what == known for known, _ in of) else [*of, (what, size)]
            while sum(size for _, size in expected[peer]) > MOST_OF_ONE:
                del expected[peer][0]
            while sum(size for of in expected.values() for _, size in of) > MOST:
                del expected[next(iter(expected))]
            awaited.add(peer, what, size)
        else:
            assert isinstance(step, str)
            assert awaited.take(step) == [what for what, _ in expected.pop(step, [])]
        assert awaited.total == sum(size for of in expected.values() for _, size in of) <= MOST
    for peer in "abcd":
        assert awaited.take(peer) == [what for what, _ in expected.get(peer, [])]
    assert awaited.total == 0
