"""Answers as Consul writes them."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from aqua_compat.http.message import JSON, HttpReply
from aqua_compat.http.problems import Problem


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
