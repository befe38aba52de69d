"""Calls one of a resource's providers, and the next when that one can't be called. Not async: any script can do it.

python examples/high_availability/caller.py --relay ADDRESS RESOURCE_ID "you"
"""

from __future__ import annotations

import argparse
import sys

from aqua_compat import BlockingClient, NoProvider, ServiceError


def call(relays: list[str], resource_id: str, whom: str) -> int:
    with BlockingClient(relays) as aqua:
        try:
            print(aqua.call_any(resource_id, "greet", whom, idempotent=True, timeout=20))
        except (NoProvider, ServiceError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("resource_id")
    parser.add_argument("whom")
    options = parser.parse_args()
    sys.exit(call(options.relay, options.resource_id, options.whom))
