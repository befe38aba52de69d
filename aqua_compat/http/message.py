"""A request as it came, and what is sent back for it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from aqua_compat.http.problems import Problem

MAX_SEGMENTS: Final = 16
MAX_PARAMETERS: Final = 32
JSON: Final = "application/json"

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

Headers = Sequence[tuple[str, str]]
Body = bytes | AsyncGenerator[bytes, None]
"""Whole, or piece by piece: a piece each time that the client took the last one."""


class AccessLevel(IntEnum):
    """What somebody may do; each includes those before."""

    READ = 1
    WRITE = 2
    OPERATE = 3


class HttpRequest(NamedTuple):
    """A request. `path`: its decoded parts; `headers`: by names in lower case, the values of a repeated one joined."""

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes
    grant: AccessLevel = AccessLevel.READ
    client: str = ""
    """The address that it comes from; empty on the socket."""


class HttpReply(NamedTuple):
    """What is sent back. `is_endless`: a body that goes on until the client leaves or the node stops."""

    status: int
    headers: Headers
    body: Body
    is_endless: bool = False


def path_and_query(target: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The decoded parts of a request's target. Raises Problem.

    Nothing is put together or left out: `..`, empty parts and encoded slashes stay what they are, and match nothing.
    """
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        raise Problem.invalid("the request's target doesn't begin with a slash")
    parts = path[1:].split("/")
    if len(parts) > MAX_SEGMENTS:
        raise Problem.invalid(f"the path has more than {MAX_SEGMENTS} parts")
    try:
        fields = parse_qsl(
            _checked(query),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except (ValueError, UnicodeDecodeError):
        raise Problem.invalid(f"the query isn't UTF-8, or has more than {MAX_PARAMETERS} parameters") from None
    return tuple(map(_decoded, parts)), tuple(fields)


def _checked(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise Problem.invalid("a % in the request's target isn't followed by two hexadecimal digits")
    return text


def _decoded(part: str) -> str:
    try:
        return unquote_to_bytes(_checked(part)).decode()
    except UnicodeDecodeError:
        raise Problem.invalid("the path isn't UTF-8") from None
