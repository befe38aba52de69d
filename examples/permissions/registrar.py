"""Owns a resource on which only certified peers register, and keeps their certificates short-lived.

    python examples/permissions/registrar.py --relay ADDRESS --folder CERTIFICATES PEER_ID...

Prints the resource's id once it is closed. Writes a certificate for each peer into the folder, and a newer one whenever
a third of its time is left. To put a peer out, end this, and start it without that peer: within the time that a
certificate holds its services are gone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import trio

from aqua_compat import AquaClient, Edit, EditKind, certify, connect, load_or_create_identity, save_chain, scope_of

LABEL = "payments"


async def closed_resource(aqua: AquaClient) -> str:
    """The id of the resource, on which nobody but this owner, and whom it certifies, may register."""
    resource_id, errors = await aqua.createResource(LABEL)
    if resource_id is None:
        sys.exit(f"the resource wasn't created: {errors}")
    changed = await aqua.registry.change_policy(resource_id, [Edit(EditKind.CLOSE)])
    if not changed.success:
        sys.exit(f"the resource wasn't closed: {changed.errors}")
    return resource_id


async def certify_them(relays: list[str], key: Path, folder: Path, holds: float, peers: list[str]) -> None:
    owner = load_or_create_identity(key)
    scope = scope_of(LABEL, owner.peer_id)
    async with connect(relays, identity=owner) as aqua, trio.open_nursery() as nursery:

        async def until_told_to_stop() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_told_to_stop)
        resource_id = await closed_resource(aqua)
        while True:
            for peer_id in peers:
                certificate = certify(owner, peer_id, scope, now=time.time(), lasts=holds)
                save_chain(folder / f"{peer_id}.cert", [certificate])
            if resource_id:
                print(resource_id, flush=True)
                resource_id = ""
            await trio.sleep(holds * 2 / 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", action="append", required=True, metavar="ADDRESS", help="a node; repeatable")
    parser.add_argument("--key", type=Path, default=Path("owner.json"), help="the owner's key (default: owner.json)")
    parser.add_argument("--folder", type=Path, required=True, help="where the certificates go")
    parser.add_argument("--holds", type=float, default=60.0, metavar="SECONDS", help="of a certificate (default: 60)")
    parser.add_argument("peers", nargs="+", metavar="PEER_ID")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    trio.run(certify_them, options.relay, options.key, options.folder, options.holds, options.peers)
