"""Ids ground close to a resource don't own it: what honest nodes write to it, honest nodes read.

The attackers take all of the 20 nearest places. They are linked to everybody, so that lookups find them alive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio
import trio.testing

from overlay.discovery.keyspace import nearest, peer_position, resource_position
from registry.client.registry import Registry
from registry.model.signing import key_id_of
from tests.attacks.eclipse import KINDS, LYING, SILENT, Attackers, ground
from tests.end_to_end.network import eventually
from tests.end_to_end.test_many_nodes import Crowd, crowd
from tests.simulation.nodes import simulated_nodes

REPLICAS: Final = 20
MAJORITY: Final = REPLICAS // 2 + 1
LABEL: Final = "eclipsed"
JOINED_WITHIN: Final = 120.0  # seconds, with all on one core
PASSED_ON_WITHIN: Final = 10.0  # seconds, likewise
ALL_VALUES: Final = {"value 0", "value 1", "value 2", "by a majority"}
LARGE: Final = [(honest, attackers, kind) for honest in (10, 24) for attackers in (20, 40, 100) for kind in KINDS]


class Honest(NamedTuple):
    """A node, and whom it acts for."""

    peer_id: str
    registry: Registry


class Eclipse(NamedTuple):
    """A network whose members nearest to a resource of the first honest one are all of an attacker."""

    honest: Sequence[Honest]
    attackers: Attackers

    @property
    def resource_id(self) -> str:
        return key_id_of(LABEL, self.honest[0].peer_id)


def attackers_of(honest: Sequence[str], wanted: int, kind: str) -> Attackers:
    """Those that take all the nearest places of a resource of the first of these peers."""
    position = resource_position(key_id_of(LABEL, honest[0]))
    attackers = Attackers(ground(position, honest, wanted), kind)
    assert not {*nearest(position, [*honest, *attackers.peer_ids], REPLICAS)} & {*honest}
    return attackers


@asynccontextmanager
async def eclipse(folder: Path, honest: int, attackers: int, kind: str) -> AsyncIterator[Eclipse]:
    """Whole nodes over real connections, all in this process."""
    async with crowd(folder, honest) as network, trio.open_nursery() as nursery:
        nodes = [member.node for member in network.members]
        attacking = attackers_of([node.peer.peer_id for node in nodes], attackers, kind)
        await attacking.join([(node.peer.peer_id, node.peer.addresses()) for node in nodes], nursery)
        await linked(network, attacking)
        yield Eclipse([Honest(node.peer.peer_id, node.registry) for node in nodes], attacking)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def simulated_eclipse(honest: int, attackers: int, kind: str) -> AsyncIterator[Eclipse]:
    """The same without connections, and with neighbourhoods as those who know everybody tell them."""
    async with simulated_nodes(honest) as (network, nodes):
        network.crowds = True
        attacking = attackers_of([node.peer_id for node in nodes], attackers, kind)
        for peer_id in attacking.peer_ids:
            attacking.serve_by(network.add(peer_id).serve)
        network.membership_changed()
        yield Eclipse([Honest(node.peer_id, node.registry) for node in nodes], attacking)


async def linked(network: Crowd, attackers: Attackers) -> None:
    """Wait until everybody honest takes the attackers for members, and lets none of the others go for it."""
    everybody = {member.peer_id for member in network.members} | {*attackers.peer_ids}

    async def lacking() -> list[int]:
        await trio.lowlevel.checkpoint()
        known = [{member.peer_id, *member.node.peer.members()} for member in network.members]
        return [len(everybody - those) for those in known if everybody - those]

    await eventually(lacking, lambda left: not left, JOINED_WITHIN)


async def holds_what_it_should(attack: Eclipse) -> None:
    """What is acknowledged is read, by one and by three replicas' word."""
    created = await attack.honest[0].registry.create_resource(LABEL)
    assert created.resource_id == attack.resource_id, created.errors
    for number, writer in enumerate(attack.honest[:3]):
        done = await writer.registry.register_service(attack.resource_id, f"value {number}", writer.peer_id, "s")
        assert done.success, done.errors
        for ack in (1, 3):
            await all_read(attack, ack, {f"value {earlier}" for earlier in range(number + 1)})


async def majority_is_reached_or_told(attack: Eclipse) -> None:
    writer, honest = attack.honest[3], len(attack.honest)
    done = await writer.registry.register_service(
        attack.resource_id, "by a majority", writer.peer_id, "s", factor=MAJORITY
    )
    if attack.attackers.kind == LYING or honest >= MAJORITY:
        assert done.success, done.errors  # liars' word counts, too: what they say isn't all that there is
    else:
        assert any(error.startswith(f"{honest} of ") for error in done.errors), done.errors
    for ack in (3, 1):
        await all_read(attack, ack, ALL_VALUES)


async def ended_stays_ended(attack: Eclipse) -> None:
    """What was unregistered isn't shown, though attackers go on showing it."""
    done = await attack.honest[0].registry.unregister_service(attack.resource_id, attack.honest[0].peer_id)
    assert done.success, done.errors
    for ack in (1, 3):
        await all_read(attack, ack, ALL_VALUES - {"value 0"})


async def all_read(attack: Eclipse, ack: int, expected: set[str]) -> None:
    """Wait until all honest members read this, and nothing that was never there.

    What one replica acknowledged may be read a moment later elsewhere: it is passed on.
    """
    waiting, at_once, began = list(attack.honest), -1, trio.current_time()

    async def lacking() -> dict[str, set[str]]:
        nonlocal at_once
        found = {reader: await values_read(reader, attack.resource_id, ack) for reader in waiting}
        assert all(read <= ALL_VALUES for read in found.values()), "nothing forged is served"
        waiting[:] = [reader for reader, read in found.items() if read != expected]
        at_once = len(attack.honest) - len(waiting) if at_once < 0 else at_once
        return {reader.peer_id: found[reader] for reader in waiting}

    await eventually(lacking, lambda left: not left, PASSED_ON_WITHIN)
    took = trio.current_time() - began
    print(f"ack {ack}: {at_once} of {len(attack.honest)} read it at once, all within {took:.2f} s")  # noqa: T201


async def values_read(reader: Honest, resource_id: str, ack: int) -> set[str]:
    resolved = await reader.registry.resolve_resource(resource_id, ack)
    return {record.metadata.value for record in resolved.records or ()}


async def under_attack(attack: Eclipse) -> None:
    await holds_what_it_should(attack)
    await majority_is_reached_or_told(attack)
    await ended_stays_ended(attack)


@pytest.mark.parametrize("kind", [LYING, pytest.param(SILENT, marks=pytest.mark.slow)])  # both in virtual time below
async def test_twenty_ids_ground_close_to_a_resource_do_not_own_it(tmp_path: Path, kind: str) -> None:
    async with eclipse(tmp_path, 5, REPLICAS, kind) as attack:
        await under_attack(attack)


async def test_silent_ids_ground_close_to_a_node_do_not_slow_its_lookups(tmp_path: Path) -> None:
    """They have the places of those who would confirm its home."""
    async with crowd(tmp_path, 5) as network, trio.open_nursery() as nursery:
        victim = network.members[0].node.peer
        others = [member.peer_id for member in network.members[1:]]
        attackers = Attackers(ground(peer_position(victim.peer_id), others, 3), SILENT)
        await attackers.join([(member.peer_id, member.node.peer.addresses()) for member in network.members], nursery)
        await linked(network, attackers)

        async def time_of_lookup() -> float:
            began = trio.current_time()
            await victim.nearest_to(peer_position(victim.peer_id), REPLICAS)
            return trio.current_time() - began

        await eventually(time_of_lookup, lambda seconds: seconds < 0.1, JOINED_WITHIN / 2)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_honest_replicas_of_a_whole_region_do_is_enough(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with simulated_eclipse(10, 2 * REPLICAS, kind) as attack:
        await under_attack(attack)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("honest", "attackers", "kind"), LARGE)
async def test_however_many_ids_are_ground_they_do_not_own_a_resource(
    tmp_path: Path, honest: int, attackers: int, kind: str
) -> None:
    async with eclipse(tmp_path, honest, attackers, kind) as attack:
        await under_attack(attack)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("honest", "attackers", "kind"), [*LARGE, *((60, 20, kind) for kind in KINDS)])
async def test_however_many_ids_are_ground_replicas_of_the_region_suffice(
    honest: int, attackers: int, kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with simulated_eclipse(honest, attackers, kind) as attack:
        await under_attack(attack)
