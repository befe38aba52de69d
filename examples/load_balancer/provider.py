"""One of several providers, which says with its record how much of the work it wants.

    python examples/load_balancer/provider.py --relay ADDRESS [--takes SECONDS] NAME WEIGHT [RESOURCE_ID]

Without a resource id it makes the resource. Prints the id, then serves until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

from aqua_compat import connect


async def provide(relays: list[str], name: str, weight: float, takes: float, resource_id: str | None) -> None:
    async def work() -> str:
        await trio.sleep(takes)
        return name

    async with connect(relays) as aqua:
        if resource_id is None:
            resource_id, errors = await aqua.createResource("workers")
            if resource_id is None:
                sys.exit(f"the resource wasn't created: {errors}")
        async with aqua.provide(resource_id, "worker", {"work": work}, value=str(weight)):
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                print(resource_id, flush=True)
                await anext(signals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--takes", type=float, default=0.0, metavar="SECONDS", help="that a call takes (default: 0)")
    parser.add_argument("name")
    parser.add_argument("weight", type=float)
    parser.add_argument("resource_id", nargs="?")
    options = parser.parse_args()
    trio.run(provide, options.relay, options.name, options.weight, options.takes, options.resource_id)
