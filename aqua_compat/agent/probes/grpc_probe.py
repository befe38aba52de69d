"""`grpc`: asks a server by gRPC's health protocol (`grpc.health.v1.Health/Check`).

Its two messages are a text in field 1, and a number in field 1; so there is nothing to generate.
"""

from __future__ import annotations

from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import trio

from aqua_compat.agent.check_state import CheckResult, CheckState
from aqua_compat.agent.definitions import GrpcCheck
from aqua_compat.agent.probes.connection import Tls, connected, reason_of

_MOST_ANSWER: Final = 4_096  # bytes
_PIECE: Final = 16_384
_STATUS: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_CODES: Final = {"5": "it doesn't know the service", "12": "it doesn't speak the health protocol"}


class _NoAnswer(Exception):
    """The server's answer is none; the text says why."""


async def probe_grpc(check: GrpcCheck) -> CheckResult:
    """What the server says of the service."""
    tls = Tls(check.tls_verify, check.tls_server_name, check.tls_ca, ("h2",)) if check.tls else None
    try:
        async with connected(check.host, check.port, tls) as stream:
            status = _status_in(await _asked(stream, check))
    except (OSError, trio.BrokenResourceError, h2.exceptions.ProtocolError) as error:
        return CheckResult(CheckState.CRITICAL, f"{check.host}:{check.port}: {reason_of(error)}")
    except _NoAnswer as error:
        return CheckResult(CheckState.CRITICAL, f"{check.host}:{check.port}: {error}")
    name = _STATUS.get(status, str(status))
    return CheckResult(CheckState.PASSING if name == "SERVING" else CheckState.CRITICAL, f"gRPC says {name}")


async def _asked(stream: trio.abc.Stream, check: GrpcCheck) -> bytes:
    """The body of the answer. Raises _NoAnswer."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    number = connection.get_next_available_stream_id()
    headers = {
        ":method": "POST",
        ":scheme": "https" if check.tls else "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": f"{check.host}:{check.port}",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "aqua-registry",
    }
    connection.send_headers(number, list(headers.items()))
    connection.send_data(number, _framed(_request(check.service)), end_stream=True)
    answer = bytearray()
    while True:
        await stream.send_all(connection.data_to_send())
        piece = bytes(await stream.receive_some(_PIECE))
        if not piece:
            raise _NoAnswer("it hung up")
        for event in connection.receive_data(piece):
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                _check_headers({_text(name): _text(value) for name, value in event.headers or ()})
            elif isinstance(event, h2.events.DataReceived):
                answer += event.data or b""
                if len(answer) > _MOST_ANSWER:
                    raise _NoAnswer("its answer is too long")
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise _NoAnswer("it refused the request")
            elif isinstance(event, h2.events.StreamEnded):
                return bytes(answer)


def _text(given: bytes | str) -> str:
    """A header's name or value; what else a server tells may be in any encoding."""
    return given if isinstance(given, str) else given.decode(errors="replace")


def _check_headers(headers: dict[str, str]) -> None:
    status, code = headers.get(":status", "200"), headers.get("grpc-status", "0")
    if status != "200":
        raise _NoAnswer(f"HTTP {status}")
    if code != "0":
        raise _NoAnswer(_CODES.get(code, f"gRPC status {code} {headers.get('grpc-message', '')}"))


def _request(service: str) -> bytes:
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


def _status_in(answer: bytes) -> int:
    """The status in a framed message: field 1, and 0 where that is left out. Raises _NoAnswer."""
    message = answer[5:]
    if len(answer) < 5 or answer[0] or int.from_bytes(answer[1:5], "big") != len(message):
        raise _NoAnswer("its answer isn't of the health protocol")
    if not message:
        return 0
    if len(message) != 2 or message[0] != 0x08 or message[1] > 0x7F:
        raise _NoAnswer("its answer isn't of the health protocol")
    return message[1]
