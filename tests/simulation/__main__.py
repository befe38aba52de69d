"""Any number of seeds: `python -m tests.simulation [COUNT] [--first SEED] [--nodes NODES] [--faults SECONDS]`."""

from __future__ import annotations

import argparse
import logging
import time

import structlog

from tests.simulation.scenario import FAULTS, run


def main() -> None:
    """Prints a line per seed, and stops at the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10, help="how many seeds [10]")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them [1]")
    parser.add_argument("--nodes", type=int, default=20, help="how many nodes each [20]")
    parser.add_argument("--faults", type=float, default=FAULTS, help=f"seconds in which things go wrong [{FAULTS:g}]")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for seed in range(arguments.first, arguments.first + arguments.count):
        print(f"seed {seed}:", end=" ", flush=True)
        started = time.perf_counter()
        report = run(seed, arguments.nodes, faults=arguments.faults)
        print(
            f"{report.acknowledged} of {report.attempted} writes acknowledged, {report.crashes} crashes, "
            f"{report.messages} messages, {report.events} events, {report.closed} links closed, "
            f"trace {report.trace[:16]}, {time.perf_counter() - started:.1f} s"
        )


if __name__ == "__main__":
    main()
