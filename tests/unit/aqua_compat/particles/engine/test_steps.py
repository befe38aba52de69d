"""Calls of a step, as the interpreter hands them out: what is decoded, and what would take too long to be."""

from __future__ import annotations

import gc
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.particles.engine.msgpack_scan import has_at_most, objects_in
from aqua_compat.particles.engine.steps import (
    MOST_OBJECTS,
    MOST_RESULTS,
    MSGPACK,
    CallResult,
    build_results,
    parse_requests,
)
from aqua_compat.particles.errors import InterpreterFailed
from aqua_compat.particles.settings import AquaSettings
from aqua_compat.schema.json_codec import to_json
from registry.settings import RegistrySettings
from tests.unit.registry.builders import a_key, a_record, identity

MOST_BYTES = AquaSettings().max_requests


def requests(*calls: list[Any]) -> bytes:
    """As the interpreter gives them, of calls with these arguments."""
    packed = msgspec.msgpack.encode
    raw = {
        number: {"service_id": "s", "function_name": "f", "arguments": packed(one), "tetraplets": packed([[]])}
        for number, one in enumerate(calls, start=1)
    }
    return MSGPACK + packed(raw)


@pytest.mark.parametrize("one", [[], {}, "ab"])
def test_objects_of_all_calls_are_counted_before_they_are_decoded(one: Any) -> None:
    half = [one] * (MOST_OBJECTS // 2)
    with pytest.raises(InterpreterFailed, match="more than 131072 arrays, maps and strings"):
        parse_requests(requests([half], [half]), MOST_BYTES)
    assert parse_requests(requests([half]), MOST_BYTES)[1].arguments == [half]


def test_no_garbage_is_collected_while_arrays_are_made() -> None:
    raw = requests([[[]] * (MOST_OBJECTS // 2)])
    collections: list[str] = []
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        parse_requests(raw, MOST_BYTES)
        assert len(collections) <= 2, "one afterwards"
        assert gc.isenabled()
        with pytest.raises(InterpreterFailed):
            parse_requests(MSGPACK + b"\xc1", MOST_BYTES)
        assert gc.isenabled()
    finally:
        gc.callbacks.pop()


def test_numbers_are_bounded_by_bytes_alone() -> None:
    many = [200] * (MOST_OBJECTS * 2)
    assert parse_requests(requests([many]), MOST_BYTES)[1].arguments == [many]


def test_text_that_only_looks_like_many_objects_is_decoded() -> None:
    text = "Привет " * 50_000
    assert parse_requests(requests([text]), MOST_BYTES)[1].arguments == [text]


def test_all_records_of_a_resource_from_several_replicas_fit() -> None:
    key = a_key()
    record = to_json(a_record(key.id, value="v" * 40, relay_id=(identity(9).peer_id,)))
    groups = [[record] * RegistrySettings().records_per_key] * 13
    raw = requests([groups])
    assert len(raw) > 0.9 * MOST_BYTES
    assert parse_requests(raw, MOST_BYTES)[1].arguments == [groups]


@pytest.mark.parametrize(("letter", "size"), [("x", 1), ("語", 4)])
def test_results_of_one_step_are_bounded_by_bytes_and_the_rest_fail(letter: str, size: int) -> None:
    quarter = CallResult(0, letter * (MOST_RESULTS // size // 4))
    built = msgspec.msgpack.decode(build_results(dict.fromkeys(range(6), quarter))[len(MSGPACK) :])
    assert [built[str(number)]["ret_code"] for number in range(6)] == [0] * 4 + [1] * 2
    assert built["0"]["result"] == quarter.result
    assert json.loads(built["5"]["result"]) == "results that came together have more than 8388608 bytes"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=300)),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
    max_leaves=20,
)


def counted(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(counted, value))
    if isinstance(value, dict):
        return 1 + sum(map(counted, (*value.keys(), *value.values())))
    return int(isinstance(value, str | bytes | msgspec.msgpack.Ext))


@given(VALUES)
def test_objects_are_counted_as_they_are(value: Any) -> None:
    packed, count = msgspec.msgpack.encode(value), counted(value)
    assert objects_in(packed, 10**6) == count
    assert has_at_most(count, [packed])
    assert has_at_most(2 * count, [packed, packed])
    if count:
        assert not has_at_most(count - 1, [packed])
        assert not has_at_most(2 * count - 1, [packed, packed])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_messagepack_are_counted_all_the_same(packed: bytes) -> None:
    assert 0 <= objects_in(packed, 10) <= 11
