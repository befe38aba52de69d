"""Builtins as scripts call them: forms of arguments, texts of errors, and nothing but what is listed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from aqua_compat.builtins.array import Array
from aqua_compat.builtins.json import Json
from aqua_compat.builtins.kad import Kad
from aqua_compat.builtins.math import Cmp, Math
from aqua_compat.builtins.op import Op
from aqua_compat.builtins.peer import Peer
from aqua_compat.builtins.sig import Sig
from aqua_compat.builtins.trust_graph import TrustGraph
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.steps import CallRequest, CallResult
from aqua_compat.particles.host_calls.host_calls import HostCalls, native
from aqua_compat.particles.host_calls.host_services import peer_timeout
from aqua_compat.rpc.server import caller
from tests.unit.aqua_compat.particles.scripts import CLIENT, a_holding, a_particle

VECTORS_KEY = "BFcwLVjs1hL3kdh5Ty8HTwo5GrZA7XrngmpgfL7QZb8U"


class Probe:
    async def option(self, value: bool | Annotated[list[bool], Meta(max_length=1)] | None = None) -> bool:
        return bool(value[0] if isinstance(value, list) and value else value)

    async def who(self) -> str:
        return caller()

    async def broken(self) -> None:
        raise ValueError("no such thing")

    async def large(self) -> str:
        return "x" * 2000


SERVICES = {
    "op": native(Op()),
    "math": native(Math()),
    "cmp": native(Cmp()),
    "array": native(Array()),
    "json": native(Json()),
    "probe": native(Probe()),
    "peer": {"timeout": peer_timeout},
}


async def result_of(service: str, function: str, *arguments: Any) -> CallResult:
    context = Context(a_particle(), "a client", trio.current_time() + 10, a_holding())
    calls = HostCalls(SERVICES, 1000)  # of this run: its time slices are told in the time of one
    return await calls.call(context, CallRequest(service, function, list(arguments), []))


async def value_of(service: str, function: str, *arguments: Any) -> Any:
    result = await result_of(service, function, *arguments)
    assert result.ret_code == 0, result
    return json.loads(result.result)


async def error_of(service: str, function: str, *arguments: Any) -> str:
    result = await result_of(service, function, *arguments)
    assert result.ret_code == 1, result
    text: str = json.loads(result.result)
    return text


@pytest.mark.parametrize(
    ("service", "function", "arguments", "value"),
    [
        ("op", "noop", [], None),
        ("op", "identity", [{"a": [1]}], {"a": [1]}),
        ("op", "array", [1, "a", []], [1, "a", []]),
        ("op", "array_length", [[1, 2]], 2),
        ("op", "concat", [[1], [2, 3], []], [1, 2, 3]),
        ("op", "concat_strings", ["a", "b", "c"], "abc"),
        ("op", "string_to_b58", [VECTORS_KEY], "NYp32mbsujMEYwbb4uMZNY8EdqZ8P9ukWUR47Dnkwu9jom3bTaSgKwCurcAQ"),
        ("op", "string_from_b58", ["NYp32mbsujMEYwbb4uMZNY8EdqZ8P9ukWUR47Dnkwu9jom3bTaSgKwCurcAQ"], VECTORS_KEY),
        ("op", "bytes_to_b58", [[0, 255]], "15Q"),
        ("op", "bytes_from_b58", ["15Q"], [0, 255]),
        ("op", "sha256_string", ["hello, world!"], "QmVQ8pg6L1tpoWYeq6dpoWqnzZoSLCh7E96fCFXKvfKD3u"),
        ("math", "add", [2, -3], -1),
        ("math", "sub", [2, 3], -1),
        ("math", "div", [-7, 2], -3),
        ("math", "rem", [-7, 2], -1),
        ("math", "pow", [-1, 2**32 - 1], -1),
        ("math", "pow", [2, 62], 2**62),
        ("math", "log", [10, 1000], 3),
        ("math", "fmul", [10.0, 0.66], 6),
        ("cmp", "gt", [2, 1], True),
        ("cmp", "lte", [2, 1], False),
        ("cmp", "cmp", [1, 2], -1),
        ("array", "sum", [[1, -2, 3]], 2),
        ("array", "sum", [[]], 0),
        ("array", "dedup", [["b", "a", "b"]], ["b", "a"]),
        ("array", "intersect", [["a", "b", "a"], ["b", "a", "c"]], ["a", "b"]),
        ("array", "diff", [["a", "b", "a"], ["b"]], ["a"]),
        ("array", "sdiff", [["a", "b", "a"], ["b", "c"]], ["a", "c"]),
        ("array", "slice", [[1, "b", None], 1, 3], ["b", None]),
        ("array", "slice", [[1], 1, 1], []),
        ("array", "length", [[1, 2]], 2),
        ("json", "obj", [], {}),
        ("json", "obj", ["a", 1, "b", [None]], {"a": 1, "b": [None]}),
        ("json", "obj_pairs", [[["a", 1], ["a", 2]]], {"a": 2}),
        ("json", "put", [{"a": 1}, "b", {"c": 2}], {"a": 1, "b": {"c": 2}}),
        ("json", "puts", [{"a": 1}, "a", 2, "b", 3], {"a": 2, "b": 3}),
        ("json", "puts_pairs", [{"a": 1}, [["b", "2"]]], {"a": 1, "b": "2"}),
        ("json", "parse", [' {"a": [1, 2.5, null, "\\u00e9"]} '], {"a": [1, 2.5, None, "é"]}),
        ("json", "stringify", [{"a": [1, True, None, "é"]}], '{"a":[1,true,null,"é"]}'),
    ],
)
async def test_builtin_gives(service: str, function: str, arguments: list[Any], value: Any) -> None:
    assert await value_of(service, function, *arguments) == value


@pytest.mark.parametrize(
    ("service", "function", "arguments", "text"),
    [
        ("op", "concat_strings", ["a", 1], "Expected `str`"),
        ("op", "array_length", [], "missing a required argument"),
        ("op", "array_length", ["text"], "not an array: str"),
        ("op", "concat", [[1], {"a": 1}], "not an array: dict"),
        ("op", "bytes_to_b58", [[1] * 1025], "length <= 1024"),
        ("op", "string_from_b58", ["0"], "Invalid character"),
        ("op", "bytes_from_b58", ["1" * 10**5], "letters"),
        ("math", "add", [2**63 - 1, 1], "no i64"),
        ("math", "add", [2**63, 0], "<= 9223372036854775807"),
        ("math", "pow", [2, 64], "no i64"),
        ("math", "div", [1, 0], "division by zero"),
        ("math", "log", [1, 5], "no such logarithm"),
        ("array", "sum", [[2**63 - 1, 1, -1]], "no i64"),
        ("array", "sum", [["1"]], "Expected `int`"),
        ("array", "dedup", [[1]], "Expected `str`"),
        (
            "array",
            "slice",
            [[1, 2], 1, 3],
            "slice indexes out of bounds. start index: 1, end index: 3, array length: 2",
        ),
        ("array", "slice", [[1, 2], 2, 1], "out of bounds"),
        ("array", "length", [{}], "not an array: dict"),
        ("json", "obj", ["a", 1, "b"], "No value for key '\"b\"'"),
        ("json", "obj", [1, 2], "All keys must be of type string"),
        ("json", "put", [[], "a", 1], "Expected `object`"),
        ("json", "obj_pairs", [[["a"]]], "length 2"),
        ("json", "parse", ["{"], "error parsing json {"),
        ("json", "parse", ["[" * 100_000], "error parsing json ["),
        ("json", "parse", [" " * 200_000], "at most 131072 are parsed"),
        ("peer", "timeout", [-1, "x"], "milliseconds"),
        ("peer", "timeout", [True, "x"], "milliseconds"),
        ("probe", "broken", [], "no such thing"),
        ("probe", "large", [], "the result has 2002 bytes"),
    ],
)
async def test_builtin_fails(service: str, function: str, arguments: list[Any], text: str) -> None:
    assert text in await error_of(service, function, *arguments)


async def test_call_with_more_arguments_than_are_checked_at_once_is_an_error() -> None:
    assert await value_of("op", "array", *range(256)) == list(range(256))
    assert await error_of("op", "array", *range(257)) == "257 arguments, more than 256"


@pytest.mark.parametrize("builtin", [Op, Math, Cmp, Array, Json, Kad, Peer, TrustGraph, Sig])
def test_builtins_give_what_json_can_say_as_it_is(builtin: type) -> None:
    """So results are encoded without being walked in Python, and bytes in them would become base64."""
    for _, function in inspect.getmembers(builtin, inspect.iscoroutinefunction):
        assert not has_bytes(get_type_hints(function)["return"]), function


def has_bytes(form: Any) -> bool:
    if isinstance(form, type) and issubclass(form, msgspec.Struct):
        return any(map(has_bytes, get_type_hints(form).values()))
    return form is bytes or any(map(has_bytes, get_args(form)))


async def test_json_value_is_encoded_without_a_walk_through_it() -> None:
    class Unwalkable(list[object]):
        def __iter__(self) -> Iterator[object]:
            raise AssertionError("walked")

    assert await value_of("op", "identity", Unwalkable([[1], {"a": [2]}])) == [[1], {"a": [2]}]


async def test_unknown_service_and_function_fail_with_the_originals_text() -> None:
    assert await error_of("greeter", "greet") == "Service with id 'greeter' not found (function greet)"
    assert await error_of("op", "__init__") == "Service with id 'op' not found (function __init__)"


@pytest.mark.parametrize(("arguments", "value"), [([], False), ([[]], False), ([True], True), ([[True]], True)])
async def test_option_is_absent_empty_plain_or_in_an_array(arguments: Sequence[Any], value: bool) -> None:
    assert await value_of("probe", "option", *arguments) is value


async def test_option_with_more_than_one_value_is_an_error() -> None:
    assert "length <= 1" in await error_of("probe", "option", [True, False])


async def test_builtin_knows_who_initiated_the_particle() -> None:
    assert await value_of("probe", "who") == CLIENT.peer_id


async def test_timeout_gives_its_message_after_its_time_but_not_after_the_particles_end(autojump_clock) -> None:
    began = trio.current_time()
    assert await value_of("peer", "timeout", 3000, "now") == "now"
    assert trio.current_time() - began == pytest.approx(3)
    began = trio.current_time()
    assert await value_of("peer", "timeout", 2**62, "now") == "now"
    assert trio.current_time() - began == pytest.approx(10)


async def test_deeply_nested_value_is_an_error() -> None:
    nested: list[Any] = []
    for _ in range(50_000):
        nested = [nested]
    assert await error_of("op", "identity", nested) == "a value is nested too deeply"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
FUNCTIONS = [(service, function) for service in ("op", "math", "cmp") for function in SERVICES[service]]


@given(st.sampled_from(FUNCTIONS), st.lists(VALUES, max_size=4))
def test_any_arguments_give_json_or_an_error(function: tuple[str, str], arguments: list[Any]) -> None:
    async def call() -> None:
        result = await result_of(*function, *arguments)
        assert result.ret_code in (0, 1)
        json.loads(result.result)

    trio.run(call)
