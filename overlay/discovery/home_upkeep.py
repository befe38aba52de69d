"""Keeps a member's home complete: all who belong into it are linked, and the buckets beyond it known for what they are.

1. A *pass* asks those who confirm the home (`overlay.discovery.home`, rule 5) whom they know around them, and then, of
   the home's members, those who live in no part that somebody told: all of the home is told by members who live there
   and whose own homes are confirmed. All whom they name that belong into the home, or into a thin bucket, are linked.
   The pass begins anew while somebody new was found; then those who answered have confirmed the home.
2. A member that was alone looks its own position up first: whoever one joins through may be far away.
3. A pass is made at once when the home isn't confirmed, as after joining, or has narrowed, and after the loss of a
   neighbour's link; and again 2 seconds after such a one and after any that found somebody new: who came at the same
   time knew us as little as we it. In between, one of the three nearest, one neighbour at random, one member of each
   thin bucket and one of those who didn't answer when they were asked last are asked every two minutes, by digest; and
   whoever asked us with another view than ours, soon. Where a bucket was found thin, its members are asked sooner:
   where the network was parted, some of them didn't know of the others. Who belongs into the home and couldn't be
   linked is tried again, ever less often, and by itself: a pass that finds nobody new comes ever later.
4. Each bucket outside of the home is looked up once an hour: of fewer than a home's members all are linked; else two of
   them at random are, through which lookups go. These lookups tell the network's size, too. A bucket in which more are
   linked by now than were found is looked up sooner: its links needn't be kept any more. Where a lookup wasn't exact
   it is repeated soon, and then ever later: whoever takes the network for larger than it is believes no true answer,
   and goes on doing so until it knows that bucket.

Whoever links all members of its thin buckets is known to all in whose homes it is: a bucket has fewer than H members
just when the home of each of them reaches beyond it, to us.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import structlog
import trio
from cachetools import TTLCache

from overlay.discovery.dial_failures import DialFailures
from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.home_view import HomeView, uncovered
from overlay.discovery.keyspace import POSITION_BITS, peer_position
from overlay.discovery.size_estimate import SizeEstimate
from overlay.errors import CallFailed
from overlay.tasks import Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ROUNDS: Final = 8
MOST_ASKED: Final = 24
"""Members asked in one round."""
LINKED_AT_FIRST: Final = 2
LINKED_AT_ONCE: Final = 6
FAR_LINKS: Final = 2
REFRESH: Final = 3600.0
AGAIN: Final = 2.0
"""Seconds after a pass that found somebody new."""
INTERVAL: Final = 120.0
_SHORTEST: Final = 1.0  # seconds between two passes
_ASKED_BACK: Final = 30.0  # seconds for which a member with another view isn't asked back again
_MOST_ASKED_BACK: Final = 256
_MOST_FAILED: Final = 1024
MOST_LACKING: Final = 64
"""Members that couldn't be linked and are tried again between passes."""
_BUCKETS_AT_ONCE: Final = 4


class Searching(Protocol):
    """What upkeep needs of the peer whose home it is: satisfied by `overlay.discovery.lookup.Lookup`."""

    def members(self) -> list[str]:
        """Members with an open link."""
        ...

    def is_dialable(self, peer_id: str) -> bool:
        """Whether a peer is linked, or didn't fail to be dialled lately."""
        ...

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        """What a member knows of a subtree. Raises `CallFailed`."""
        ...

    async def look_up(self, position: int, count: int) -> tuple[list[str], bool]:
        """The members nearest to a position, as others tell; and whether one of them knows them completely."""
        ...

    async def link(self, peer_id: str) -> bool:
        """Link to a peer; whether it is a member that is linked now."""
        ...

    def note_keeping(self) -> None:
        """Others may have to be linked than before, or other far links are ours, though none came up or went down."""
        ...


class HomeUpkeep:
    """Keeps one member's home complete: `run` until cancelled, `run_once` for one pass."""

    def __init__(
        self, home: Home, size: SizeEstimate, peer: Searching, randomness: random.Random | None = None
    ) -> None:
        self._home = home
        self._size = size
        self._peer = peer
        self._random = randomness or random.Random()  # noqa: S311 - which far contacts, not secrets
        self._looked_up: dict[int, float] = {}
        self._far: dict[int, set[str]] = {}
        self._differing: set[str] = set()
        self._asked_back: TTLCache[str, None] = TTLCache(_MOST_ASKED_BACK, _ASKED_BACK, timer=trio.current_time)
        self._failed = DialFailures(trio.current_time, first=2 * AGAIN, longest=INTERVAL, most=_MOST_FAILED)
        self._at_once = LINKED_AT_FIRST  # dials
        self._lacking: set[str] = set()  # who belongs here and couldn't be linked
        self._is_placed = False  # whether our own position was looked up since we had company
        self._refreshed_beyond = POSITION_BITS  # the home's height when buckets were refreshed
        self._turn = 0
        self._has_lost = False
        self._is_vague = False  # whether a lookup in a bucket wasn't exact in the last pass
        self._thin_found: float | None = None  # when a bucket was found thin, the latest time
        self._pass = trio.Lock()
        self._due = Wakeup()
        self._when_kept_changes: list[Callable[[], None]] = []

    def on_kept_change(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called whenever other members have to be linked though none was added or removed: a bucket
        was found thin, or isn't any more."""
        self._when_kept_changes.append(callback)

    def is_far_link(self, member: str) -> bool:
        """Whether it is one of the two that we chose in its bucket."""
        return any(member in chosen for chosen in self._far.values())

    def note_up(self, member: str) -> None:  # noqa: ARG002 - who it is doesn't matter
        """A member was linked: with another among the three nearest, the home has to be confirmed anew, and where it is
        smaller now, what lies beyond it looked up: ids that crowd into it alone tell of a network that is too large."""
        if self._home.height < self._refreshed_beyond or not self._home.is_confirmed(trio.current_time()):
            self._due.set()

    def note_down(self, member: str, *, was_kept: bool) -> None:
        """A member's link was lost."""
        for chosen in self._far.values():
            chosen.discard(member)
        if was_kept:
            self._has_lost = True
            self._due.set()

    def note_difference(self, member: str) -> None:
        """A member asked with another view than ours: we may be the one who lacks somebody."""
        if member not in self._asked_back and len(self._differing) < MOST_ASKED:
            self._asked_back[member] = None
            self._differing.add(member)
            self._due.set()

    async def run(self) -> None:
        """Keep the home until cancelled."""
        is_again, wait = False, INTERVAL
        while True:
            is_again |= await self._wait(wait * self._random.uniform(0.75, 1.0))
            if not self._peer.members():
                is_again, wait, self._is_placed = False, INTERVAL, False
                continue
            async with self._pass:
                began = trio.current_time()
                is_uncertain = self._has_lost or not self._home.is_confirmed(trio.current_time())
                self._has_lost = False
                self._lacking.clear()
                was_vague, self._is_vague = self._is_vague, False
                if is_again or is_uncertain:
                    found = await self._whole_pass()
                else:
                    found = await self._ask_few()
            if found or is_uncertain:
                is_again, wait = True, AGAIN
            else:
                is_again = bool(self._lacking)
                wait = min(2 * wait, INTERVAL) if is_again or self._is_vague or self._is_thin_of_late() else INTERVAL
            if (self._thin_found is not None and self._thin_found >= began) or (self._is_vague and not was_vague):
                wait = AGAIN
            await trio.sleep(_SHORTEST * self._random.uniform(0.5, 1.0))

    async def _wait(self, seconds: float) -> bool:
        """Wait until the next pass is due, and try those again meanwhile who couldn't be linked; whether one was."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            next_try = min((self._failed.rests_until(name) for name in self._lacking), default=until)
            with trio.move_on_at(min(next_try, until)) as waiting:
                await self._due.wait()
            if not waiting.cancelled_caught:
                break
            rested = {name for name in self._lacking if self._failed.rests_until(name) <= trio.current_time()}
            self._lacking -= rested
            async with self._pass:
                if await self._link(sorted(rested)):
                    return True
        return False

    async def run_once(self) -> None:
        """One whole pass, whatever is confirmed."""
        async with self._pass:
            await self._whole_pass()

    async def enter(self, names: Iterable[str]) -> int:
        """Link those who belong into the home, of members that somebody named; how many those were."""
        async with self._pass:
            return await self._link(self._belonging(set(names)))

    async def _ask_few(self) -> int:
        """What rule 3 says of the time between passes; how many new members were linked."""
        differing = [member for member in self._peer.members() if member in self._differing]
        self._differing.clear()
        near = self._home.confirmers()
        self._turn += 1
        height = self._home.height
        chosen = {*differing, near[self._turn % len(near)], self._random.choice(self._kept())} if near else set()
        chosen.update(self._of_thin_buckets())
        if unanswered := self._home.unanswered:
            chosen.add(self._random.choice(unanswered))
        found, answered = await self._ask(sorted(chosen), [])
        if not found:
            for member in answered:
                self._home.note_confirmed(member, trio.current_time(), height)
        await self._refresh_buckets()
        return found

    def _of_thin_buckets(self) -> list[str]:
        """One linked member of each thin bucket, at random: it knows all of it, if it is one."""
        thin: dict[int, list[str]] = {bucket: [] for bucket in self._home.thin_buckets()}
        for name in self._peer.members() if thin else ():
            if (bucket := self._home.bucket_of(peer_position(name))) in thin:
                thin[bucket].append(name)
        return [self._random.choice(members) for members in thin.values() if members]

    def _is_thin_of_late(self) -> bool:
        return self._thin_found is not None and trio.current_time() < self._thin_found + INTERVAL

    def _kept(self) -> list[str]:
        return [name for name in self._peer.members() if self._home.keeps(peer_position(name))] or self._peer.members()

    async def _whole_pass(self) -> int:
        """Rules 1, 2 and 4; how many new members were linked."""
        found = 0
        if not self._is_placed:
            self._is_placed = True
            names, _ = await self._peer.look_up(self._home.own, HOME_SIZE)
            found += await self._link(self._belonging(set(names)))
        for _ in range(ROUNDS):
            new = await self._round()
            found += new
            if not new:
                break
        await self._refresh_buckets()
        return found

    async def _round(self) -> int:
        """Rule 1, once; how many new members were linked."""
        covered: list[tuple[int, int]] = []
        asked: set[str] = set()
        answered: set[str] = set()
        found, height = 0, self._home.height  # which grows when members leave meanwhile
        to_ask = sorted({*self._home.confirmers(), *self._of_thin_buckets()})
        while to_ask and len(asked) < MOST_ASKED:
            asked.update(to_ask)
            new, answers = await self._ask(to_ask, covered)
            found += new
            answered |= answers
            here = self._home.inside(self._home.own, self._home.reach)
            rest = [name for name in uncovered(here, covered) if name not in asked]
            to_ask = self._random.sample(rest, min(len(asked), len(rest)))  # more each time: many may not answer
        if not found:
            for member in answered:
                self._home.note_confirmed(member, trio.current_time(), height)
        return found

    async def _ask(self, members: Iterable[str], covered: list[tuple[int, int]]) -> tuple[int, set[str]]:
        """Ask members about what lies around them, link whom they name, and enter what they told into `covered`.

        How many new members were linked, and who answered.
        """
        answers: dict[str, HomeView] = {}

        async def ask(member: str) -> None:
            position = peer_position(member)
            bucket = self._home.bucket_of(position)
            # As much of its home as concerns us: our own home, or all of a bucket beyond it.
            height = min(self._home.height_around(position), max(self._home.reach, bucket))
            try:
                answers[member] = await self._peer.ask_home(member, position, height)
            except CallFailed as error:
                log.debug("a member didn't tell of its home", peer_id=member, error=str(error))
                self._home.note_asked(member, has_answered=False)
            else:
                self._home.note_asked(member, has_answered=True)
                covered.append((position, min(height, answers[member].height)))

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(ask, member)
        found = await self._link(self._belonging({name for view in answers.values() for name in view.names}))
        return found, set(answers)

    def _belonging(self, names: Collection[str]) -> list[str]:
        """Those that aren't linked and would be in the home, or in a thin bucket, if all of them were."""
        linked = set(self._peer.members())
        new = {name: peer_position(name) for name in names if name not in linked}
        new = {name: position for name, position in new.items() if position != self._home.own}
        resting = {name for name in new if self._failed.is_resting(name)}
        reach = self._home.reach_with(position for name, position in new.items() if name not in resting)
        belonging = {
            name
            for name, position in new.items()
            if self._home.bucket_of(position) < reach or self._home.keeps(position)
        }
        self._lacking |= set(sorted(belonging & resting)[: MOST_LACKING - len(self._lacking)])
        return sorted(belonging - resting)

    async def _link(self, names: Iterable[str]) -> int:
        """Link to peers, several at the same time; how many became linked members.

        Where many join together, each would dial each: those are dialled first who leave that to us, and the others
        have mostly come by then. Dials that fail are a sign of a crowd: fewer are made at the same time then, but never
        one alone, since who names peers that don't answer could hold all others up.
        """
        known = set(self._peer.members())
        waiting = sorted((name for name in names if name not in known), key=self._comes_by_itself)
        linked = 0

        async def work(number: int) -> None:
            nonlocal linked
            while waiting and number < self._at_once:
                is_linked = await self._try_to_link(waiting.pop(0))
                linked += is_linked
                self._at_once = min(self._at_once + 1, LINKED_AT_ONCE) if is_linked else LINKED_AT_FIRST

        while waiting:
            async with trio.open_nursery() as nursery:
                for number in range(min(self._at_once, len(waiting))):
                    nursery.start_soon(work, number)
        return linked

    def _comes_by_itself(self, name: str) -> bool:
        """Of two peers that learn of each other together, which one may wait for the other: half of all, to each."""
        own, position = self._home.own, peer_position(name)
        return (own < position) is bool((own ^ position) & 1)

    async def _try_to_link(self, name: str) -> bool:
        if await self._peer.link(name):
            self._failed.forget(name)
            return True
        self._failed.note(name)
        if len(self._lacking) < MOST_LACKING:
            self._lacking.add(name)
        return False

    async def _refresh_buckets(self) -> None:
        """Rule 4."""
        self._refreshed_beyond = self._home.height
        if self._home.height == POSITION_BITS:
            self._size.note_all(len(self._home) + 1)
        due = [bucket for bucket in range(self._home.height, POSITION_BITS) if self._is_due(bucket)]
        targets: list[int | None] = [None] * self._size.missing if self._home.height < POSITION_BITS else []

        async def work() -> None:
            while due:
                await self._refresh(due.pop())
            while targets:
                targets.pop()
                target = self._random.getrandbits(POSITION_BITS)
                found, _ = await self._peer.look_up(target, HOME_SIZE)
                self._note_size(target, found)

        async with trio.open_nursery() as nursery:
            for _ in range(_BUCKETS_AT_ONCE):
                nursery.start_soon(work)

    def _is_due(self, bucket: int) -> bool:
        since = trio.current_time() - self._looked_up.get(bucket, -REFRESH)
        lacks_far_links = not self._home.keeps_bucket(bucket) and len(self._far.get(bucket, ())) < FAR_LINKS
        return since >= (INTERVAL / 2 if lacks_far_links or self._home.has_filled(bucket) else REFRESH)

    async def _refresh(self, bucket: int) -> None:
        target = self._home.own ^ 1 << bucket ^ self._random.getrandbits(bucket)
        found, is_exact = await self._peer.look_up(target, HOME_SIZE)
        inside = [name for name in found if self._home.bucket_of(peer_position(name)) == bucket]
        if len(inside) < HOME_SIZE:
            await self._link(name for name in inside if self._peer.is_dialable(name))
        if not is_exact:
            self._is_vague = True  # whoever answered may know a part only, or we take the network for larger than it is
            return
        self._note_size(target, found)
        now = trio.current_time()
        before = set(self._home.kept_members())
        self._home.note_bucket(bucket, len(inside), now)
        if before != set(self._home.kept_members()):
            for callback in self._when_kept_changes:
                callback()
        self._looked_up[bucket] = now
        if len(inside) < HOME_SIZE:
            self._far.pop(bucket, None)
            self._thin_found = now
        else:
            await self._choose_far(bucket, inside)
        self._peer.note_keeping()

    async def _choose_far(self, bucket: int, inside: Sequence[str]) -> None:
        """Have two links into a bucket, of those that were found there."""
        chosen = self._far.setdefault(bucket, set())
        candidates = [name for name in inside if name not in chosen and self._peer.is_dialable(name)]
        wanted = self._random.sample(candidates, min(max(FAR_LINKS - len(chosen), 0), len(candidates)))
        for name in wanted:
            if name in set(self._peer.members()) or await self._try_to_link(name):
                chosen.add(name)

    def _note_size(self, target: int, found: Collection[str]) -> None:
        if len(found) >= HOME_SIZE:
            self._size.note(len(found), max(peer_position(name) ^ target for name in found))
