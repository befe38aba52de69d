"""Two peers at one name of /etc/hosts, and others that join by it, in namespaces where that file is another one.

Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import trio

from overlay.assembly import open_peer
from overlay.discovery.bootstrap_pins import FILE
from overlay.identity import Identity
from overlay.settings import OverlaySettings

NAME = "seeds"
PORT = 7000  # nobody else has one in these namespaces
_HOSTS = f"127.0.0.1 localhost\n127.0.0.3 {NAME}.internal {NAME}\n127.0.0.2 {NAME}\n"


async def _members_of_one_that_joins(folder: Path) -> list[str]:
    settings = OverlaySettings(
        listen=("/ip4/127.0.0.1/tcp/0",), bootstrap=(f"{NAME}:{PORT}",), trust_first=True, retry_delay_limit=1.0
    )
    with trio.fail_after(60):
        async with open_peer(Identity.generate(), settings, data_dir=folder) as peer:
            await peer.wait_joined()
            return list(peer.members())


async def _main(folder: Path) -> None:
    pinned, other = (OverlaySettings(listen=(f"/ip4/127.0.0.{number}/tcp/{PORT}",)) for number in (2, 3))
    async with (
        open_peer(Identity.generate(), pinned) as right,
        open_peer(Identity.generate(), other) as wrong,
    ):
        with_pin = folder / "with-pin"
        with_pin.mkdir()
        (with_pin / FILE).write_text(json.dumps({f"{NAME}:{PORT}": [right.peer_id]}))
        joined = await _members_of_one_that_joins(with_pin)
        without = folder / "without"
        without.mkdir()
        await _members_of_one_that_joins(without)
        first = json.loads((without / FILE).read_text())[f"{NAME}:{PORT}"]
        told = {"joined": joined, "right": right.peer_id, "wrong": wrong.peer_id, "pinned_first": first}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    hosts = Path(sys.argv[1]) / "hosts"
    hosts.write_text(_HOSTS)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    trio.run(_main, Path(sys.argv[1]))
