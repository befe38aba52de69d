"""A peer tells how many of its members have dialled it: none of them where its addresses lead nowhere."""

from __future__ import annotations

import trio

from overlay.assembly import open_peer
from overlay.identity import Identity
from overlay.peer import OverlayPeer
from overlay.settings import OverlaySettings
from tests.end_to_end.network import eventually

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


async def test_members_dial_whoever_dialled_them_and_that_is_noticed() -> None:
    async def dialled_by(peer: OverlayPeer) -> tuple[int, int | None]:
        await trio.lowlevel.checkpoint()
        return len(peer.members()), peer.statistics().dialled_by

    async with open_peer(Identity.generate(), OverlaySettings(listen=(LOOPBACK,))) as first:
        bootstrap = tuple(first.addresses())
        joining = OverlaySettings(listen=(LOOPBACK,), bootstrap=bootstrap)
        nowhere = OverlaySettings(listen=(LOOPBACK,), bootstrap=bootstrap, announce=("/ip4/127.0.0.1/tcp/1",))
        async with open_peer(Identity.generate(), joining) as well, open_peer(Identity.generate(), nowhere) as behind:
            await eventually(lambda: dialled_by(well), lambda told: (told[1] or 0) >= 1, 30)
            await eventually(lambda: dialled_by(first), lambda told: (told[1] or 0) >= 1, 30)
            await eventually(lambda: dialled_by(behind), lambda told: told[0] >= 1, 30)
            await trio.sleep(2)  # in which it would have been dialled
            assert (await dialled_by(behind))[1] == 0
