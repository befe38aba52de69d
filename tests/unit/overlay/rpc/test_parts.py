"""Large values encoded in parts: the bytes are cbor2's, and each part is made quickly."""

from __future__ import annotations

import time
from collections import OrderedDict
from itertools import pairwise
from typing import Any, Final, NamedTuple

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.limits.decoder import MAX_CONTAINERS, MAX_DEPTH, MAX_ITEMS, decode_counted
from overlay.rpc.framing import FrameError, encode_item
from overlay.rpc.parts import MOST_AT_ONCE, is_small, parts_of
from tests.attacks.fuzz.driver import is_within

LONGEST: Final = 0.01  # seconds for one part, of a machine that nothing else slows down
TRIES: Final = 3


class Pair(NamedTuple):
    left: object
    right: object


def items_of(value: object) -> int:
    """The oracle: items in an encoding, one by one."""
    if isinstance(value, dict):
        return 1 + sum(items_of(key) + items_of(inner) for key, inner in value.items())
    return 1 + sum(map(items_of, value)) if isinstance(value, list | tuple) else 1


def containers_of(value: object) -> int:
    """The oracle: lists and maps in an encoding."""
    if isinstance(value, dict):
        return 1 + sum(map(containers_of, value.values()))
    return 1 + sum(map(containers_of, value)) if isinstance(value, list | tuple) else 0


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
FEW = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text() | st.binary(), inner, max_size=5)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=20,
)


def many(count: int, few: Any) -> Any:
    return st.sampled_from(
        [
            [few] * count,
            (few,) * count,
            {str(number): few for number in range(count)},
            [[few] * count],
            [few, {b"x": [few] * count}, few],
            [[few] * (count // 2)] * 2,
        ]
    )


@settings(deadline=None)
@given(value=FEW)
def test_few_items_are_one_part(value: object) -> None:
    assert is_small(value)
    assert [*parts_of(value)] == [encode_item(value)]


@settings(deadline=None, max_examples=60)
@given(value=st.tuples(st.integers(1, 3 * MOST_AT_ONCE), FEW).flatmap(lambda chosen: many(*chosen)))
def test_parts_joined_are_what_cbor2_makes_of_the_whole(value: object) -> None:
    count = items_of(value)
    assert is_small(value) is (count <= MOST_AT_ONCE)
    if count <= MAX_ITEMS and containers_of(value) <= MAX_CONTAINERS:
        parts = [*parts_of(value)]
        assert b"".join(parts) == cbor2.dumps(value)
        assert (len(parts) > 1) is (count > MOST_AT_ONCE)
    else:
        with pytest.raises(FrameError, match=r"more than (40000 items|10000 lists and maps)"):
            b"".join(parts_of(value))


@pytest.mark.parametrize("length", [0, 23, 24, 255, 256, 4000, 4001, 39_000])
def test_lengths_are_told_as_by_cbor2(length: int) -> None:
    for value in ([0] * length, [[0] * length, [[]] * 10]):
        assert b"".join(parts_of(value)) == cbor2.dumps(value)
    half = {str(number): 0 for number in range(length // 2)}
    assert b"".join(parts_of([half])) == cbor2.dumps([half])


def test_what_is_refused_as_a_whole_is_refused_in_parts() -> None:
    in_itself: list[object] = [0] * MOST_AT_ONCE
    in_itself.append(in_itself)
    deep: list[object] = [0] * MOST_AT_ONCE
    for _ in range(MAX_DEPTH):
        deep = [deep]
    for value in (in_itself, deep, [object()] * 5000, [cbor2.CBORTag(65535, 1)] * 5000):
        with pytest.raises(FrameError):
            b"".join(parts_of(value))
    for value in ([0] * (MAX_ITEMS + 1), [[]] * (MAX_CONTAINERS + 1), [[{}]] * (MAX_CONTAINERS // 2)):
        with pytest.raises(FrameError):
            b"".join(parts_of(value))


def test_the_deepest_that_is_decoded_is_encoded() -> None:
    deep: list[object] = [0] * MOST_AT_ONCE
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert decode_counted(b"".join(parts_of(deep)))[0] == deep


def test_what_changes_meanwhile_is_cbor_all_the_same() -> None:
    numbers: list[object] = [*range(20_000)]
    by_name: dict[str, object] = {str(number): number for number in range(5000)}
    parts: list[bytes] = []
    for part in parts_of([numbers, by_name]):
        parts.append(part)
        numbers.append(None)
        by_name.pop(next(iter(by_name)))
    decode_counted(b"".join(parts))


@pytest.mark.parametrize(
    "value",
    [
        [[]] * 9_900,
        [[[]] * 9_900],
        [[[]] * 3_300] * 2 + [{}] * 3_300,
        [{"a": [1, {}]}] * 3_300,
        {str(number): [] for number in range(9_900)},
        [2**60] * 39_000,
        [b"x" * 25] * 39_000,
        [[[0] * MOST_AT_ONCE, 0]] * 9,
    ],
    ids=lambda value: str(value)[:20],
)
def test_each_part_is_made_quickly(value: object) -> None:
    slowest: list[float] = []
    for _ in range(TRIES):
        parts, times = parts_of(value), [time.thread_time()]
        while next(parts, None) is not None:
            times.append(time.thread_time())
        slowest.append(max(after - before for before, after in pairwise(times)))
    assert is_within(min(slowest), LONGEST), slowest
