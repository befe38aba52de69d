"""Watches a resource and tells who serves it; calls each as soon as it is there.

    python examples/permissions/caller.py --relay ADDRESS RESOURCE_ID

Prints a line for each that comes and goes, with the reason where it was the certificate or the policy.
"""

from __future__ import annotations

import argparse

import trio

from aqua_compat import EventKind, connect


async def follow(relays: list[str], resource_id: str) -> None:
    async with connect(relays) as aqua, aqua.watch(resource_id) as events:
        async for event in events:
            records = event.records if event.record is None else (event.record,)
            for record in records:
                name = record.metadata.peer_id[-6:]
                if event.kind in (EventKind.SNAPSHOT, EventKind.ADDED):
                    print(f"{name} is there: {await aqua.on(record).call('bank', 'pay', 7)}", flush=True)
                elif event.kind is EventKind.UPDATED:
                    print(f"{name} goes on under another certificate", flush=True)
                else:
                    print(f"{name} is gone {f'({event.reason})' if event.reason else ''}".strip(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("resource_id")
    options = parser.parse_args()
    trio.run(follow, options.relay, options.resource_id)
