"""`http`: asks a URL once, without following redirects, and looks at the status and the body."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11
import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import HttpCheck
from aqua_compat.agent.probes.connection import Tls, connected, reason_of
from overlay.tasks import in_thread

if TYPE_CHECKING:
    import regex

MOST_BODY: Final = 65_536  # bytes of an answer that are looked at
_MOST_HEADERS: Final = 32_768
_PIECE: Final = 16_384
_TOO_MANY_REQUESTS: Final = 429
_MATCHING: Final = 1.0  # seconds that looking for a pattern may take; some take for ever on some texts
_MATCHES: Final = 4  # that are looked for at the same time


async def probe_http(check: HttpCheck) -> CheckResult:
    """What one request came to."""
    parts = urlsplit(check.url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    tls = Tls(check.tls_verify, check.tls_server_name, check.tls_ca) if is_tls else None
    try:
        async with connected(host, parts.port or (443 if is_tls else 80), tls) as stream:
            status, body = await _asked(stream, check)
    except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
        return CheckResult(CheckState.CRITICAL, f"{check.url}: {reason_of(error)}")
    if status not in check.status if check.status else not 200 <= status <= 299:
        state = CheckState.WARNING if status == _TOO_MANY_REQUESTS and not check.status else CheckState.CRITICAL
        return CheckResult(state, f"HTTP {status}")
    if check.body:
        try:
            is_found = await in_thread(_is_found, check.body, body, limiter=_limiter())
        except TimeoutError:
            text = f"HTTP {status}; looking for {check.body[:100]!r} in its body takes more than {_MATCHING:g} s"
            return CheckResult(CheckState.CRITICAL, text)
        if not is_found:
            return CheckResult(CheckState.CRITICAL, f"HTTP {status}, without {check.body[:100]!r} in its body")
    return CheckResult(CheckState.PASSING, f"HTTP {status}")


async def _asked(stream: trio.abc.Stream, check: HttpCheck) -> tuple[int, bytes]:
    """Status and body of the answer; the body only as far as it is looked at."""
    parts = urlsplit(check.url)
    given = {name.lower() for name in check.headers}
    standing = {"Host": parts.netloc, "User-Agent": "aqua-registry", "Accept": "*/*", "Connection": "close"}
    headers = [(name, value) for name, value in standing.items() if name.lower() not in given]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEADERS)
    request = h11.Request(method=check.method, target=target, headers=[*headers, *check.headers.items()])
    await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_PIECE)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if not check.body:
                return status, b""
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= MOST_BODY:
                return status, bytes(body[:MOST_BODY])
        elif not isinstance(event, h11.InformationalResponse):
            return status, bytes(body)


def _is_found(pattern: str, body: bytes) -> bool:
    """For threads. Raises TimeoutError. Unlike `re` this has a deadline, and lets others run meanwhile."""
    return _pattern(pattern).search(body.decode(errors="replace"), timeout=_MATCHING, concurrent=True) is not None


@lru_cache(maxsize=256)
def _pattern(text: str) -> regex.Pattern[str]:
    import regex  # noqa: PLC0415 - 1.3 MB that most nodes don't need

    return regex.compile(text)


_LIMITER: Final = trio.lowlevel.RunVar[trio.CapacityLimiter | None]("patterns of checks", None)


def _limiter() -> trio.CapacityLimiter:
    limiter = _LIMITER.get()
    if limiter is None:
        limiter = trio.CapacityLimiter(_MATCHES)
        _LIMITER.set(limiter)
    return limiter
