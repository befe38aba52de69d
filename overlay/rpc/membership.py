"""Which linked peers count as members: those that say so, once they were vetted.

A peer is vetted over its link, again and again while that lasts, ever less often; once it counts, also with the next
links of the same run of its process, for ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio
from cachetools import TTLCache

from overlay.rpc.link import Link
from overlay.tasks import TaskOwner

_MAX_VETTED: Final = 4096
_VETTED_FOR: Final = 600.0  # seconds
_AGAIN: Final = 5.0  # seconds until a peer that didn't count as a member is vetted again; doubles
_SELDOMEST: Final = 300.0
_PACE: Final = 0.5  # seconds at least, however often the peer makes new links


class Vet(Protocol):
    """Says whether a linked peer that says it is a member may count as one."""

    async def __call__(self, peer_id: str, *, dialled: bool) -> bool:
        """`dialled`: whether we opened the link, so that the peer surely can be dialled. Raises nothing."""
        ...


class Membership:
    """Which of the peers that one is linked with count as members."""

    def __init__(
        self, own_id: str, current: Mapping[str, Link], when_proven: Callable[[Link], None], vet: Vet | None
    ) -> None:
        """`current`: the links that are up, by their peers. `when_proven` is told of a peer that counts from now on.

        `vet`: without it, whoever says that it is a member counts as one at once.
        """
        self._vet = vet
        self._own_id = own_id
        self._current = current
        self._when_proven = when_proven
        self._members: dict[str, bool] = {}
        self._vetted: TTLCache[str, bytes] = TTLCache(_MAX_VETTED, _VETTED_FOR, timer=trio.current_time)
        self._under_way: dict[str, trio.Event] = {}  # set once the first attempt has ended

    @property
    def known(self) -> Mapping[str, bool]:
        """The linked peers, each with whether it counts as a member; it changes."""
        return self._members

    def counts(self, peer_id: str) -> bool:
        """Whether a peer is linked and counts as a member."""
        return self._members.get(peer_id, False)

    def note_up(self, link: Link) -> None:
        """A link came up, or another took its place."""
        remote = link.remote
        self._members[link.peer_id] = (
            remote is not None
            and remote.member
            and (self._vet is None or self._vetted.get(link.peer_id) == remote.session)
        )

    def note_down(self, peer_id: str) -> None:
        """A peer isn't linked any more."""
        self._members.pop(peer_id, None)

    async def decided(self, peer_id: str) -> bool:
        """Whether a linked peer counts as a member, once it was vetted for the first time."""
        if peer_id in self._under_way:
            await self._under_way[peer_id].wait()
        return self.counts(peer_id)

    def begin(self, link: Link, tasks: TaskOwner) -> None:
        """Vet the peer of a link that has just come up, if that is due."""
        peer_id = link.peer_id
        if link.is_to_member and not self.counts(peer_id) and peer_id not in self._under_way:
            self._under_way[peer_id] = trio.Event()
            tasks.start_soon(self._vet_while_linked, peer_id)

    async def _vet_while_linked(self, peer_id: str) -> None:
        assert self._vet is not None
        wait = _AGAIN
        try:
            while (link := self._current.get(peer_id)) is not None and link.remote is not None:
                is_member = await self._vet(peer_id, dialled=link.opened_by == self._own_id)
                current = self._current.get(peer_id)
                if is_member and current is not None and current.remote == link.remote:
                    self._vetted[peer_id] = link.remote.session
                    self._members[peer_id] = True
                    self._when_proven(current)
                    return
                self._under_way[peer_id].set()
                await trio.sleep(_PACE)
                with trio.move_on_after(wait):
                    await link.wait_ended()
                wait = min(2 * wait, _SELDOMEST)
        finally:
            self._under_way.pop(peer_id).set()
