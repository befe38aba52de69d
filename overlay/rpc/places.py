"""The places for links: who finds one, which links this peer keeps, and which are asked to end.

`link_budget` decides; here it is told of the links as they are, and what it decided is done.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import structlog
import trio

from overlay.errors import PeerIdError
from overlay.identity import public_key_of
from overlay.rpc.link import Link
from overlay.rpc.link_budget import LinkBudget, LinkInUse
from overlay.rpc.protocol import Bye, Hello, Reason, Referral
from overlay.rpc.transport import Transport
from overlay.settings import LinkLimits
from overlay.tasks import Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ADDRESSES_TOLD: Final = 4  # of each member that others are sent to
_HELLO_WITHIN: Final = 0.5  # seconds; who takes longer gives way to those who said it
_PACE: Final = 0.2  # seconds between two looks at all links, however often peers change their minds


class Places:
    """Decides for `overlay.rpc.links.Links`, whose links it looks at."""

    def __init__(
        self,
        transport: Transport,
        limits: LinkLimits,
        keeps: Callable[[str], bool],
        randomness: random.Random,
        *,
        current: Mapping[str, Link],
        counts: Callable[[str], bool],
        streams: Mapping[str, Iterable[Link]],
    ) -> None:
        """`keeps(peer_id)`: whether a link to the peer is kept though nobody uses it.

        `current`: the links that are up, by their peers; `streams`: all, with those that shake hands. Both change.
        `counts(peer_id)`: whether a linked peer counts as a member.
        """
        self._transport = transport
        self._limits = limits
        self._keeps = keeps
        self._random = randomness
        self._current = current
        self._counts = counts
        self._streams = streams
        self._held: Counter[str] = Counter()
        self._budget = LinkBudget(limits)
        self._due = Wakeup()

    async def run(self) -> None:
        """Tell peers whose links we keep, and close those that nobody keeps, until cancelled."""
        while True:
            for peer_id in self._current:
                self.mark(peer_id)
            self._due.clear()
            now = trio.current_time()
            for peer_id in self._budget.to_close(self._in_use(), now):
                log.debug("asking whether a link may end", peer_id=peer_id)
                self._current[peer_id].ask_to_end()
            with trio.move_on_at(self._budget.wake_at(self._in_use(), now)):
                await self._due.wait()
            await trio.sleep(_PACE)

    def note_change(self) -> None:
        """To be called when a link came up or got free, and when `keeps` may say something else than before."""
        self._due.set()

    def hold(self, peer_id: str) -> None:
        """Keep a link to the peer, if there is one, until `release`."""
        self._held[peer_id] += 1
        self.mark(peer_id)

    def release(self, peer_id: str) -> None:
        """Undo one `hold`."""
        self._held[peer_id] -= 1
        if self._held[peer_id] <= 0:
            del self._held[peer_id]
            self.mark(peer_id)

    def mark(self, peer_id: str) -> None:
        """Tell a peer whether we keep its link."""
        link = self._current.get(peer_id)
        if link is None:
            return
        # Of a peer that has yet to prove that it is a member we don't tell it, and don't keep it either.
        if not link.is_to_member or self._counts(peer_id):
            link.keep(self._is_kept(peer_id))
            if not link.kept and not link.kept_there:
                self._due.set()

    def is_short(self, opened_by: str) -> bool:
        """Whether a peer that opens a stream may have to be turned away, so that it has to say first who it is."""
        if opened_by == self._transport.peer_id or opened_by in self._current:
            return False
        coming = self._coming()
        return self._budget.may_refuse(
            members=self._count(member=True) + coming, light_clients=self._count(member=False) + coming
        )

    def admit(self, peer_id: str, hello: Hello) -> Bye | None:
        """The bye for a peer for whom there is no place, or None. Others may have to give way before this returns."""
        if peer_id in self._current or self._has_place(peer_id, hello.member) or self._make_place(hello.member):
            return None
        return Bye(Reason.FULL, self._others_than(peer_id))

    def _has_place(self, peer_id: str, member: bool) -> bool:
        linked = self._count(member=member) + self._coming()
        # Those that we keep by their position always have a place, once they have proven that they are members.
        unproven = sum(link.is_to_member and not self._counts(other) for other, link in self._current.items())
        kept = member and self._is_kept(peer_id) and unproven < self._limits.max_unproven
        return self._budget.admits(member=member, kept=kept, linked=linked)

    def _make_place(self, member: bool) -> bool:
        """End the link of a peer that has to give way to one that said hello; whether there is such a one."""
        now = trio.current_time()
        for link in self._greeting():
            if link.opened_by == link.peer_id and link.opened_at + _HELLO_WITHIN <= now:
                link.turn_away(Bye(Reason.FULL))
                return True
        first = self._budget.gives_way(self._in_use(), now, member=member)
        if first is None:
            return False
        log.debug("a link gives way to a newcomer", peer_id=first, is_member=member)
        self._current[first].turn_away(Bye(Reason.FULL, self._others_than(first)))
        return True

    def remember(self, teller: str, others: Iterable[Referral]) -> tuple[str, ...]:
        """Remember where others are, as one says that has no place for us, and return who they are."""
        known: list[str] = []
        for other in others:
            try:
                public_key_of(other.peer_id)
            except PeerIdError:
                continue
            if other.peer_id != self._transport.peer_id:
                self._transport.add_addresses(other.peer_id, other.addresses[:_ADDRESSES_TOLD], teller=teller)
                known.append(other.peer_id)
        return tuple(known)

    def _is_kept(self, peer_id: str) -> bool:
        return peer_id in self._held or self._keeps(peer_id)

    def _in_use(self) -> list[LinkInUse]:
        """The links that are up, as they are now."""
        return [
            LinkInUse(
                peer_id=peer_id,
                member=link.is_to_member,
                kept_here=link.kept and (self._counts(peer_id) or peer_id in self._held),
                kept_there=link.kept_there,
                active=self._counts(peer_id) if link.is_to_member else link.active,
                busy=link.busy,
                up_since=link.up_since,
                used_at=link.used_at,
            )
            for peer_id, link in self._current.items()
            if link.usable
        ]

    def _count(self, *, member: bool) -> int:
        return sum(link.is_to_member is member for link in self._current.values() if link.cause is None)

    def _coming(self) -> int:
        """Links of which we don't know yet what they lead to, and which take a place."""
        return sum(1 for _ in self._greeting())

    def _greeting(self) -> Iterator[Link]:
        return (link for streams in self._streams.values() for link in streams if link.greeting)

    def _others_than(self, peer_id: str) -> tuple[Referral, ...]:
        """Members that a peer may try instead, chosen at random so that they share those who come."""
        members = [other for other, link in self._current.items() if self._counts(other) and other != peer_id]
        chosen = self._random.sample(members, min(self._limits.told_when_full, len(members)))
        addresses = [tuple(self._transport.addresses_of(other)[:_ADDRESSES_TOLD]) for other in chosen]
        return tuple(Referral(*told) for told in zip(chosen, addresses, strict=True) if told[1])
