"""Answers as Consul writes them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import trio

from aqua_compat.http.message import JSON, HttpReply
from aqua_compat.http.problems import Problem

ENCODED_AT_ONCE: Final = 256  # items: some 3 ms


class Answer(NamedTuple):
    """What is known of what is asked: its index, and all of it, to choose from."""

    number: int
    body: bytes


_HEADERS: Final = (
    ("Content-Type", JSON),
    ("X-Consul-KnownLeader", "true"),
    ("X-Consul-LastContact", "0"),
    ("X-Consul-Effective-Consistency", "stale"),
)


async def encoded(value: Any) -> bytes:
    """An answer's JSON. A list is encoded so many items at a time, others have their turn in between."""
    if not isinstance(value, list) or len(value) <= ENCODED_AT_ONCE:
        return msgspec.json.encode(value)
    pieces: list[bytes] = []
    for start in range(0, len(value), ENCODED_AT_ONCE):
        pieces.append(msgspec.json.encode(value[start : start + ENCODED_AT_ONCE])[1:-1])
        await trio.lowlevel.checkpoint()
    return b"[" + b",".join(pieces) + b"]"


def reply(answer: Answer) -> HttpReply:
    """An answer that has an index."""
    return HttpReply(200, [*_HEADERS, ("X-Consul-Index", str(answer.number))], answer.body)


def json_reply(value: object) -> HttpReply:
    """One that has none."""
    return HttpReply(200, [("Content-Type", JSON)], msgspec.json.encode(value))


def told(problem: Problem) -> HttpReply:
    """What was wrong, in a text."""
    headers = [each for each in problem.all_headers() if each[0] != "Content-Type"]
    return HttpReply(
        problem.status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{problem.detail}\n".encode()
    )
