"""Follows a thermometer behind a relay, and goes on where it was when the relay dies.

python examples/behind_a_relay/caller.py --relay ADDRESS --relay ANOTHER RESOURCE_ID
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from aqua_compat import AquaClient, Record, RecordMetadata, ServiceError, connect
from aqua_compat.rpc.errors import PeerUnreachable

RETRY = 5.0  # seconds until a peer that is lost is tried again, when nothing new is heard of it


@dataclass(frozen=True)
class Reading:
    number: int
    celsius: float


class Follower:
    """Prints readings, each once, in order."""

    def __init__(self, aqua: AquaClient, count: int) -> None:
        self._aqua = aqua
        self._last: int | None = None
        self._left = count

    async def follow(self, records: Sequence[Record]) -> bool:
        """Goes on after the last reading; whether all that were wanted have come. Raises ServiceError."""
        if not records:
            print("nobody is registered", flush=True)
            return False
        try:
            await self._read(records[0].metadata)
        except PeerUnreachable as error:  # or CallInterrupted, in the middle
            print(f"lost: {error.reason}", flush=True)
        return self._left == 0

    async def _read(self, host: RecordMetadata) -> None:
        print("on", host.peer_id, "via", *host.relay_id, flush=True)
        thermometer = self._aqua.on(host.peer_id, via=host.relay_id)  # Aqua: on host.peer_id via host.relay_id
        if self._last is None:
            self._last = (await thermometer.call("thermometer", "latest", returns=Reading)).number
        async with thermometer.stream("thermometer", "readings", self._last, returns=Reading) as readings:
            async for reading in readings:
                print(f"{reading.number:5} {reading.celsius:6.2f} °C", flush=True)
                self._last = reading.number
                self._left -= 1
                if self._left == 0:
                    return  # leaving the block ends the function over there


async def follow(relays: list[str], resource_id: str, count: int) -> int:
    async with connect(relays) as aqua, aqua.watch(resource_id) as changes:
        follower = Follower(aqua, count)
        await anext(changes)  # a snapshot
        try:
            while not await follower.follow(changes.records):
                with trio.move_on_after(RETRY):
                    await anext(changes)  # somebody new, or the same peer behind another relay
        except ServiceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--count", type=int, default=60, metavar="N", help="end after N readings (default: 60)")
    parser.add_argument("resource_id")
    options = parser.parse_args()
    sys.exit(trio.run(follow, options.relay, options.resource_id, options.count))
