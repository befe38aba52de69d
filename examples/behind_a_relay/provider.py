"""A thermometer on a machine that nobody can dial: its readings are followed through the node that it is connected to.

    python examples/behind_a_relay/provider.py --relay ADDRESS --relay ANOTHER

Prints the resource's id, then who follows and which node it is reached through; serves until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from aqua_compat import AquaClient, caller, connect

LABEL = "thermometers"
EVERY = 0.5  # seconds between readings


@dataclass(frozen=True)
class Reading:
    number: int
    celsius: float


class Thermometer:
    """The service. Its readings are numbered, so that whoever was cut off can go on where it was."""

    def __init__(self) -> None:
        self._began = trio.current_time()

    async def latest(self) -> Reading:
        return self._reading(int((trio.current_time() - self._began) / EVERY))

    async def readings(self, after: int) -> AsyncIterator[Reading]:
        """Each reading after the one of that number, as soon as it is there."""
        print(f"followed by {caller()[-6:]}, after reading {after}", flush=True)
        number = after
        while True:
            number += 1
            await trio.sleep_until(self._began + number * EVERY)
            yield self._reading(number)

    def _reading(self, number: int) -> Reading:
        return Reading(number, round(20 + 2 * math.sin(number / 10), 2))


async def tell_relay(aqua: AquaClient, resource_id: str) -> None:
    """Prints which node this peer's own record names, then each that comes to be instead."""
    async with aqua.watch(resource_id) as changes:
        async for event in changes:
            for record in event.records or [event.record]:
                if record is not None and record.metadata.peer_id == aqua.peer_id:
                    print("reached through", *record.metadata.relay_id, flush=True)


async def provide(relays: list[str]) -> None:
    async with connect(relays) as aqua:
        resource_id, errors = await aqua.createResource(LABEL)
        if resource_id is None:
            sys.exit(f"the resource wasn't created: {errors}")
        async with aqua.provide(resource_id, "thermometer", Thermometer()), trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                print(resource_id, flush=True)
                nursery.start_soon(tell_relay, aqua, resource_id)
                await anext(signals)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    options = parser.parse_args()
    trio.run(provide, options.relay)
