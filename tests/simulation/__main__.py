"""Any number of seeds: `python -m tests.simulation [COUNT] [--first SEED] [--nodes NODES] [--faults S] [--repair S]`.

A thousand short ones: `python -m tests.simulation 1000 --nodes 12 --faults=100 --repair 60`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

import structlog

from tests.simulation.scenario import FAULTS, REPAIR, run


def main() -> None:
    """Prints a line per seed; ends with those that failed, and exit code 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10, help="how many seeds [10]")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them [1]")
    parser.add_argument("--nodes", type=int, default=20, help="how many nodes each [20]")
    parser.add_argument("--faults", type=float, default=FAULTS, help=f"seconds in which things go wrong [{FAULTS:g}]")
    parser.add_argument("--repair", type=float, default=REPAIR, help=f"seconds between comparisons [{REPAIR:g}]")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seeds, failed = range(arguments.first, arguments.first + arguments.count), []
    for seed in seeds:
        print(f"seed {seed}:", end=" ", flush=True)
        started = time.perf_counter()
        try:
            report = run(seed, arguments.nodes, faults=arguments.faults, repair=arguments.repair)
        except Exception:
            failed.append(seed)
            print(f"FAILED\n{traceback.format_exc()}", flush=True)
            continue
        print(
            f"{report.acknowledged} of {report.attempted} writes acknowledged, {report.left} left, "
            f"{report.reads} reads, "
            f"{report.crashes} crashes, {report.sick} sick, {report.rotten} rotten, "
            f"{report.messages} messages, {report.events} events, "
            f"{report.changes} changes of policies, {report.begun_anew} begun anew, "
            f"{report.refused} registrations refused, "
            f"{report.closed} links closed, "
            f"trace {report.trace[:16]}, {time.perf_counter() - started:.1f} s",
            flush=True,
        )
    if failed:
        sys.exit(f"{len(failed)} of {len(seeds)} seeds failed: {', '.join(map(str, failed))}")
    print(f"all {len(seeds)} seeds held")


if __name__ == "__main__":
    main()
