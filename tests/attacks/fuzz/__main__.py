"""`python -m tests.attacks.fuzz --count 1000000 [--seed S] [--only NAME]`: a report per parser, and every fault."""

from __future__ import annotations

import argparse
import logging
import sys
import time

import structlog

from tests.attacks.fuzz.driver import BUDGET, run
from tests.attacks.fuzz.parsers import PARSERS


def main() -> int:
    """Whether any input was a fault."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attacks.fuzz", description=__doc__)
    arguments.add_argument("--count", type=int, default=1_000_000, help="inputs of all parsers together")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", default="", help="parsers whose name has this in it")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parsers = [parser for parser in PARSERS if given.only in parser.name]
    started, faults = time.monotonic(), 0
    for parser in parsers:
        report = run(parser, given.seed, -(-given.count // len(parsers)))
        print(report, flush=True)
        for fault in report.faults[:20]:
            print(f"    {fault}", flush=True)
        faults += len(report.faults)
    print(
        f"{faults} faults within {time.monotonic() - started:.0f} s; budget {BUDGET * 1000:.0f} ms, seed {given.seed}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
