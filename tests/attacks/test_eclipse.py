"""Ids ground close to a resource don't own it: what honest nodes write to it, honest nodes read.

The attackers take all of the 20 nearest places. They are linked to everybody, so that lookups find them alive.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio

from overlay.discovery.keyspace import nearest, resource_position
from registry.model.signing import key_id_of
from tests.attacks.eclipse import KINDS, Attackers, ground
from tests.end_to_end.network import eventually
from tests.end_to_end.test_many_nodes import Crowd, Member, crowd

REPLICAS: Final = 20
MAJORITY: Final = REPLICAS // 2 + 1
LABEL: Final = "eclipsed"
JOINED_WITHIN: Final = 120.0  # seconds, with all on one core
PASSED_ON_WITHIN: Final = 10.0  # seconds, likewise
ALL_VALUES: Final = {"value 0", "value 1", "value 2", "by a majority"}
LARGE: Final = [(honest, attackers, kind) for honest in (10, 24) for attackers in (20, 40, 100) for kind in KINDS]


class Eclipse(NamedTuple):
    """A network whose members nearest to a resource of `owner` are all of an attacker."""

    network: Crowd
    attackers: Attackers
    owner: Member
    resource_id: str

    @property
    def others(self) -> list[Member]:
        """Honest members without the owner."""
        return [member for member in self.network.members if member is not self.owner]


@asynccontextmanager
async def eclipse(folder: Path, honest: int, attackers: int, kind: str) -> AsyncIterator[Eclipse]:
    """`honest` nodes, of which one owns a resource, and `attackers` that are nearer to it than those."""
    async with crowd(folder, honest) as network, trio.open_nursery() as nursery:
        owner = random.choice(network.members)
        resource_id = key_id_of(LABEL, owner.peer_id)
        position, honest_ids = resource_position(resource_id), [member.peer_id for member in network.members]
        attacking = Attackers(ground(position, honest_ids, attackers), kind, nursery)
        await attacking.join([(member.peer_id, member.node.peer.addresses()) for member in network.members])
        await linked(network, attacking)
        everybody = [*honest_ids, *attacking.peer_ids]
        assert not {*nearest(position, everybody, REPLICAS)} & {*honest_ids}, "all nearest places are the attacker's"
        yield Eclipse(network, attacking, owner, resource_id)
        nursery.cancel_scope.cancel()


async def linked(network: Crowd, attackers: Attackers) -> None:
    """Wait until everybody honest takes the attackers for members, and lets none of the others go for it."""
    everybody = {member.peer_id for member in network.members} | {*attackers.peer_ids}

    async def lacking() -> list[int]:
        await trio.lowlevel.checkpoint()
        known = [{member.peer_id, *member.node.peer.members()} for member in network.members]
        return [len(everybody - those) for those in known if everybody - those]

    await eventually(lacking, lambda left: not left, JOINED_WITHIN)


async def holds_what_it_should(attack: Eclipse) -> None:
    """What is acknowledged is read, by one and by three replicas' word; what isn't, is said not to be."""
    owner = attack.owner
    registry = owner.node.registry
    created = await registry.create_resource(LABEL)
    assert created.resource_id == attack.resource_id, created.errors
    for number, writer in enumerate([owner, *attack.others[:2]]):
        done = await writer.node.registry.register_service(
            attack.resource_id, f"value {number}", writer.peer_id, f"service {number}"
        )
        assert done.success, done.errors
        expected = {f"value {earlier}" for earlier in range(number + 1)}
        for ack in (1, 3):
            await all_read(attack, ack, expected)


async def majority_is_reached_or_told(attack: Eclipse) -> None:
    writer = attack.others[2]
    began = time.monotonic()
    done = await writer.node.registry.register_service(
        attack.resource_id, "by a majority", writer.peer_id, "majority", factor=MAJORITY
    )
    if len(attack.network.members) >= MAJORITY:
        assert done.success, done.errors
    print(f"majority: {done}, {time.monotonic() - began:.2f} s")  # noqa: T201
    assert done.success or done.errors
    expected = {"value 0", "value 1", "value 2", "by a majority"}
    await all_read(attack, 3, expected)
    await all_read(attack, 1, expected)


async def ended_stays_ended(attack: Eclipse) -> None:
    """What was unregistered by a majority isn't shown, though attackers go on showing it."""
    owner = attack.owner
    done = await owner.node.registry.unregister_service(attack.resource_id, owner.peer_id)
    assert done.success, done.errors
    for ack in (1, 3):
        await all_read(attack, ack, {"value 1", "value 2", "by a majority"})


async def all_read(attack: Eclipse, ack: int, expected: set[str]) -> None:
    """Wait until all honest members read this, and nothing that was never there.

    What one replica acknowledged may be read a moment later elsewhere: it is passed on.
    """
    waiting, at_once, began = list(attack.network.members), 0, time.monotonic()

    async def lacking() -> dict[str, set[str]]:
        nonlocal at_once
        for member in tuple(waiting):
            read = await values_read(member, attack.resource_id, ack)
            assert read <= ALL_VALUES, "nothing forged is served"
            if read == expected:
                waiting.remove(member)
        at_once = at_once or len(attack.network.members) - len(waiting)
        return {member.peer_id: await values_read(member, attack.resource_id, ack) for member in waiting}

    await eventually(lacking, lambda left: not left, PASSED_ON_WITHIN)
    all_of_them = len(attack.network.members)
    took = time.monotonic() - began
    print(f"ack {ack}: {at_once} of {all_of_them} read it at once, all within {took:.2f} s")  # noqa: T201


async def values_read(reader: Member, resource_id: str, ack: int) -> set[str]:
    resolved = await reader.node.registry.resolve_resource(resource_id, ack)
    return {record.metadata.value for record in resolved.records or ()}


async def under_attack(folder: Path, honest: int, attackers: int, kind: str) -> None:
    async with eclipse(folder, honest, attackers, kind) as attack:
        await holds_what_it_should(attack)
        await majority_is_reached_or_told(attack)
        await ended_stays_ended(attack)


@pytest.mark.parametrize("kind", KINDS)
async def test_twenty_ids_ground_close_to_a_resource_do_not_own_it(tmp_path: Path, kind: str) -> None:
    await under_attack(tmp_path, 5, REPLICAS, kind)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("honest", "attackers", "kind"), LARGE)
async def test_however_many_ids_are_ground_they_do_not_own_a_resource(
    tmp_path: Path, honest: int, attackers: int, kind: str
) -> None:
    await under_attack(tmp_path, honest, attackers, kind)
