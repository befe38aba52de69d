"""How long decoding what a hostile script passes to its calls would hold up everything, and what counting first costs.

    python -m benchmarks.msgpack_scan

A decoder makes all objects in one call into C, and no other thread runs meanwhile: neither Trio's. The hostile calls
are as many bytes as one step may make, of the objects that take longest; the honest ones are the largest that fit.
Times are of the CPU, the best of several runs. The ratios are what to look at.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import msgspec

from aqua_compat.particles.engine.msgpack_scan import has_at_most
from aqua_compat.particles.engine.steps import MOST_OBJECTS
from aqua_compat.particles.settings import AquaSettings
from overlay.limits.gc_pause import gc_paused

BYTES = AquaSettings().max_requests
_ARGUMENTS = msgspec.msgpack.Decoder(list[Any])


def cpu_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The least CPU time of several runs."""
    best = float("inf")
    for _ in range(repeats):
        before = time.thread_time()
        work()
        best = min(best, time.thread_time() - before)
    return best * 1000


def decode(arguments: bytes) -> None:
    """Decodes a step's arguments as without the scan."""
    with gc_paused():
        _ARGUMENTS.decode(arguments)


def packed(one: object, most_bytes: int, most: int = 2**32) -> bytes:
    """An argument list with an array of as many of one thing as fit."""
    size = len(msgspec.msgpack.encode(one))
    return msgspec.msgpack.encode([[one] * min(most_bytes // size, most)])


def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    most_allowed = packed([], BYTES, MOST_OBJECTS - 2)
    assert has_at_most(MOST_OBJECTS, [most_allowed])
    bound = cpu_milliseconds(lambda: decode(most_allowed), repeats)
    print(f"{f'decoding {MOST_OBJECTS} empty arrays, the most allowed':52} {bound:7.1f} ms in one go")
    for name, one in (("empty arrays", []), ("empty maps", {}), ("short texts", "ab")):
        hostile = packed(one, BYTES)
        assert not has_at_most(MOST_OBJECTS, [hostile])
        unchecked = cpu_milliseconds(lambda: decode(hostile), repeats)  # noqa: B023 - runs within this round
        counted = cpu_milliseconds(lambda: has_at_most(MOST_OBJECTS, [hostile]), repeats)  # noqa: B023
        print(
            f"{f'{len(hostile) >> 10} KiB of {name}':52} {unchecked:7.1f} ms in one go, {unchecked / bound:.1f} x;"
            f" refused after {counted:.1f} ms, in which others run"
        )
    record = {"key_id": "k" * 44, "solution": list(range(200)), "timestamp_issued": 1_700_000_000, "value": "v" * 100}
    for name, most_bytes in (("a small call", 1024), ("the largest call", BYTES)):
        honest = packed(record, most_bytes)
        assert has_at_most(MOST_OBJECTS, [honest])
        decoding = cpu_milliseconds(lambda: decode(honest), repeats)  # noqa: B023
        counting = cpu_milliseconds(lambda: has_at_most(MOST_OBJECTS, [honest]), repeats)  # noqa: B023
        print(
            f"{f'{len(honest) >> 10} KiB of records, {name}':52} {decoding:7.3f} ms to decode,"
            f" {(decoding + counting) / decoding:.2f} x with counting first"
        )


if __name__ == "__main__":
    main()
