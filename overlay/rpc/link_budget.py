"""Which links are closed, and for whom there is a place: what the links of one peer may cost.

Rules:
1. Each side keeps a link or not, and tells the other. A link may go when neither keeps it, nothing is under way on it,
   and it has lasted for `min_lifetime`, so that whoever came in has time for what it came for.
2. A link that may go goes when it wasn't used for `idle_timeout`. Beyond the high water mark those that may go are
   closed at once, the least recently used first, down to the low one.
3. A member that we don't keep is turned away when `max_members` are linked. One that we keep always has a place: how
   many those are is bounded by whoever chooses them.
4. Light clients have places of their own, so that neither crowds the other out.
5. When all places of its kind are taken, a newcomer gets that of a link that we don't keep, and on which nothing is
   under way: first those whose peers did nothing in a second, then those that weren't used for `gives_way_after`, the
   longest unused first. Whether the peer keeps it doesn't matter: hostile ones keep all. If all are in use, the
   newcomer is turned away.

Pure: it is given the links as they are and the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from overlay.settings import LinkLimits

_ACTS_WITHIN = 1.0  # seconds; peers of ours call each other as soon as they are linked
_SOONEST = 1.0  # seconds until a link is looked at again of which nothing is told meanwhile


class LinkInUse(Struct, frozen=True, kw_only=True):
    """One link that is up, with what `LinkBudget` decides by."""

    peer_id: str
    member: bool
    kept_here: bool
    """By us."""
    kept_there: bool
    """By the peer, as it says."""
    active: bool
    """Whether the peer did something since the link came up: called us, or of a member, proved that it is one."""
    busy: bool
    """Whether a call is under way, in either direction."""
    up_since: float
    used_at: float
    """When it was last used, or came up."""


class _Marks(Struct, frozen=True):
    low: int
    high: int


class LinkBudget:
    """Decides by the rules above."""

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        most = limits.max_light_clients
        self._marks = {
            True: _Marks(limits.low_water, limits.high_water),
            False: _Marks(most - most // 8, most - most // 16),
        }

    def admits(self, *, member: bool, kept: bool, linked: int) -> bool:
        """Whether there is a place for a peer. `kept`: by us; `linked`: how many of its kind are linked already."""
        if member:
            return kept or linked < self._limits.max_members
        return linked < self._limits.max_light_clients

    def gives_way(self, links: Sequence[LinkInUse], now: float, *, member: bool) -> str | None:
        """The peer whose link ends so that another of its kind has a place (rule 5); None where all are in use."""
        candidates = [
            link
            for link in links
            if link.member is member
            and not (link.kept_here or link.busy)
            and link.up_since + (self._limits.min_lifetime if link.active else _ACTS_WITHIN) <= now
            and (not link.active or link.used_at + self._limits.gives_way_after <= now)
        ]
        first = min(candidates, key=lambda link: (link.active, link.used_at), default=None)
        return first.peer_id if first is not None else None

    def may_refuse(self, *, members: int, light_clients: int) -> bool:
        """Whether a peer of unknown kind might be turned away at so many links."""
        return members >= self._limits.max_members or light_clients >= self._limits.max_light_clients

    def to_close(self, links: Sequence[LinkInUse], now: float) -> list[str]:
        """The peers whose links go now (rules 1 and 2), the least recently used first."""
        closed: list[str] = []
        for member, marks in self._marks.items():
            of_kind = [link for link in links if link.member is member]
            ready = sorted(
                (link for link in of_kind if _may_go(link) and link.up_since + self._limits.min_lifetime <= now),
                key=lambda link: link.used_at,
            )
            idle = sum(link.used_at + self._limits.idle_timeout <= now for link in ready)
            surplus = len(of_kind) - marks.low if len(of_kind) > marks.high else 0
            closed += [link.peer_id for link in ready[: max(idle, surplus)]]
        return closed

    def wake_at(self, links: Sequence[LinkInUse], now: float) -> float:
        """When a link may have to be closed next, unless links change; `to_close` was done for `now`."""
        moments = [math.inf]
        for member, marks in self._marks.items():
            of_kind = [link for link in links if link.member is member]
            is_crowded = len(of_kind) > marks.high
            for link in of_kind:
                if link.kept_here or link.kept_there:
                    continue
                due = link.up_since + self._limits.min_lifetime
                if not is_crowded:
                    due = max(due, link.used_at + self._limits.idle_timeout)
                # Nobody tells when calls end, nor when a peer wanted to stay: those are looked at again.
                moments.append(now + max(self._limits.min_lifetime, _SOONEST) if link.busy or due <= now else due)
        return min(moments)


def _may_go(link: LinkInUse) -> bool:
    return not link.kept_here and not link.kept_there and not link.busy
