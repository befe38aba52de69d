from __future__ import annotations

from overlay.limits.token_bucket import TokenBuckets


def test_tokens_are_spent_owed_and_earned_back() -> None:
    buckets = TokenBuckets(rate=2.0, burst=4.0, debt=4.0)
    assert [buckets.take("peer", 0.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert buckets.debt("peer", 0.0) == 1.0
    assert buckets.debt("another", 0.0) == 0.0
    assert buckets.debt("peer", 1.5) == 0.0
    assert buckets.take("peer", 1.5)
    assert not buckets.take("peer", 1.5)


def test_refusals_are_free_without_a_debt() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0)
    assert [buckets.take("peer", 0.0) for _ in range(5)] == [True] + [False] * 4
    assert buckets.take("peer", 1.0)


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    buckets = TokenBuckets(rate=1.0, burst=2.0)
    assert buckets.take("peer", 10.0)
    assert buckets.take("peer", 5.0)
    assert not buckets.take("peer", 10.0)
    assert buckets.take("peer", 11.0)
