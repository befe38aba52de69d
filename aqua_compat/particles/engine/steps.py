"""What a step of the interpreter takes and gives, and how calls and their results are encoded for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from aqua_compat.particles.engine.msgpack_scan import has_at_most
from aqua_compat.particles.errors import InterpreterFailed
from aqua_compat.particles.particle import MSGPACK
from overlay.limits.gc_pause import gc_paused

MOST_OBJECTS: Final = 131_072
"""Arrays, maps and strings in the calls of one step, which decoding makes in one go: numbers take a tenth of the time.
Of the bytes that a step's calls may have, records with all their fields and weights fill 2 MiB with fewer."""
MOST_RESULTS: Final = 8 * 2**20
"""Bytes of the results that one step takes, twice what a particle's data may have; more of them takes long to copy."""

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
_LONGEST_LETTER: Final = 4  # bytes in UTF-8
_TOO_LARGE: Final = CallResult(1, f'"results that came together have more than {MOST_RESULTS} bytes"')
_ARGUMENTS: Final = msgspec.msgpack.Decoder(list[Any])
_TETRAPLETS: Final = msgspec.msgpack.Decoder(list[list[Tetraplet]])


def parse_requests(raw: bytes, most: int) -> dict[int, CallRequest]:
    """The calls that a step makes, by their number.

    Raises InterpreterFailed for what isn't in this form, or has more than `most` bytes or MOST_OBJECTS.
    """
    if not raw:
        return {}
    if len(raw) > most:  # as Python objects they take up to 64 times as much
        raise InterpreterFailed(f"call requests of {len(raw)} bytes, more than {most}")
    if not raw.startswith(MSGPACK):
        raise InterpreterFailed("call requests in an unknown codec")
    try:
        requests = _REQUESTS.decode(raw[len(MSGPACK) :])
        encoded = {number: (bytes(one.arguments), bytes(one.tetraplets)) for number, one in requests.items()}
        if not has_at_most(MOST_OBJECTS, [part for parts in encoded.values() for part in parts]):
            raise InterpreterFailed(f"call requests with more than {MOST_OBJECTS} arrays, maps and strings")
        with gc_paused():
            return {
                number: CallRequest(
                    requests[number].service_id,
                    requests[number].function_name,
                    _ARGUMENTS.decode(arguments),
                    _TETRAPLETS.decode(tetraplets),
                )
                for number, (arguments, tetraplets) in encoded.items()
            }
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InterpreterFailed(f"call requests in an unknown form: {error}") from error


def build_results(results: Mapping[int, CallResult]) -> bytes:
    """Results of calls, as the interpreter takes them; those beyond MOST_RESULTS are failures."""
    left, built = MOST_RESULTS, dict[str, CallResult]()
    for number, result in results.items():
        left -= len(result.result) * (1 if result.result.isascii() else _LONGEST_LETTER)
        built[str(number)] = result if left >= 0 else _TOO_LARGE
    return MSGPACK + msgspec.msgpack.encode(built)
