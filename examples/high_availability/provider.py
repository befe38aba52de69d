"""One of several providers of the same service; needs neither a port nor an address of its own.

    python examples/high_availability/provider.py --relay ADDRESS NAME [RESOURCE_ID]

Without a resource id it makes the resource. Prints the id, then serves until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys

import trio

from aqua_compat import caller, connect


async def provide(relays: list[str], name: str, resource_id: str | None) -> None:
    async def greet(whom: str) -> str:
        return f"{name} greets {whom}, called by {caller()[-6:]}"

    async with connect(relays) as aqua:
        if resource_id is None:
            resource_id, errors = await aqua.createResource("greeters")
            if resource_id is None:
                sys.exit(f"the resource wasn't created: {errors}")
        async with aqua.provide(resource_id, "greeter", {"greet": greet}, value=name):
            print(resource_id, flush=True)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await anext(signals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("name")
    parser.add_argument("resource_id", nargs="?")
    options = parser.parse_args()
    trio.run(provide, options.relay, options.name, options.resource_id)
