"""The end of a run: when all is well again hosts die, and whoever reads or watches of them has to know it in time.

While everything went wrong hosts were hidden and shown again; afterwards none may stay hidden that is there. Those that
lie are among the witnesses: some say of everybody that it is down, and the others nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import trio

from tests.simulation.peers import PeerNetwork
from tests.simulation.watcher import Watcher
from tests.simulation.world import World, WorldNode

VICTIMS: Final = 2
GONE_WITHIN: Final = 8.0  # seconds: for a machine that vanishes, some of whose witnesses lie
BACK_WITHIN: Final = 3.0  # seconds, of which joining the others again takes one
READERS: Final = 3
LOOKS: Final = 0.1  # seconds between two looks


class Outcome(msgspec.Struct):
    """What came of it. `gone` and `back`: seconds until everybody knew."""

    victims: int = 0
    gone: float = 0.0
    back: float = 0.0


class Deaths:
    """Use `check_that_nobody_is_down` and `run`."""

    def __init__(
        self,
        world: World,
        network: PeerNetwork,
        watchers: Sequence[Watcher],
        randomness: random.Random,
        note: Callable[[str], None],
    ) -> None:
        self._world = world
        self._network = network
        self._watchers = watchers
        self._random = randomness
        self._note = note

    def check_that_nobody_is_down(self) -> None:
        """Whoever is up is so for all that follow it."""
        wrong = list(self._told_otherwise(self._world.up(), is_up=True))
        assert not wrong, "; ".join(wrong)

    async def run(self) -> Outcome:
        """Hosts of what is watched die, and come back."""
        victims = self._victims()
        if not victims:
            return Outcome()
        resources = sorted(
            {watcher.resource_id for watcher in self._watchers if self._of(watcher, {node.peer_id for node in victims})}
        )
        died = trio.current_time()
        for node in victims:
            await self._world.crash(node)
        gone = await self._until_all_know(victims, died, is_up=False, within=GONE_WITHIN)
        self.check_that_nobody_is_down()
        await self._check_reading(resources, victims, is_up=False)
        for node in victims:
            await self._world.start(node)
        back = await self._until_all_know(victims, trio.current_time(), is_up=True, within=BACK_WITHIN)
        self.check_that_nobody_is_down()
        await self._check_reading(resources, victims, is_up=True)
        return Outcome(len(victims), gone, back)

    def _victims(self) -> list[WorldNode]:
        """Hosts of what somebody else watches, not so many that those who are left can't tell who lost the others."""
        hosts = {
            record.metadata.peer_id
            for watcher in self._watchers
            for record in watcher.told.visible.values()
            if record.metadata.peer_id != watcher.node.peer_id
        }
        found = [node for node in self._world.up() if node.peer_id in hosts]
        return self._random.sample(found, min(VICTIMS, len(found)))

    async def _until_all_know(self, victims: Sequence[WorldNode], began: float, *, is_up: bool, within: float) -> float:
        """Seconds that it takes from `began` on. Raises AssertionError where it takes longer."""
        while wrong := [*self._told_otherwise(victims, is_up=is_up), *self._not_told(victims, is_up=is_up)]:
            took = trio.current_time() - began
            assert took < within, f"after {took:.1f} s {'; '.join(wrong)}"
            await trio.sleep(LOOKS)
        took = trio.current_time() - began
        self._note(
            f"all know after {took:.2f} that {[node.number for node in victims]} are {'up' if is_up else 'down'}"
        )
        return took

    def _told_otherwise(self, hosts: Sequence[WorldNode], *, is_up: bool) -> Iterator[str]:
        """Who follows one of these, and takes it for up though it is down, or the other way round."""
        for node in self._world.up():
            assert node.parts is not None
            for host in hosts:
                standing = node.parts.health_of_hosts.standing_of(host.peer_id)
                is_followed = node.parts.health_of_hosts.follows(host.peer_id)
                if is_followed and standing is not None and standing.is_up != is_up:
                    yield f"node {node.number} takes {self._called(host)} for {'up' if standing.is_up else 'down'}"

    def _not_told(self, hosts: Sequence[WorldNode], *, is_up: bool) -> Iterator[str]:
        """Who watches records of one of these, and wasn't told yet."""
        for watcher in self._watchers:
            for host in hosts:
                if watcher.node.is_up and any(
                    (slot in watcher.told.down) == is_up for slot in self._of(watcher, {host.peer_id})
                ):
                    yield f"who watches through node {watcher.node.number} wasn't told of {self._called(host)}"

    def _of(self, watcher: Watcher, hosts: set[str]) -> list[object]:
        return [slot for slot in watcher.told.visible if slot.peer_id in hosts]

    async def _check_reading(self, resources: Sequence[str], victims: Sequence[WorldNode], *, is_up: bool) -> None:
        """Who reads finds the records of those that are up. One that hadn't read of a host looks for itself first."""
        watching = [watcher.node for watcher in self._watchers if watcher.node.is_up]
        for node in self._random.sample(watching, min(READERS, len(watching))):
            for resource_id in resources:
                until = trio.current_time() + GONE_WITHIN
                while (found := await self._read(node, resource_id, victims)) != (
                    await self._read(node, resource_id, victims, include_down=True) if is_up else set()
                ):
                    assert trio.current_time() < until, f"node {node.number} reads {found} of {resource_id}, {is_up=}"
                    await trio.sleep(10 * LOOKS)

    async def _read(
        self, node: WorldNode, resource_id: str, victims: Sequence[WorldNode], *, include_down: bool = False
    ) -> set[int]:
        """The numbers of those of the victims whose records are found."""
        assert node.parts is not None
        resolved = await node.parts.registry.resolve_resource(resource_id, 1, include_down=include_down)
        assert resolved.records is not None, resolved.errors
        hosts = {record.metadata.peer_id for record in resolved.records}
        return {victim.number for victim in victims if victim.peer_id in hosts}

    def _called(self, host: WorldNode) -> str:
        if host.is_up:
            return f"node {host.number}, which is up,"
        return f"node {host.number}, which {'lost its power' if host.peer_id in self._network.powerless else 'ended'},"
