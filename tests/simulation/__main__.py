"""Any number of seeds: `python -m tests.simulation [COUNT] [--first SEED] [--nodes NODES] [--faults S] [--repair S]`.

A thousand short ones, in which each fault comes: `python -m tests.simulation 1000 --short --processes 2`.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Final

from tests.simulation.scenario import FAULTS, REPAIR
from tests.simulation.tried import tried

SHORT_NODES: Final = 6
SHORT_FAULTS: Final = 45.0  # seconds
SHORT_REPAIR: Final = 20.0  # seconds
SHORT_PACE: Final = 3.0


def main() -> None:
    """Prints a line per seed; ends with those that failed, and exit code 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10, help="how many seeds [10]")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them [1]")
    parser.add_argument("--nodes", type=int, help=f"how many nodes each [20; {SHORT_NODES}]")
    parser.add_argument("--faults", type=float, help=f"seconds in which things go wrong [{FAULTS:g}; {SHORT_FAULTS:g}]")
    parser.add_argument("--repair", type=float, help=f"seconds between comparisons [{REPAIR:g}; {SHORT_REPAIR:g}]")
    parser.add_argument("--pace", type=float, help=f"how many times as often things go wrong [1; {SHORT_PACE:g}]")
    parser.add_argument("--short", action="store_true", help="small networks, briefly: the second of these values")
    parser.add_argument("--processes", type=int, default=1, help="how many seeds at a time [1]")
    given = parser.parse_args()
    short = given.short
    one = partial(
        tried,
        nodes=given.nodes or (SHORT_NODES if short else 20),
        faults=given.faults or (SHORT_FAULTS if short else FAULTS),
        repair=given.repair or (SHORT_REPAIR if short else REPAIR),
        pace=given.pace or (SHORT_PACE if short else 1.0),
    )
    seeds, failed = range(given.first, given.first + given.count), []
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for seed, (held, line) in zip(seeds, pool.map(one, seeds), strict=True):
            print(f"seed {seed}: {line}", flush=True)
            if not held:
                failed.append(seed)
    if failed:
        sys.exit(f"{len(failed)} of {len(seeds)} seeds failed: {', '.join(map(str, failed))}")
    print(f"all {len(seeds)} seeds held")


if __name__ == "__main__":
    main()
