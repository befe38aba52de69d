"""Spreads calls over the providers of a resource, and tells how many each got.

python examples/load_balancer/caller.py --relay ADDRESS --strategy weighted --calls 60 RESOURCE_ID
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Literal

import trio

from aqua_compat import NoProvider, ServiceError, connect

Strategy = Literal["random", "round robin", "least latency", "weighted"]
STRATEGIES: tuple[Strategy, ...] = ("random", "round robin", "least latency", "weighted")


async def spread(relays: list[str], resource_id: str, strategy: Strategy, calls: int) -> int:
    counts: Counter[str] = Counter()
    # While the resource is watched, its providers are at hand: the calls below ask nobody who they are.
    async with connect(relays) as aqua, aqua.watch(resource_id) as changes:
        await anext(changes)
        try:
            for _ in range(calls):
                counts[await aqua.call_any(resource_id, "work", strategy=strategy, idempotent=True)] += 1
        except (NoProvider, ServiceError) as error:
            print(f"error: {error}", file=sys.stderr)
    for name, count in sorted(counts.items()):
        print(f"{name:12} {count:4} {'#' * count}")
    return 0 if counts.total() == calls else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--strategy", choices=STRATEGIES, default="weighted")
    parser.add_argument("--calls", type=int, default=60, metavar="N")
    parser.add_argument("resource_id")
    options = parser.parse_args()
    sys.exit(trio.run(spread, options.relay, options.resource_id, options.strategy, options.calls))
