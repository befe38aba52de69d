"""Serves payments, if it is certified, and goes on under each newer certificate.

    python examples/permissions/worker.py --key FILE                       # prints its peer id
    python examples/permissions/worker.py --key FILE --relay ADDRESS --certificates FOLDER RESOURCE_ID

Prints `serving` once it is registered. Stops on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import trio

from aqua_compat import Identity, NotRegistered, connect, load_or_create_identity


def pay(amount: int) -> str:
    return f"paid {amount}"


async def serve(relays: list[str], identity: Identity, certificates: Path | None, resource_id: str) -> None:
    async with connect(relays, identity=identity, certificates=certificates) as aqua:
        try:
            async with aqua.provide(resource_id, "bank", {"pay": pay}):
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    print("serving", flush=True)
                    await anext(signals)
        except NotRegistered as error:
            sys.exit(f"not registered: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="this peer's key, made on first use")
    parser.add_argument("--relay", action="append", default=[], metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--certificates", type=Path, metavar="FOLDER", help="where its certificates are")
    parser.add_argument("resource_id", nargs="?")
    options = parser.parse_args()
    who = load_or_create_identity(options.key)
    if options.resource_id is None:
        print(who.peer_id)
    elif not options.relay:
        parser.error("--relay is needed to serve")
    else:
        trio.run(serve, options.relay, who, options.certificates, options.resource_id)
