"""`python -m tests.attacks.fuzz --count 1000000 [--seed S] [--only NAME]`: a report per parser, and every fault.

Each parser's inputs are tried in a process of its own, of bounded memory: so what ends one is told, and at which input.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

import structlog

from tests.attacks.fuzz.driver import BUDGET
from tests.attacks.fuzz.parsers import PARSERS
from tests.attacks.fuzz.share import Share, try_here, try_in_process


def main() -> int:
    """Whether any input was a fault, or ended its process."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attacks.fuzz", description=__doc__)
    arguments.add_argument("--count", type=int, default=1_000_000, help="inputs of all parsers together")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", default="", help="parsers whose name has this in it")
    arguments.add_argument("--share", help="what a process of its own is to try, as JSON")
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if given.share:
        return try_here(Share.of(given.share))
    names = [parser.name for parser in PARSERS if given.only in parser.name]
    if not names:
        arguments.error(f"no parser has {given.only!r} in its name")
    started, bad = time.monotonic(), 0
    for name in names:
        ending = try_in_process(Share(name, given.seed, -(-given.count // len(names))))
        if ending:
            bad += 1
            print(f"{name}: {ending}", flush=True)
    print(
        f"all {len(names)} parsers were tried, {bad} of them with faults, within {time.monotonic() - started:.0f} s; "
        f"budget {BUDGET * 1000:.0f} ms, seed {given.seed}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
