"""Calls as text."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.cli.expression import Call, ExpressionError, parse_call


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("f()", ()),
        ("f ( )", ()),
        ('f("a b", 1, -2, true, false, nil, [])', ("a b", 1, -2, True, False, None, [])),
        ('f([1, ["x"], []])', ([1, ["x"], []],)),
        ('f("\\"\\u00e9\\\\")', ('"\u00e9\\',)),
        ("f(id, other)", ("the id", {"a": 1})),
    ],
)
def test_call_is_a_name_and_values(text: str, arguments: tuple[object, ...]) -> None:
    assert parse_call(text, {"id": "the id", "other": {"a": 1}}) == Call("f", arguments)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "expected the name of a function at character 1 of the call, found the end"),
        ("f", r"expected '\(' at character 2"),
        ("f(1", r"expected ',' or '\)' at character 4 of the call, found the end"),
        ("f(1 2)", r"expected ',' or '\)' at character 5"),
        ("f(1,)", r"expected a value at character 5 of the call, found '\)'"),
        ("f(1) + 1", "at character 6"),
        ("f(1) g", "expected nothing after the call"),
        ("f(id)", "id has no value; give one, as in --data"),
        ("f('a')", "expected a value at character 3"),
        ("f(1.5)", "expected a whole number"),
        ("f(" + "9" * 30 + ")", "at most 20 digits"),
        ('f("\\q")', "escapes of JSON"),
        ("f(" + "[" * 50, "nested deeper than 16"),
        ("1()", "expected the name of a function"),
    ],
)
def test_what_is_no_call_is_told_with_its_place(text: str, error: str) -> None:
    with pytest.raises(ExpressionError, match=error):
        parse_call(text, {})


@given(st.text(max_size=60))
def test_any_text_is_a_call_or_an_expression_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        parse_call(text, {})


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_every_string_can_be_written(value: str) -> None:
    assert parse_call(f"f({json.dumps(value)})", {}) == Call("f", (value,))
