"""Real nodes on sick machines: `python -m tests.faults [--seeds COUNT] [--first SEED] [--nodes N ...] [--faults S]`.

`--nodes 5 32` tries each seed with five nodes, then each with 32.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog
import trio

from tests.faults.namespaces import Namespaces, are_possible, reexecuted
from tests.faults.scenario import Scenario

INSIDE = "TESTS_FAULTS_INSIDE"
"""A variable of the environment that is set in the namespaces."""


def main() -> None:
    """Prints a line per seed; ends with those that failed, whose folders stay, and exit code 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds [3]")
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first of them [1]")
    parser.add_argument("--nodes", type=int, nargs="+", default=[5], help="how many nodes each, up to 200 [5]")
    parser.add_argument("--faults", type=float, default=20.0, help="seconds in which things go wrong [20]")
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        if not are_possible():
            sys.exit("this takes `ip` and `unshare`, and the right to make network namespaces")
        os.environ[INSIDE] = "yes"
        sys.exit(reexecuted("tests.faults", sys.argv[1:]))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    runs = range(arguments.first, arguments.first + arguments.seeds)
    namespaces = Namespaces(max(arguments.nodes))
    pairs = [(nodes, seed) for nodes in arguments.nodes for seed in runs]
    failed = [
        f"{seed} with {nodes} nodes" for nodes, seed in pairs if not _holds(seed, nodes, namespaces, arguments.faults)
    ]
    if failed:
        sys.exit(f"{len(failed)} of {len(pairs)} seeds failed: {', '.join(failed)}")
    print(f"all {len(pairs)} seeds held")


def _holds(seed: int, nodes: int, namespaces: Namespaces, faults: float) -> bool:
    """Runs a seed and prints its line; whether all held."""
    print(f"seed {seed}, {nodes} nodes:", end=" ", flush=True)
    folder, started = Path(tempfile.mkdtemp(prefix=f"faults-{seed}-")), time.perf_counter()
    try:
        outcome = trio.run(Scenario(seed, folder, namespaces, nodes, faults).run)
    except Exception:
        print(f"FAILED, logs in {folder}\n{traceback.format_exc()}", flush=True)
        return False
    _unmount(folder)
    told = ", ".join(f"{count} {fault}" for fault, count in sorted(outcome.faults.items()))
    print(
        f"{outcome.acknowledged} of {outcome.attempted} writes acknowledged, {outcome.killed} writers killed, "
        f"{outcome.reads} reads, {outcome.events} events; {told}; well after {outcome.settled} s, "
        f"{time.perf_counter() - started:.1f} s",
        flush=True,
    )
    return True


def _unmount(folder: Path) -> None:
    os.system(f"umount {folder}/node-*[0-9] 2>/dev/null")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
