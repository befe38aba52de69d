"""One member of a group of peers that talk to each other: all that they share is a resource.

    python examples/subnetwork/member.py --relay ADDRESS NAME [RESOURCE_ID]

Without a resource id it founds the group. Prints the id, then who is there, comes and goes; sends each line that is
typed to everyone else. Leaves on Ctrl-C, SIGTERM or the end of input.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from aqua_compat import AquaClient, EventKind, Record, ServiceError, Watch, caller, connect, load_or_create_identity

NEWS = {EventKind.ADDED: "joined", EventKind.REMOVED: "left", EventKind.EXPIRED: "is gone"}
PATIENCE = 3.0  # seconds for a call to a member
STDIN = 0


def tell(text: str) -> None:
    print(text, flush=True)


class Member:
    """Follows the group and talks to it."""

    def __init__(self, aqua: AquaClient, group: Watch) -> None:
        self._aqua = aqua
        self._group = group

    def others(self) -> list[Record]:
        """The members known right now, but for this one."""
        return [record for record in self._group.records if record.metadata.peer_id != self._aqua.peer_id]

    async def hear(self, text: str) -> None:
        """What the others call."""
        peer_id = caller()  # proven by the caller's key, while names are what members say of themselves
        names = [record.metadata.value for record in self.others() if record.metadata.peer_id == peer_id]
        tell(f"{names[0] if names else 'a stranger'} ({peer_id[-6:]}): {text}")

    async def say(self, text: str) -> None:
        """Calls every other member at once."""

        async def call(record: Record) -> None:
            member = self._aqua.on(record, timeout=PATIENCE)
            try:
                await member.call("chat", "hear", text)
            except ServiceError as error:
                tell(f"{record.metadata.value} didn't hear it: {error.reason}")

        async with trio.open_nursery() as nursery:
            for record in self.others():
                nursery.start_soon(call, record)

    async def self_lookup(self) -> None:
        """Tells who is there."""
        snapshot = await anext(self._group)
        tell("members: " + ", ".join(record.metadata.value for record in snapshot.records))

    async def follow(self) -> None:
        """Tells each that comes and goes from then on."""
        async for event in self._group:
            if event.record is None or event.record.metadata.peer_id == self._aqua.peer_id:
                continue
            if event.kind in NEWS:  # what is left is another relay, or another name
                tell(f"{event.record.metadata.value} {NEWS[event.kind]}")


@asynccontextmanager
async def membership(aqua: AquaClient, resource_id: str, name: str) -> AsyncIterator[None]:
    """In the group while the block runs: a record without a service, since whoever is in it serves the same."""
    joined, errors = await aqua.registerService(resource_id, name, aqua.peer_id, None)
    if not joined:
        sys.exit(f"not joined: {errors}")
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await aqua.unregisterService(resource_id, aqua.peer_id)


async def typed() -> AsyncIterator[str]:
    """The lines of standard input."""
    text = b""
    while piece := await trio.to_thread.run_sync(os.read, STDIN, 4096, abandon_on_cancel=True):  # type: ignore[call-arg]  # newer than the stubs that libp2p brings
        *lines, text = (text + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").strip()


async def belong(relays: list[str], name: str, resource_id: str | None, key: Path | None) -> None:
    identity = load_or_create_identity(key) if key else None
    async with connect(relays, identity=identity) as aqua:
        if resource_id is None:
            resource_id, errors = await aqua.createResource("a group of peers")
            if resource_id is None:
                sys.exit(f"the group wasn't founded: {errors}")
        async with aqua.watch(resource_id) as group, trio.open_nursery() as nursery:
            member = Member(aqua, group)
            aqua.serve("chat", {"hear": member.hear})

            async def until_told_to_stop() -> None:
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_told_to_stop)
            tell(resource_id)
            async with membership(aqua, resource_id, name):
                await member.self_lookup()
                nursery.start_soon(member.follow)
                async for line in typed():
                    await member.say(line)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--key", type=Path, metavar="FILE", help="be the same peer each time (default: a new one)")
    parser.add_argument("name")
    parser.add_argument("resource_id", nargs="?")
    options = parser.parse_args()
    trio.run(belong, options.relay, options.name, options.resource_id, options.key)
