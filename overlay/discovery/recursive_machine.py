"""The recursive lookup over standing links, as step machines of each hop and of whoever begins.

1. It begins at the `PATHS` linked contacts nearest to the target, each a path of its own. The first answer is taken,
   the others are added to it.
2. A hop that knows the neighbourhood exactly answers. Another passes the request on to its nearest linked contact that
   is nearer to the target than itself, and to the next one when that refuses, or is silent for half of the time that
   this hop has left; `TRIES` times.
3. A hop passes one request on once, so paths stay apart and circles end. It says nothing until it has the answer.
4. `MOST_HOPS` and a budget of forwards, split among the paths, bound what one lookup may cost others.
5. A hop that has nobody nearer answers with the nearest it is linked to, and says that it isn't exact.
6. Who claims to know a neighbourhood exactly, but leaves out a member there to whom whoever began is linked, doesn't:
   it lies, or can't know better. It ends no other path, and where no other answer is exact, the iterative lookup
   decides.
7. Whoever began believes an answer unless it names fewer than asked for, or its farthest member is more than `SPARSE`
   times as far as the network's size lets expect: then the iterative lookup (`overlay.discovery.iterative`) decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from overlay.discovery.home import Home
from overlay.discovery.keyspace import POSITION_BITS

PATHS: Final = 3
TRIES: Final = 4
MOST_HOPS: Final = 12
MOST_FORWARDS: Final = 32
MOST_NAMED: Final = 96
"""Members that an answer names at most."""
SPARSE: Final = 2.0


class RouteRequest(Struct, frozen=True):
    """What travels from hop to hop."""

    id: bytes
    """Random; a hop passes one id on once."""
    target: int
    count: int
    hops: int
    """How many more hops may pass it on."""
    forwards: int
    """How many more messages this path may cost."""


class RouteAnswer(Struct, frozen=True):
    """Who is nearest to the target, nearest first; `is_exact` when the answerer knows it completely."""

    names: tuple[str, ...]
    is_exact: bool
    height: int = 0
    """When positive: the names are all members whose positions differ from the target only in the last so many bits,
    and these may be more than were asked for. So whoever asked knows a whole region."""


class NextHop(Struct, frozen=True):
    """An action: pass the request on to `to`, and come back with what becomes of it."""

    to: str
    request: RouteRequest


class Hop:
    """One hop's handling of one request. Begin with `next_step`; again after each refusal of whom it was passed to."""

    def __init__(
        self, request: RouteRequest, home: Home, links: Mapping[str, int], *, own_name: str, avoid: Collection[str]
    ) -> None:
        """`links`: linked members with their positions. `avoid`: whom the request came from."""
        self._request = request
        self._home = home
        self._links = links
        self._own_name = own_name
        self._tried = set(avoid)
        self._tries = 0

    def next_step(self, *, is_confirmed: bool) -> NextHop | RouteAnswer:
        """What this hop does now. `is_confirmed`: whether it may claim exactness (`Home.is_confirmed`)."""
        request = self._request
        exact = self._home.exact(request.target, request.count, own_name=self._own_name) if is_confirmed else None
        if exact is not None:
            return self._whole_home() or RouteAnswer(tuple(exact), True)
        own_distance = self._home.own ^ request.target
        forwards = request.forwards - self._tries - 1
        if self._tries < TRIES and request.hops > 0 and forwards >= 0:
            nearer = (
                (position ^ request.target, member)
                for member, position in self._links.items()
                if member not in self._tried and position ^ request.target < own_distance
            )
            _, to = min(nearer, default=(0, ""))
            if to:
                self._tried.add(to)
                self._tries += 1
                return NextHop(to, RouteRequest(request.id, request.target, request.count, request.hops - 1, forwards))
        near = nearest_linked(request.target, request.count, self._links, self._home.own, self._own_name)
        return RouteAnswer(tuple(near), False)

    def _whole_home(self) -> RouteAnswer | None:
        """All of the home, when the target lies in it and it has as many members as asked for, but not too many."""
        request, height = self._request, self._home.height
        members = self._home.members()
        if (self._home.own ^ request.target).bit_length() > height or not request.count <= len(
            members
        ) + 1 <= MOST_NAMED:
            return None
        known = {**members, self._own_name: self._home.own}
        return RouteAnswer(tuple(sorted(known, key=lambda name: known[name] ^ request.target)), True, height)


def nearest_linked(target: int, count: int, links: Mapping[str, int], own: int, own_name: str) -> list[str]:
    """The nearest of those linked and ourselves, nearest first: a best effort."""
    known = [(position ^ target, member) for member, position in links.items()]
    return [member for _, member in heapq.nsmallest(count, [*known, (own ^ target, own_name)])]


def first_contacts(target: int, links: Mapping[str, int], paths: int = PATHS) -> list[str]:
    """Where the paths of a lookup begin: the linked contacts nearest to the target."""
    return heapq.nsmallest(paths, links, key=lambda member: links[member] ^ target)


def requests(request_id: bytes, target: int, count: int, paths: int) -> RouteRequest:
    """The request as it is sent on each of the paths."""
    return RouteRequest(request_id, target, count, MOST_HOPS, MOST_FORWARDS // max(paths, 1))


class RouteResult:
    """What the answers of the paths of one lookup come to."""

    def __init__(self, target: int, count: int, linked: Mapping[str, int] | None = None) -> None:
        """`linked`: members, with positions, to whom whoever began is linked: these exist."""
        self._target = target
        self._count = count
        self._linked = {} if linked is None else {name: position ^ target for name, position in linked.items()}
        self._is_doubtful = False
        self._names: dict[str, int] = {}
        self.answers = 0
        self.is_exact = False
        """Whether one of those that answered knows the neighbourhood completely, as it says and nothing denies."""
        self.is_cut_short = False
        """Whether its time was over before an answer that is taken as exact, and before all paths had ended."""
        self._regions: list[tuple[int, dict[str, int]]] = []

    def add(self, answer: RouteAnswer, positions: Iterable[int]) -> bool:
        """An answer, and the positions of those that it names, in its order; whether it is taken as exact (rule 6)."""
        self.answers += 1
        told = {
            name: position ^ self._target for name, position in zip(answer.names[:MOST_NAMED], positions, strict=False)
        }
        is_exact = answer.is_exact and not self._leaves_out_somebody(answer.height, told)
        self._is_doubtful |= answer.is_exact and not is_exact
        self.is_exact |= is_exact
        if is_exact and answer.height > 0:
            self._regions.append((answer.height, told))
        self._names.update(told)
        return is_exact

    def _leaves_out_somebody(self, height: int, told: Mapping[str, int]) -> bool:
        """Whether an exact answer lacks a member that is linked, and lies where it names all."""
        if height > 0:
            end = 1 << height
        elif len(told) >= self._count:
            end = max(told.values())
        else:
            end = 1 << POSITION_BITS  # it says that there are no others
        return any(distance < end and name not in told for name, distance in self._linked.items())

    def names(self) -> list[str]:
        """The nearest of all that were named, nearest first."""
        return heapq.nsmallest(self._count, self._names, key=self._names.__getitem__)

    def region(self, network_size: float) -> tuple[int, tuple[str, ...]] | None:
        """The largest region that an answer told completely, and that nothing speaks against: height and members.

        It holds all that other answers name there, and not less than half of the members that a network of this size
        has in it: a liar empties no part of the keyspace.
        """
        for height, told in sorted(self._regions, key=lambda region: -region[0]):
            inside = {name for name, distance in self._names.items() if distance.bit_length() <= height}
            if inside <= told.keys() and len(inside) * SPARSE >= network_size / 2.0 ** (POSITION_BITS - height):
                return height, tuple(inside)
        return None

    def is_believable(self, network_size: float) -> bool:
        """Rules 6 and 7. `network_size`: the estimate; with fewer members than asked for, all of them are expected."""
        if self._is_doubtful and not self.is_exact:
            return False
        names = self.names()
        expected = min(self._count, max(int(network_size / SPARSE), 1))
        if len(names) < expected:
            return False
        if len(names) < self._count:
            return True
        return self._names[names[-1]] <= SPARSE * self._count * 2.0**POSITION_BITS / max(network_size, 1.0)
