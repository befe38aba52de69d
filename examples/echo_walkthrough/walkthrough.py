"""The original Registry's walkthrough with its echo service, step by step, against a running network.

python examples/echo_walkthrough/walkthrough.py --relay ADDRESS
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from aqua_compat import AquaClient, NodeSettings, OverlaySettings, Record, connect, node

TEXT = "hi"


class Echo:
    """Served by both providers; each answers with its own peer id, as the original's."""

    def __init__(self, peer_id: str) -> None:
        self._peer_id = peer_id

    async def echo(self, text: str) -> str:
        return f"{self._peer_id}: {text}"


async def create(aqua: AquaClient) -> str:
    resource_id, errors = await aqua.createResource("echo")
    if resource_id is None:
        sys.exit(f"the resource wasn't created: {errors}")
    print(f"1. created the resource {resource_id}")
    return resource_id


async def joined(full: AquaClient) -> None:
    """Waits until the node is a member of the network; before that nobody can reach it."""
    with trio.move_on_after(10):
        await full.wait_joined()
        return
    sys.exit("the node couldn't join the network")


async def register(aqua: AquaClient, resource_id: str, peer_id: str, service_id: str) -> None:
    """Whoever runs this issues the record; the peer that it names signs it as the host."""
    success, errors = await aqua.registerService(resource_id, "", peer_id, service_id)
    if not success:
        sys.exit(f"{service_id} wasn't registered: {errors}")
    print(f"   registered {service_id} on {peer_id}")


async def echo_all(aqua: AquaClient, resource_id: str) -> None:
    """One function for all kinds of providers: which peer and which service, the records tell."""
    answers: list[str] = []

    async def echo(record: Record) -> None:
        [service_id] = record.metadata.service_id
        answer = await aqua.on(record).call(service_id, "echo", TEXT, returns=str)
        answers.append(answer)

    success, errors = await aqua.executeOnResource(resource_id, 1, echo)
    if errors or not success:
        sys.exit(f"not everyone answered: {errors}")
    for answer in sorted(answers):
        print(f"   {answer}")


async def walk(relay: str, folder: Path) -> None:
    settings = NodeSettings(overlay=OverlaySettings(bootstrap=(relay,)))
    async with connect(relay) as aqua, node(folder, settings=settings) as full:
        await joined(full)
        resource_id = await create(aqua)
        # What is watched is known at once, one's own changes too: the reads below never miss a write before them.
        async with aqua.watch(resource_id) as known:
            await anext(known)

            print("2. two providers of different kinds")
            aqua.serve("echo", Echo(aqua.peer_id))  # on this light client, which only its relay can reach
            await register(aqua, resource_id, aqua.peer_id, "echo")
            full.serve("echo_service", Echo(full.peer_id))  # on a node, as the original's service deployed there
            await register(aqua, resource_id, full.peer_id, "echo_service")

            print("3. echoAll")
            await echo_all(aqua, resource_id)

            success, errors = await aqua.unregisterService(resource_id, full.peer_id)
            if not success:
                sys.exit(f"echo_service wasn't unregistered: {errors}")
            print(f"4. unregistered echo_service on {full.peer_id}")

            print("5. echoAll")
            await echo_all(aqua, resource_id)
        await aqua.unregisterService(resource_id, aqua.peer_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", required=True, metavar="ADDRESS", help="a node of the network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(walk, options.relay, Path(folder))
