"""One replica that hides what there is, or shows what has ended, decides nothing, however fast it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio
import trio.testing

from overlay.discovery.keyspace import nearest, resource_position
from registry.model.decoding import decode_key_or_tombstone, decode_state
from registry.model.values import Key, Record
from registry.protocol.messages import PUT, READ, PutAnswer, PutBody, ReadBody, StatePage, build, parse
from registry.quorum.doubts import DOUBTED_FOR
from registry.replica.catch_up import CATCH_UP
from registry.replication.messages import PULL, REPLICATE, PullAnswer, ReplicateBody
from registry.settings import NodeSettings, RegistrySettings
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.registry.replication.test_recovery import change, update, values_at, wait_for_values
from tests.unit.registry.replication.test_replication import keepers, registered, world

REPLICAS: Final = 5
SLOW: Final = 1.0  # seconds that honest replicas take to answer: longer than a doubtful result waits
SETTINGS: Final = NodeSettings(registry=RegistrySettings(neighbourhood_size=REPLICAS, responsibility_margin=0))

HIDING: Final = "hiding"
"""Says that there is a key, and nothing else."""
OUTDATED: Final = "outdated"
"""Shows every record that it was ever sent, and no tombstone."""


class Liar:
    """Acknowledges whatever it is sent, at once."""

    def __init__(self, node: SimulatedNode, kind: str) -> None:
        self.peer_id = node.peer_id
        self.asked = 0
        self._kind = kind
        self._key = b""
        self._records: dict[str, bytes] = {}
        node.peer.intercept(PUT, self._put)
        node.peer.intercept(READ, self._read)

    async def _put(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        items = parse(body, PutBody).items
        for key, state in items:
            if key and isinstance(decode_key_or_tombstone(key), Key):
                self._key = key
            decoded = decode_state(state) if state else None
            if isinstance(decoded, Record):
                self._records[decoded.metadata.value] = state
        return build(PutAnswer((None,) * len(items)))

    async def _read(self, caller: str, body: object) -> object:
        await trio.lowlevel.checkpoint()
        parse(body, ReadBody)
        self.asked += 1
        states = tuple(self._records.values()) if self._kind == OUTDATED else ()
        return build(StatePage(bool(self._key), same=False, key=self._key, states=states, more=False))


class Scene(NamedTuple):
    """A resource whose nearest replica lies; `readers` aren't replicas."""

    resource_id: str
    owner: SimulatedNode
    readers: Sequence[SimulatedNode]
    liar: Liar


@asynccontextmanager
async def scene(kind: str, *, others_are_slow: bool) -> AsyncIterator[Scene]:
    async with simulated_nodes(12, SETTINGS) as (_, nodes):
        owner = nodes[0]
        created = await owner.registry.create_resource("hidden", factor=3)
        assert created.resource_id is not None, created.errors
        near = nearest(resource_position(created.resource_id), [node.peer_id for node in nodes], REPLICAS)
        by_id = {node.peer_id: node for node in nodes}
        liar = Liar(by_id[next(peer_id for peer_id in near if peer_id != owner.peer_id)], kind)
        for node in nodes:
            if others_are_slow and node.peer_id in near and node.peer_id != liar.peer_id:
                slow_down(node)
        readers = [node for node in nodes if node.peer_id not in near and node is not owner]
        yield Scene(created.resource_id, owner, readers, liar)


def slow_down(node: SimulatedNode) -> None:
    async def late(caller: str, body: object) -> object:
        await trio.sleep(SLOW)
        return await honest(caller, body)

    honest = node.peer.intercept(READ, late)


async def shown(reader: SimulatedNode, resource_id: str) -> set[str]:
    resolved = await reader.registry.resolve_resource(resource_id, 1)
    return {record.metadata.value for record in resolved.records or ()}


@pytest.mark.parametrize("kind", [HIDING, OUTDATED])
async def test_what_one_replica_hides_is_found_and_what_has_ended_is_not(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with scene(kind, others_are_slow=True) as attack:
        for value in ("stays", "ends"):
            host = attack.owner if value == "stays" else attack.readers[0]
            done = await host.registry.register_service(attack.resource_id, value, host.peer_id, "s", factor=4)
            assert done.success, done.errors
        done = await attack.readers[0].registry.unregister_service(
            attack.resource_id, attack.readers[0].peer_id, factor=4
        )
        assert done.success, done.errors
        await trio.sleep(120)  # longer than a node merges what was written through it into what it reads
        for reader in attack.readers:
            for _ in range(4):
                assert await shown(reader, attack.resource_id) == {"stays"}
                await trio.sleep(5)


async def test_a_replica_that_was_found_lying_is_asked_last(autojump_clock: trio.testing.MockClock) -> None:
    async with scene(HIDING, others_are_slow=False) as attack:
        done = await attack.owner.registry.register_service(
            attack.resource_id, "v", attack.owner.peer_id, "s", factor=REPLICAS
        )
        assert done.success, done.errors
        await trio.sleep(120)
        [reader, *_] = attack.readers
        for _ in range(3):  # it lacks a record, acknowledges the repair, and lacks the record still
            assert await shown(reader, attack.resource_id) == {"v"}
            await trio.sleep(5)
        asked = attack.liar.asked
        assert asked > 0
        for _ in range(3):
            assert await shown(reader, attack.resource_id) == {"v"}
        assert attack.liar.asked == asked
        await trio.sleep(DOUBTED_FOR)
        assert await shown(reader, attack.resource_id) == {"v"}
        assert attack.liar.asked == asked + 1, "after a while it is given another try"


async def test_one_liar_s_word_that_all_was_compared_makes_nobody_count(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """It is the first to speak, and the honest can't make themselves heard yet."""
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        back, liar, *_ = [node for node in keepers(made, resource_id) if node is not made.nodes[0]]
        await made.crash(back)
        await update(made.nodes[0], resource_id, "newer", factor=2)
        made.network.muted = {node.peer_id for node in made.up()} - {liar.peer_id}
        await made.start(back)
        began = trio.current_time()
        lie = build(ReplicateBody((), last=True))
        speaking = made.network.peers[liar.peer_id]
        for _ in range(5):
            await speaking.call(back.peer_id, REPLICATE, lie, timeout=5)
            await trio.sleep(CATCH_UP / 20)
            assert back.parts is not None
            assert not back.parts.replica.counts_for(resource_id)
        made.network.muted.clear()
        assert await back.parts.replica.wait_until_it_counts(resource_id)
        assert trio.current_time() - began <= CATCH_UP
        await wait_for_values(back, resource_id, {"newer"})


async def test_a_replica_that_lost_something_gets_it_though_one_only_says_that_it_compares(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, 8) as made:
        resource_id = await registered(made, made.nodes[0])
        failing, liar = [node for node in keepers(made, resource_id) if node is not made.nodes[0]][:2]

        async def lie(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            lied.append(caller)
            return build(PullAnswer())

        lied: list[str] = []
        made.network.peers[liar.peer_id].intercept(PULL, lie)
        statement = "BEFORE INSERT ON states BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        change(failing, f"CREATE TRIGGER failing {statement}")
        await update(made.nodes[0], resource_id, "newer", factor=2)
        await trio.sleep(10)
        assert await values_at(failing, resource_id) == {"v"}
        change(failing, "DROP TRIGGER failing")
        with trio.fail_after(30):
            assert failing.parts is not None
            while not failing.parts.replica.counts_for(resource_id):  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
        assert await values_at(failing, resource_id) == {"newer"}, "it counts no sooner"
        assert lied
