"""What an operation of the native API is: a row of its table, from which requests are routed, checked and answered, and
its description is made.

A result goes out as `{"schema": ..., "result": ..., "warnings": [...]}`, where `result` is what the command of the same
name prints with `--json`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import trio

from aqua_compat.http.message import JSON, AccessLevel, Body, HttpReply, HttpRequest
from aqua_compat.http.problems import Problem
from aqua_compat.schema.json_codec import Json, to_json

if TYPE_CHECKING:
    from aqua_compat.http.native_api import NativeApi

PREFIX: Final = "aqua-registry."
PIECE: Final = 64 * 1024  # bytes that are made ready at once: fewer than 10 ms of work

Schema = dict[str, Any]
"""A JSON Schema."""


class Parameter(NamedTuple):
    """A parameter in the path (`where`: "path") or the query. `parse` raises ValueError or TypeError."""

    name: str
    where: str
    about: str
    schema: Schema
    parse: Callable[[str], Any]
    default: Any = None
    is_required: bool = False
    repeats: bool = False


class Items(NamedTuple):
    """A result that is an array, which may be long: it is written item by item."""

    values: Iterable[object]


class Result(NamedTuple):
    """What an operation came to."""

    value: Items | Json
    warnings: Sequence[str] = ()


class OperationCall(NamedTuple):
    """An operation that is asked for: its parameters by name, defaults included, and its body, None without one."""

    request: HttpRequest
    parameters: dict[str, Any]
    body: Any


class HttpOperation(NamedTuple):
    """A row of the table. `path`: parts in braces are parameters. `result`: the schema id, without what all begin with;
    `shape`: the schema of its `result`. `answer` returns a whole HttpReply where that is no such result."""

    method: str
    path: str
    name: str
    about: str
    grant: AccessLevel
    parameters: tuple[Parameter, ...]
    body: type[msgspec.Struct] | None
    result: str
    shape: Schema
    answer: Callable[[NativeApi, OperationCall], Awaitable[Result | HttpReply]]
    status: int = 200
    media_type: str = JSON
    command: str = ""
    """The command that does the same."""
    is_bare: bool = False
    """Whether JSON that it answers is the result alone."""

    @property
    def schema_id(self) -> str:
        """What answers carry as `schema`."""
        return f"{PREFIX}{self.result}/1"

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its path."""
        return tuple(self.path[1:].split("/"))


def call_of(operation: HttpOperation, request: HttpRequest) -> OperationCall:
    """What is asked for, checked. Raises Problem."""
    given: dict[str, list[str]] = {}
    for name, value in request.query:
        given.setdefault(name, []).append(value)
    for part, value in zip(operation.parts, request.path, strict=True):
        if part.startswith("{"):
            given[part[1:-1]] = [value]
    parameters = {each.name: _argument(each, given.pop(each.name, [])) for each in operation.parameters}
    if given:
        known = ", ".join(each.name for each in operation.parameters if each.where == "query")
        raise Problem.invalid(f"unknown parameter {min(given)[:100]!r}; known here: {known or 'none'}")
    return OperationCall(request, parameters, _body_of(operation, request))


def _argument(parameter: Parameter, texts: list[str]) -> Any:
    if not texts:
        if parameter.is_required:
            raise Problem.invalid(f"the parameter {parameter.name} is missing: {parameter.about}")
        return parameter.default
    if len(texts) > 1 and not parameter.repeats:
        raise Problem.invalid(f"the parameter {parameter.name} is there {len(texts)} times")
    try:
        values = [parameter.parse(text) for text in texts]
    except (ValueError, TypeError) as error:
        what = str(error).removeprefix("it: ").removeprefix(f"{parameter.name} ")
        raise Problem.invalid(f"{parameter.name}: {what}") from None
    return tuple(values) if parameter.repeats else values[0]


def _body_of(operation: HttpOperation, request: HttpRequest) -> Any:
    if operation.body is None:
        if request.body:
            raise Problem.invalid("this takes no body")
        return None
    if not request.body:
        raise Problem.invalid("this needs a body, a JSON object")
    try:
        return msgspec.json.decode(request.body, type=operation.body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise Problem.invalid(f"the body: {error}") from None


async def reply_of(operation: HttpOperation, result: Result) -> HttpReply:
    """The answer with a result; a long one is made piece by piece, as the client takes it."""
    pieces = _pieces(operation.schema_id, result)
    first = next(pieces)
    await trio.lowlevel.checkpoint()
    second = next(pieces, None)
    body: Body = first if second is None else _chained(first, second, pieces)
    return HttpReply(operation.status, [("Content-Type", JSON)], body)


async def _chained(first: bytes, second: bytes, rest: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    yield second
    for piece in rest:  # made when the one before was sent, so that others have their turn
        yield piece


def _pieces(schema: str, result: Result) -> Iterator[bytes]:
    """The parts of the answer, of `PIECE` bytes about."""
    ready = bytearray(b'{"schema":' + msgspec.json.encode(schema) + b',"result":')
    if isinstance(result.value, Items):
        ready += b"["
        for position, value in enumerate(result.value.values):
            if len(ready) > PIECE:
                yield bytes(ready)
                ready.clear()
            ready += (b"," if position else b"") + msgspec.json.encode(to_json(value))
        ready += b"]"
    else:
        ready += msgspec.json.encode(result.value)
    ready += b',"warnings":' + msgspec.json.encode(list(result.warnings)) + b"}\n"
    yield bytes(ready)
