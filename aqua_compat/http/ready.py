"""Answers that are ready: given again and again until what they tell changes, without being made anew."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import h11
from cachetools import LRUCache

from aqua_compat.http.message import HttpReply, HttpRequest

LONGEST_KNOWN: Final = 2_048  # bytes of a request that is remembered
KNOWN: Final = 256  # requests that are

_BY_DEFAULT: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
_ANY_GET: Final = b"GET / HTTP/1.1\r\nHost: any\r\n\r\n"

KnownRequests = MutableMapping[bytes, HttpRequest]
"""What bytes mean that are a whole request, without a body, on a connection that goes on after it."""


class ReadyReply:
    """The answer to a GET. Its bytes are made once a second, for the date that is among them."""

    def __init__(self, reply: HttpReply, index: int = 0) -> None:
        """`reply`: with a whole body. `index`: by which who made it knows whether it still is the answer."""
        self.reply = reply
        self.index = index
        self._made_at = -1
        self._wire = b""

    def wire(self, now: int) -> bytes:
        """What is sent. `now`: seconds since 1970."""
        if now != self._made_at:
            self._made_at, self._wire = now, self._made(now)
        return self._wire

    def _made(self, now: int) -> bytes:
        assert isinstance(self.reply.body, bytes)
        protocol = h11.Connection(h11.SERVER)
        protocol.receive_data(_ANY_GET)
        for _ in ("the request", "its end"):
            protocol.next_event()
        head = h11.Response(
            status_code=self.reply.status, reason=reason(self.reply.status), headers=headers_of(self.reply, now)
        )
        return b"".join(
            protocol.send(each) or b"" for each in (head, h11.Data(data=self.reply.body), h11.EndOfMessage())
        )


AtHand = Callable[[HttpRequest], ReadyReply | None]
"""The answer to a request where it is ready; None where it has to be found, or what is wrong."""


def nothing_at_hand(request: HttpRequest) -> ReadyReply | None:  # noqa: ARG001 - as `AtHand` has it
    """Where every answer has to be found."""
    return None


def known_requests() -> KnownRequests:
    """Remembers what was asked last; for all connections of a server."""
    return LRUCache(KNOWN)


def headers_of(reply: HttpReply, now: int) -> list[tuple[str, str]]:
    """All headers of an answer but what the connection says of itself. `now`: seconds since 1970."""
    said = {name.lower() for name, _ in reply.headers}
    default = [(name, value) for name, value in _BY_DEFAULT if name.lower() not in said]
    headers = [*reply.headers, *default, ("Date", _date(now))]
    if isinstance(reply.body, bytes) and reply.status != HTTPStatus.NOT_MODIFIED:  # of that, it is the whole one's
        headers.append(("Content-Length", str(len(reply.body))))
    return headers


def reason(status: int) -> bytes:
    """What a status is called."""
    return HTTPStatus(status).phrase.encode()


@lru_cache(1)
def _date(now: int) -> str:
    """A time in seconds since 1970, as HTTP tells it."""
    return formatdate(now, usegmt=True)
