"""What a step of the interpreter takes and gives, and the bytes in which calls travel in and out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from aqua_compat.particles.errors import InterpreterFailed

MSGPACK: Final = b"\x81\x04"  # the multicodec 0x201 of MessagePack as an unsigned varint

Bytes = bytes | list[Annotated[int, Meta(ge=0, le=255)]]


class Tetraplet(Struct, frozen=True):
    """Where a value of an argument came from: a result of this function on this peer, and what was taken out of it."""

    peer_pk: str
    service_id: str
    function_name: str
    lens: str


class CallRequest(Struct, frozen=True):
    """A call that a script makes on this host. One list of tetraplets per argument."""

    service_id: str
    function_name: str
    arguments: list[Any]
    tetraplets: list[list[Tetraplet]]


class CallResult(Struct, frozen=True):
    """`result` is JSON text; of a failed call (`ret_code` not 0) that of a string."""

    ret_code: int
    result: str


class StepLimits(Struct, frozen=True, kw_only=True):
    """What the interpreter refuses by itself, in bytes."""

    script: int
    particle: int
    call_result: int
    calls: int
    """Of all calls that one step makes; ours, the interpreter has no such limit."""


class Step(Struct, frozen=True, kw_only=True):
    """Everything that one run needs. Times in milliseconds."""

    script: str
    previous: bytes
    incoming: bytes
    results: bytes
    init_peer_id: str
    current_peer_id: str
    timestamp: int
    ttl: int
    particle_id: str
    limits: StepLimits


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a step; `ret_code` 0 is success. `calls` by their number in the particle."""

    ret_code: int
    error: str
    data: bytes
    next_peers: list[str]
    calls: dict[int, CallRequest]
    calls_size: int = 0
    """Bytes of the calls with their arguments."""


class _RawRequest(Struct, frozen=True):
    service_id: str
    function_name: str
    arguments: Bytes
    tetraplets: Bytes


_REQUESTS: Final = msgspec.msgpack.Decoder(dict[int, _RawRequest])
_ARGUMENTS: Final = msgspec.msgpack.Decoder(list[Any])
_TETRAPLETS: Final = msgspec.msgpack.Decoder(list[list[Tetraplet]])


def parse_requests(raw: bytes, most: int) -> dict[int, CallRequest]:
    """Raises InterpreterFailed for what isn't in this form, or has more than `most` bytes."""
    if not raw:
        return {}
    if len(raw) > most:  # as Python objects they take up to 64 times as much
        raise InterpreterFailed(f"call requests of {len(raw)} bytes, more than {most}")
    if not raw.startswith(MSGPACK):
        raise InterpreterFailed("call requests in an unknown codec")
    try:
        return {
            number: CallRequest(
                request.service_id,
                request.function_name,
                _ARGUMENTS.decode(bytes(request.arguments)),
                _TETRAPLETS.decode(bytes(request.tetraplets)),
            )
            for number, request in _REQUESTS.decode(raw[len(MSGPACK) :]).items()
        }
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InterpreterFailed(f"call requests in an unknown form: {error}") from error


def build_results(results: Mapping[int, CallResult]) -> bytes:
    """Results of calls, as the interpreter takes them."""
    return MSGPACK + msgspec.msgpack.encode({str(number): result for number, result in results.items()})
