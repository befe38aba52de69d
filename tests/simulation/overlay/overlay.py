"""A network of members in virtual time: each with its home, its table of far contacts and its links, by the rules.

What is simulated is who knows whom, what gets lost and how long messages take; deciding is done by the objects of
`overlay.discovery` that a node runs.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from overlay.discovery.home import HOME_SIZE, MOST_HOME, Home
from overlay.discovery.iterative import IterativeLookup
from overlay.discovery.keyspace import POSITION_BITS
from overlay.discovery.recursive_machine import (
    MOST_FORWARDS,
    MOST_HOPS,
    PATHS,
    Hop,
    NextHop,
    RouteAnswer,
    RouteRequest,
    RouteResult,
    first_contacts,
    nearest_linked,
)
from tests.simulation.overlay.positions import nearest_of, some_positions, within

BUCKET: Final = 20
"""Far contacts that a member's table holds per bucket."""
FAR_LINKS: Final = 2
"""Of those, how many it keeps a link to."""

# In round trips of an open link.
OPENING: Final = 9.0
PATIENCE: Final = 3.0
PATIENCE_OPENING: Final = 14.0
GIVING_UP: Final = 40.0


class Lookup(NamedTuple):
    """What one lookup came to. Times in round trips."""

    first: float
    """Until the first answer."""
    last: float
    """Until all paths had ended."""
    messages: int
    new_links: int
    names: list[str]


class Member:
    """What one member knows."""

    def __init__(self, position: int) -> None:
        self.home = Home(position)
        self.contacts: set[int] = set()
        self.far_links: set[int] = set()
        self.links: dict[str, int] = {}


class Overlay:
    """`count` live members, of which a part takes requests and is `silent`, or is `lying`: it answers with nobody.

    `dead`: the part of the far contacts in tables that has left.
    """

    def __init__(
        self, count: int, seed: int, *, kind: str = "random", dead: float = 0.0, silent: float = 0.0, lying: float = 0.0
    ) -> None:
        self.random = random.Random(seed)
        self.live = some_positions(count, self.random, kind)
        gone = int(count * dead / (1 - dead))
        self.gone = set(some_positions(gone, self.random)) - set(self.live) if gone else set()
        everyone = sorted({*self.live, *self.gone})
        self.silent = set(self.random.sample(self.live, int(count * silent)))
        self.lying = set(self.random.sample(self.live, int(count * lying)))
        self.honest = [position for position in self.live if position not in self.silent | self.lying]
        self.members = {position: self._member(position, everyone) for position in self.live}
        for position, member in self.members.items():
            for other in [*member.home.members().values(), *self._thin(member), *member.far_links]:
                member.links[str(other)] = other
                self.members[other].links[str(position)] = position

    def _member(self, position: int, everyone: Sequence[int]) -> Member:
        member = Member(position)
        home = member.home
        height = POSITION_BITS - len(self.live).bit_length()
        while len(within(self.live, position, height)) >= HOME_SIZE and height:
            height -= 1
        while len(within(self.live, position, height)) < HOME_SIZE and height < POSITION_BITS:
            height += 1
        while len(within(self.live, position, height)) > MOST_HOME:
            height -= 1
        for other in within(self.live, position, height):
            home.add(str(other), other)
        for bucket in range(height, POSITION_BITS):
            sibling = position ^ 1 << bucket
            here = within(self.live, sibling, bucket)
            home.note_bucket(bucket, min(len(here), HOME_SIZE), 0.0)
            if len(here) < HOME_SIZE:
                for other in here:
                    home.add(str(other), other)
            else:
                known = within(everyone, sibling, bucket)
                contacts = self.random.sample(known, min(BUCKET, len(known)))
                member.contacts.update(contacts)
                member.far_links.update([contact for contact in contacts if contact not in self.gone][:FAR_LINKS])
        for nearest in home.confirmers():
            home.note_confirmed(nearest, 0.0, home.height)
        return member

    def _thin(self, member: Member) -> list[int]:
        buckets = set(member.home.thin_buckets())
        return [position for bucket in buckets for position in within(self.live, member.home.own ^ 1 << bucket, bucket)]

    def nearest(self, target: int, count: int) -> list[str]:
        """By brute force."""
        return [str(position) for position in nearest_of(self.live, target, count)]

    def recursive(self, own: int, target: int, count: int, *, paths: int = PATHS) -> Lookup:
        """By the recursive lookup, of the member at `own`."""
        member = self.members[own]
        exact = member.home.exact(target, count, own_name=str(own))
        if exact is not None:
            return Lookup(0.0, 0.0, 0, 0, exact)
        begins = first_contacts(target, member.links, paths)
        request = RouteRequest(b"", target, count, MOST_HOPS, MOST_FORWARDS // len(begins))
        seen = {own, *(member.links[begin] for begin in begins)}
        result, times, messages = RouteResult(target, count), [], 0
        for begin in begins:
            time, answer, sent = self._along(request, member.links[begin], own, seen)
            messages += sent
            if answer is not None:
                result.add(answer, map(int, answer.names))
                times.append((time, answer))
        times.sort(key=lambda entry: entry[0])
        if not times:
            return Lookup(PATIENCE, PATIENCE, messages, 0, [])
        return Lookup(times[0][0], times[-1][0], messages, 0, result.names())

    def _along(
        self, request: RouteRequest, at: int, came_from: int, seen: set[int]
    ) -> tuple[float, RouteAnswer | None, int]:
        """One path from `at` on: round trips until its answer is back, the answer, and messages."""
        if at in self.silent:
            return PATIENCE, None, 1
        if at in self.lying:
            return 1.0, RouteAnswer((), False), 2
        member = self.members[at]
        avoid: Collection[str] = [
            str(came_from),
            *(name for name, position in member.links.items() if position in seen),
        ]
        hop = Hop(request, member.home, member.links, own_name=str(at), avoid=avoid)
        time, messages = 1.0, 2
        while True:
            step = hop.next_step(is_confirmed=member.home.is_confirmed(0.0))
            if not isinstance(step, NextHop):
                return time, step, messages
            to = member.links[step.to]
            seen.add(to)
            took, answer, sent = self._along(step.request, to, at, seen)
            time += took
            messages += sent
            if answer is not None:
                return time, answer, messages

    @property
    def silent_names(self) -> set[str]:
        """Members that answer nothing: whether they are found is luck."""
        return {str(position) for position in self.silent}

    def is_believable(self, lookup: Lookup, target: int, count: int) -> bool:
        """Whether what the routes brought is as dense as a network of this size lets expect."""
        result = RouteResult(target, count)
        result.add(RouteAnswer(tuple(lookup.names), False), map(int, lookup.names))
        return result.is_believable(float(len(self.live)))

    def iterative(self, own: int, target: int, count: int) -> Lookup:
        """By the iterative lookup, from the table and the links of the member at `own`."""
        member = self.members[own]
        lookup = IterativeLookup(target, str(own), count=count)
        lookup.heard((str(position), position) for position in {*member.links.values(), *member.contacts})
        now, asked, opened = 0.0, 0, 0
        events: list[tuple[float, str, bool]] = []

        def patience(name: str) -> float:
            return PATIENCE if name in member.links else PATIENCE_OPENING

        while not lookup.is_done(now):
            for name in lookup.to_ask(now, patience):
                asked += 1
                is_linked = name in member.links
                opened += not is_linked
                position = int(name)
                if position in self.gone or position in self.silent:
                    heapq.heappush(events, (now + GIVING_UP, name, False))
                else:
                    heapq.heappush(events, (now + (1.0 if is_linked else OPENING), name, True))
            wakes = lookup.wakes_at()
            if not events:
                break
            if wakes < events[0][0]:
                now = wakes
                continue
            now, name, is_alive = heapq.heappop(events)
            if is_alive:
                told = self._told(int(name), target, count)
                lookup.answered(name, ((told_name, int(told_name)) for told_name in told))
            else:
                lookup.failed(name)
        found = nearest_linked(target, count, {name: int(name) for name in lookup.found()}, own, str(own))
        return Lookup(now, now, 2 * asked, opened, found)

    def _told(self, at: int, target: int, count: int) -> list[str]:
        if at in self.lying:
            return []
        member = self.members[at]
        known = {**member.links, **{str(contact): contact for contact in member.contacts}}
        return nearest_linked(target, count + 8, known, at, str(at))
