"""Members with their homes alone, kept by `HomeUpkeep` over a network that takes time."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from functools import partial

import trio

from overlay.discovery.home import HOME_SIZE, Home
from overlay.discovery.home_upkeep import HomeUpkeep
from overlay.discovery.home_view import HomeView, HomeViews
from overlay.discovery.keyspace import nearest, peer_position
from overlay.discovery.recursive import KnownMember
from overlay.discovery.size_estimate import SizeEstimate
from overlay.errors import Unreachable

LATENCY = 0.01  # seconds, up to


class Resident:
    """One member. Satisfies `home_view.Calling` and `home_upkeep.Searching`."""

    def __init__(self, world: HomeWorld, peer_id: str) -> None:
        self.world = world
        self.peer_id = peer_id
        self.home = Home(peer_position(peer_id))
        self.linked: set[str] = set()
        self.stop = trio.CancelScope()
        self.calls = 0
        self.upkeep = HomeUpkeep(self.home, SizeEstimate(), self, random.Random(world.random.random()))
        self.views = HomeViews(
            self, self.home, partial(KnownMember, addresses=()), self._learn, self.upkeep.note_difference
        )

    async def run(self) -> None:
        with self.stop:
            await self.upkeep.run()

    def neighbours(self) -> set[str]:
        return set(self.home.kept_members())

    def up(self, peer_id: str) -> None:
        if peer_id not in self.linked:
            self.linked.add(peer_id)
            self.home.add(peer_id, peer_position(peer_id))
            self.upkeep.note_up(peer_id)

    def down(self, peer_id: str, *, is_lost: bool) -> None:
        if peer_id in self.linked:
            self.linked.discard(peer_id)
            was_kept = is_lost and self.home.keeps(peer_position(peer_id))
            self.home.remove(peer_id, peer_position(peer_id))
            self.upkeep.note_down(peer_id, was_kept=was_kept)

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        """Over a link, which is made where there is none."""
        self.calls += 1
        if not await self.link(peer_id):
            raise Unreachable(peer_id, method, "nobody is there")
        answer = await self.world.residents[peer_id].views.serve(self.peer_id, body)
        await self.world.pass_time()
        return answer

    def members(self) -> list[str]:
        return sorted(self.linked)

    def is_dialable(self, peer_id: str) -> bool:
        return peer_id in self.world.residents

    async def ask_home(self, peer_id: str, around: int, height: int) -> HomeView:
        return await self.views.ask(peer_id, around, height)

    async def look_up(self, position: int, count: int) -> tuple[list[str], bool]:
        await self.world.pass_time()
        return nearest(position, self.world.residents, count), True

    def note_keeping(self) -> None:
        """Nothing here is closed for not being needed."""

    async def link(self, peer_id: str) -> bool:
        await self.world.pass_time()
        other = self.world.residents.get(peer_id)
        if other is None or self.peer_id not in self.world.residents:
            return False
        self.up(peer_id)
        other.up(self.peer_id)
        return True

    def _learn(self, member: KnownMember, teller: str) -> bool:
        return member.peer_id != self.peer_id


class HomeWorld:
    """All of them."""

    def __init__(self, nursery: trio.Nursery, randomness: random.Random) -> None:
        self.nursery = nursery
        self.random = randomness
        self.residents: dict[str, Resident] = {}

    async def pass_time(self) -> None:
        await trio.sleep(self.random.uniform(0, LATENCY))

    def settle(self, peer_ids: Sequence[str]) -> None:
        """Have members whose homes are whole, with no other links than one of both sides needs."""
        self.residents = {peer_id: Resident(self, peer_id) for peer_id in peer_ids}
        for peer_id, others in self.lacking().items():
            for other in sorted(others):
                self.residents[peer_id].up(other)
                self.residents[other].up(peer_id)
        for resident in self.residents.values():
            self.nursery.start_soon(resident.run)

    async def join(self, peer_id: str) -> None:
        """Through any who is there."""
        through = self.random.choice(sorted(self.residents)) if self.residents else None
        joined = self.residents[peer_id] = Resident(self, peer_id)
        if through is not None:
            await joined.link(through)
        self.nursery.start_soon(joined.run)
        await joined.upkeep.run_once()

    def kill(self, peer_ids: Collection[str]) -> None:
        """All at once; those linked with them notice soon, each at another moment."""
        for victim in [self.residents.pop(peer_id) for peer_id in peer_ids]:
            victim.stop.cancel()
            for peer_id in sorted(victim.linked & self.residents.keys()):
                self.nursery.start_soon(self._notice, self.residents[peer_id], victim.peer_id)

    async def _notice(self, resident: Resident, victim: str) -> None:
        await self.pass_time()
        resident.down(victim, is_lost=True)

    def lacking(self) -> dict[str, set[str]]:
        """Per member who belongs into its home, by brute force, and isn't linked there."""
        everybody = {peer_id: peer_position(peer_id) for peer_id in self.residents}
        lacking: dict[str, set[str]] = {}
        for peer_id, resident in self.residents.items():
            distances = {other: everybody[other] ^ everybody[peer_id] for other in everybody if other != peer_id}
            if len(distances) >= HOME_SIZE:
                height = sorted(distances.values())[HOME_SIZE - 2].bit_length()
                distances = {other: d for other, d in distances.items() if d.bit_length() <= height}
            lacking[peer_id] = distances.keys() - resident.neighbours()
        return {peer_id: others for peer_id, others in lacking.items() if others}
