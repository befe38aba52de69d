"""Calls of a service, directly and through a relay, beside a bare stream, py-libp2p's request/response and gRPC.

    python -m benchmarks.calls [--seconds S] [--rounds N]

Every caller is this process and every server one of its own, all on loopback, all over TLS, all echoing bytes. The
ways take turns, and the figures are those of each one's fastest round: whatever else the machine does only slows down.
Limits are raised where the defaults would turn calls away: a service takes 80, a relay passes 32 on to one peer.
"""

from __future__ import annotations

import argparse
import logging
import platform
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

import structlog
import trio

from benchmarks.call_methods.bare_stream import on_our_host, on_stock_host
from benchmarks.call_methods.grpc_aio import grpc_aio
from benchmarks.call_methods.method import Measure
from benchmarks.call_methods.ours import direct, relayed
from benchmarks.call_methods.request_response import request_response
from benchmarks.timing import Timing

DIRECT, RELAYED, GRPC = "direct", "via relay", "gRPC asyncio"
BARE, BARE_ON_OURS, LIBP2P = "libp2p bare stream", "bare stream on our host", "libp2p request/response"
METHODS: Final = {
    DIRECT: direct,
    RELAYED: relayed,
    BARE: on_stock_host,
    BARE_ON_OURS: on_our_host,
    LIBP2P: request_response,
    GRPC: grpc_aio,
}
SIZES: Final = {"100 B": 100, "100 kB": 100_000}
IN_FLIGHT: Final = (1, 100)
WARM_UP: Final = 0.3  # share of a round
FEWEST: Final = 100  # calls in a round, for its percentiles


class Case(NamedTuple):
    """How large a body is, and how many calls are made at the same time."""

    size: str
    in_flight: int

    def __str__(self) -> str:
        return f"{self.size}, {self.in_flight} in flight"


CASES: Final = [Case(size, in_flight) for size in SIZES for in_flight in IN_FLIGHT]
Timings = dict[tuple[str, Case], Timing]


async def measured(methods: dict[str, Measure], seconds: float, rounds: int) -> Timings:
    """The fastest of each way's rounds, for each case."""
    timings: Timings = {}
    for case in CASES:
        payload = bytes(SIZES[case.size])
        counts = {name: await _round_size(measure, payload, case, seconds) for name, measure in methods.items()}
        found: dict[str, list[Timing]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, measure in methods.items():
                found[name].append(await measure(payload, counts[name], case.in_flight))
        for name, of_rounds in found.items():
            timings[name, case] = fastest = max(of_rounds, key=lambda timing: timing.per_second)
            print(f"{name:26} {case!s:22} {fastest}", flush=True)
    return timings


async def _round_size(measure: Measure, payload: bytes, case: Case, seconds: float) -> int:
    """How many calls take about `seconds`; warms the way up."""
    few = await measure(payload, max(20, case.in_flight), case.in_flight)
    warm = await measure(payload, max(20, int(few.per_second * seconds * WARM_UP)), case.in_flight)
    return max(FEWEST, case.in_flight, int(warm.per_second * seconds))


def ratios(timings: Timings) -> Iterator[tuple[str, str, list[float]]]:
    """What is compared, the aim, and the ratio for each case."""

    def latency(method: str, reference: str, percentile: str) -> list[float]:
        return [
            getattr(timings[method, case], percentile) / getattr(timings[reference, case], percentile) for case in CASES
        ]

    for method, reference, aim in (
        (DIRECT, GRPC, "at most 3"),
        (DIRECT, BARE, "at most 1.3"),
        (DIRECT, BARE_ON_OURS, "none: what our calls add to a stream"),
        (RELAYED, DIRECT, "at most 2.5"),
    ):
        for percentile in ("p50", "p99"):
            yield f"{method} / {reference}, {percentile}", aim, latency(method, reference, percentile)
    throughput = [timings[DIRECT, case].per_second / timings[LIBP2P, case].per_second for case in CASES]
    yield f"{DIRECT} / {LIBP2P}, calls per second", "at least 10, of 100 in flight", throughput


def report(timings: Timings) -> None:
    """Prints how the ways of calling compare, beside what is aimed at."""
    print(f"\n{'ratio':54}" + "".join(f"{case!s:>23}" for case in CASES) + "   aim")
    for what, aim, of_cases in ratios(timings):
        print(f"{what:54}" + "".join(f"{ratio:23.2f}" for ratio in of_cases) + f"   {aim}")


async def main(seconds: float, rounds: int) -> None:
    """Measures, as the command line says."""
    print(f"Python {platform.python_version()}, the fastest of {rounds} rounds of {seconds:g} s")
    async with AsyncExitStack() as stack:
        methods = {name: await stack.enter_async_context(method()) for name, method in METHODS.items()}
        timings = await measured(methods, seconds, rounds)
    report(timings)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls per way and round [1]")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts [3]")
    arguments = parser.parse_args()
    trio.run(partial(main, arguments.seconds, arguments.rounds))
