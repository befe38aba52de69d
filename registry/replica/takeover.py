"""Resources that this node answers for only since a peer went: what it has of them may be an old surplus copy.

A node that wasn't among the nearest missed the writes of that time. So after a departure it counts as behind, for the
resources that it moved up for, until a replica has compared them with it, or until `WINDOW` seconds have passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from overlay.discovery.density import BEGINS, keepers
from overlay.discovery.keyspace import peer_position, resource_position
from overlay.tasks import Broadcast
from registry.protocol.network import Network
from registry.replica.catch_up import PATIENCE

WINDOW: Final = 8.0  # seconds: a departure is noticed, waited out, and followed by comparisons in turn
MAX_GONE: Final = 1024
MAX_COMPARED: Final = 65_536
MAX_COMPARED_WHERE: Final = 256

Covers = Callable[[int], bool]
"""Whether a position is in some part of the keyspace."""


class Takeover:
    """Knows who went lately, and which resources have been compared since."""

    def __init__(self, network: Network, neighbourhood_size: int) -> None:
        self._network = network
        self._size = neighbourhood_size
        self._present = set(network.neighbours())
        self._gone: dict[str, float] = {}
        self._compared: dict[str, float] = {}
        self._compared_where: deque[tuple[Covers, float]] = deque(maxlen=MAX_COMPARED_WHERE)
        self._progress = Broadcast()
        network.on_membership_change(self._note_change)

    def is_new_to(self, key_id: str) -> bool:
        """Whether this node moved up for a resource lately, and nobody has compared it since."""
        now = trio.current_time()
        for peer_id in [peer_id for peer_id, since in self._gone.items() if now - since >= WINDOW]:
            del self._gone[peer_id]
        if not self._gone:
            self._compared.clear()
            self._compared_where.clear()
            return False
        compared, position = self._compared.get(key_id, -1.0), resource_position(key_id)
        for covers, since in self._compared_where:
            if since > compared and covers(position):
                compared = since
        gone = [peer_id for peer_id, since in self._gone.items() if since >= compared]
        members = self._network.neighbours()
        if not gone:
            return False
        everyone = {peer_id: peer_position(peer_id) for peer_id in (self._network.peer_id, *members, *gone)}
        written_to = keepers(position, everyone, self._size, self._network.density(), BEGINS)
        return self._network.peer_id not in written_to

    async def wait(self, key_id: str) -> bool:
        """Waits, for a while, until what is here of a resource counts; whether it does."""
        with trio.move_on_after(PATIENCE):
            while self.is_new_to(key_id):
                await self._progress.wait()
        return not self.is_new_to(key_id)

    def note_compared(self, key_id: str) -> None:
        """A replica has compared a resource with this node, and sent what was lacking."""
        if self._gone and len(self._compared) < MAX_COMPARED:
            self._compared[key_id] = trio.current_time()
            self._progress.send()

    def note_compared_where(self, covers: Covers) -> None:
        """A replica has compared all resources with this node that are where `covers` says."""
        if self._gone:
            self._compared_where.append((covers, trio.current_time()))
            self._progress.send()

    def _note_change(self) -> None:
        present = set(self._network.neighbours())
        for peer_id in self._present - present:
            if len(self._gone) < MAX_GONE:
                self._gone[peer_id] = trio.current_time()
        for peer_id in present:
            self._gone.pop(peer_id, None)
        self._present = present
