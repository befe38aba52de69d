"""Arguments are taken by position, as Python would, and checked by annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.rpc.dispatch import BadCall, Function


def nothing() -> None: ...


def two(first: int, second: Any, /) -> None: ...


def some_optional(first: Any, second: int = 2, third: Any = 3, *, named: int = 4) -> None: ...


def variadic(first: Any, second: Any = 2, *rest: int, **named: Any) -> None: ...


def only_variadic(*rest: Any) -> None: ...


@given(st.sampled_from([nothing, two, some_optional, variadic, only_variadic]), st.lists(st.integers(), max_size=6))
def test_as_many_arguments_are_taken_as_the_signature_takes(
    function: Callable[..., Any], arguments: list[object]
) -> None:
    fault = mismatch(function, arguments)
    if fault is None:
        assert Function("f", function).arguments(arguments) == arguments
    else:
        with pytest.raises(BadCall) as refused:
            Function("f", function).arguments(arguments)
        assert str(refused.value) == f"{fault} in {Function('f', function).described}"


def mismatch(function: Callable[..., Any], arguments: list[object]) -> TypeError | None:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("function", "arguments", "wrong"),
    [
        (two, ["1", 2], "first"),
        (some_optional, ["anything", "2"], "second"),
        (variadic, ["anything", "anything", 3, "4"], "rest"),
    ],
)
def test_each_argument_is_checked_by_its_own_annotation(
    function: Callable[..., Any], arguments: list[object], wrong: str
) -> None:
    with pytest.raises(BadCall, match=f"^{wrong}: "):
        Function("f", function).arguments(arguments)


Few = Annotated[int, msgspec.Meta(le=3)]


def bounded(few: Few, several: list[Few] | None = None, /, kind: Literal["a.b"] = "a.b", rest=None) -> None: ...  # type: ignore[no-untyped-def]


Given = Union[list[int], bytes]  # noqa: UP007 - as it is where types are made at run time


def alternatives(given: Given, count: Optional[int] = None) -> None: ...  # noqa: UP045 - as above


async def made(of: msgspec.Raw) -> msgspec.Raw:
    return of


def test_a_signature_shows_what_callers_give_without_names_of_the_module() -> None:
    assert Function("f", bounded).described == (
        "f(few: int, several: list[int] | None = None, /, kind: Literal['a.b'] = 'a.b', rest=None) -> None"
    )
    assert Function("f", alternatives).described == "f(given: list[int] | bytes, count: int | None = None) -> None"
    assert Function("f", made).described == "f(of: Raw) -> Raw"
