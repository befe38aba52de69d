"""Writes that replicas pass on, between whole nodes over a simulated network, in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from typing import cast

import msgspec
import trio

from overlay.errors import Refusal
from registry.codes import Code
from registry.model.values import encode
from registry.protocol.messages import HOLDS, MAX_ITEMS, PUT, HoldsAnswer, Item, PutBody, Spread, build, parse
from registry.protocol.network import Network
from registry.quorum.pass_on import CHECK_TRIES, PassOn
from registry.quorum.send_queue import SEND_TIMEOUT, SendQueue
from registry.quorum.write_machine import DIRECTLY
from registry.storage import Store
from tests.simulation.nodes import SimulatedNode, compared, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.longest_turn import LongestTurn
from tests.unit.registry.builders import NODE, NOW, a_key, a_record, a_tombstone, identity

KEY = a_key()
ITEM = Item(KEY, a_record(KEY.id))


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


async def split(nodes: list[SimulatedNode]) -> tuple[list[SimulatedNode], list[SimulatedNode]]:
    """The replicas of the item, nearest first, and the others."""
    members = await nodes[0].peer.neighbourhood(KEY.id, 20)
    near = sorted((node for node in nodes if node.peer_id in members), key=lambda node: members.index(node.peer_id))
    return near, [node for node in nodes if node.peer_id not in members]


async def holders(nodes: list[SimulatedNode]) -> set[str]:
    return {node.peer_id for node in nodes if (await node.store.resource(KEY.id)).slots}


def puts(network: SimulatedNetwork) -> list[tuple[str, str]]:
    return [(caller, callee) for caller, callee, method in network.calls if method == PUT]


async def keep_for_itself(node: SimulatedNode) -> None:
    """Has a node store what it's sent, say so, and pass nothing on."""

    async def store_alone(caller: str, body: object) -> object:
        return await honest(caller, build(PutBody(parse(body, PutBody).items)))

    honest = node.peer.intercept(PUT, store_alone)


STRANGER = identity(900).peer_id


async def test_a_write_is_sent_to_three_that_pass_it_on_and_everyone_gets_it_once(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        near, far = await split(nodes)
        outcome = await far[0].parts.writer.write(ITEM, factor=1, timeout=5)
        assert (outcome.stored >= 1, outcome.targets) == (True, 20)
        await trio.sleep(1)
        assert await holders(nodes) == {node.peer_id for node in near}
        assert Counter(callee for _, callee in puts(network)) == Counter(node.peer_id for node in near)
        assert Counter(caller for caller, _ in puts(network))[far[0].peer_id] == DIRECTLY
        assert sum(node.parts.pass_on.passed for node in nodes) == 17
        await trio.sleep(5)
        assert len(puts(network)) == 20, "nothing is passed on again, and the checks find nothing"


async def test_what_a_newer_write_replaced_is_not_looked_for(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        _, far = await split(nodes)
        for number in range(5):
            item = Item(KEY, a_record(KEY.id, value=str(number), issued=NOW + 1 + number))
            assert (await far[0].parts.writer.write(item, factor=1, timeout=5)).stored >= 1
            await trio.sleep(0.3)
        await trio.sleep(5)
        assert len(puts(network)) <= 5 * 20
        assert sum(node.parts.pass_on.found_missing for node in nodes) == 0


async def test_a_replica_that_writes_keeps_it_and_sends_to_its_share_itself(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        near, _ = await split(nodes)
        assert (await near[7].parts.writer.write(ITEM, factor=1, timeout=5)).stored >= 1
        await trio.sleep(1)
        assert await holders(nodes) == {node.peer_id for node in near}
        assert Counter(callee for _, callee in puts(network)) == Counter(
            node.peer_id for node in near if node is not near[7]
        )


async def test_factor_counts_the_own_words_of_replicas_only(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        near, far = await split(nodes)
        network.delay = 0.1
        outcome = await far[0].parts.writer.write(ITEM, factor=11, timeout=5)
        assert outcome.stored >= 11
        from_writer = {callee for caller, callee in puts(network) if caller == far[0].peer_id}
        assert await holders(near) & from_writer
        assert len(from_writer) == 11


async def test_how_many_took_it_from_others_is_told_apart_from_those_who_said_so_themselves(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (_, nodes):
        _, far = await split(nodes)
        outcome = await far[0].parts.writer.write(ITEM, factor=3, timeout=5)
        assert (outcome.stored, outcome.told) == (3, 0)
        await trio.sleep(1)
        progress = await far[0].parts.node_api.progress(outcome.write_id, timeout=5)
        assert progress is not None
        assert (progress.stored, progress.told, progress.targets) == (3, 17, 20)
        assert await far[0].parts.node_api.progress("another", timeout=5) is None


async def test_recipients_that_are_gone_are_made_up_for_with_their_shares(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        near, far = await split(nodes)
        gone = near[::2]
        network.stalled.update(node.peer_id for node in gone)  # still seen by the others
        outcome = await far[0].parts.writer.write(ITEM, factor=3, timeout=20)
        assert outcome.stored >= 3, outcome.errors
        await trio.sleep(SEND_TIMEOUT + 5)
        assert await holders(near) >= {node.peer_id for node in near if node not in gone}


async def test_what_recipients_keep_for_themselves_the_others_find_out_and_pass_on(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        await compared(nodes)
        near, far = await split(nodes)
        outcome = await far[0].parts.writer.write(ITEM, factor=3, timeout=5)
        directly = [callee for caller, callee in puts(network) if caller == far[0].peer_id]
        assert outcome.stored == 3
        for node in near:
            if node.peer_id in directly[:2]:
                await keep_for_itself(node)
        again = Item(KEY, a_record(KEY.id, value="again", issued=NOW + 1))
        network.calls.clear()
        await far[0].parts.writer.write(again, factor=3, timeout=5)  # within a second: to the same three
        assert {callee for caller, callee in puts(network) if caller == far[0].peer_id} == set(directly)
        await trio.sleep(3)
        assert again.state is not None
        for node in near:
            assert (await node.store.resource(KEY.id)).slots[again.state.slot] == again.state
        assert sum(node.parts.pass_on.found_missing for node in nodes) >= 1


async def test_when_whoever_is_asked_for_a_write_does_not_answer_another_is_asked(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        recipient, *others = nodes[:21]
        refused: list[str] = []

        async def refuse_first(caller: str, body: object) -> object:
            await trio.lowlevel.checkpoint()
            if len(refused) < CHECK_TRIES - 1:
                refused.append(caller)
                raise Refusal(Code.STORAGE, "the disk refused")
            return build(HoldsAnswer((False,)))

        for node in others:
            node.peer.intercept(HOLDS, refuse_first)
        # The others are in nobody's share, as if those who are to pass it on to them didn't.
        spread = Spread(tuple(node.peer_id for node in others[:15]), tuple(node.peer_id for node in nodes[:21]))
        while not any(method == HOLDS for _, _, method in network.calls):  # who checks is drawn
            put = PutBody.of([Item(KEY, a_record(KEY.id, issued=NOW + len(network.calls)))], [spread])
            await nodes[23].peer.call(recipient.peer_id, PUT, build(put), timeout=5)
            await trio.sleep(3)
        await trio.sleep(10)
        assert len(refused) == CHECK_TRIES - 1
        assert len({callee for _, callee, method in network.calls if method == HOLDS}) == CHECK_TRIES
        assert recipient.parts.pass_on.found_missing >= 1


async def test_whoever_is_near_and_unknown_to_the_writer_gets_it_too(autojump_clock) -> None:
    async with simulated_nodes(12, clock=clock) as (_, nodes):
        await compared(nodes)
        writer, recipient, known, unknown = nodes[:4]
        spread = Spread((known.peer_id,), (recipient.peer_id, known.peer_id, *(node.peer_id for node in nodes[4:])))
        await writer.peer.call(recipient.peer_id, PUT, build(PutBody.of([ITEM], [spread])), timeout=5)
        await trio.sleep(0.5)
        assert await holders(nodes) == {recipient.peer_id, known.peer_id, unknown.peer_id}


async def test_only_members_are_passed_anything_and_only_once(autojump_clock) -> None:
    async with simulated_nodes(12, clock=clock) as (network, nodes):
        caller, recipient, known = nodes[:3]
        spread = Spread((known.peer_id, "nobody", caller.peer_id), tuple(node.peer_id for node in nodes))
        for _ in range(5):
            await caller.peer.call(recipient.peer_id, PUT, build(PutBody.of([ITEM], [spread])), timeout=5)
        await trio.sleep(0.5)
        sent = Counter(callee for sender, callee in puts(network) if sender == recipient.peer_id)
        assert sent == {known.peer_id: 1, caller.peer_id: 1}


async def test_a_write_that_is_refused_is_not_passed_on(autojump_clock) -> None:
    async with simulated_nodes(12, clock=clock) as (network, nodes):
        forged = Item(msgspec.structs.replace(KEY, signature=b"x" * 64))
        spread = Spread((nodes[2].peer_id,), tuple(node.peer_id for node in nodes))
        [[error]] = await nodes[0].peer.call(  # type: ignore[misc]
            nodes[1].peer_id, PUT, build(PutBody.of([forged], [spread])), timeout=5
        )
        assert error[0] == Code.KEY_SIGNATURE
        await trio.sleep(2)
        assert len(puts(network)) == 1


async def test_positions_of_no_peer_are_left_out(autojump_clock) -> None:
    async with simulated_nodes(3, clock=clock) as (_, nodes):
        body = [[[encode(KEY), b""]], [nodes[2].peer_id], [[[0, 7], [0, 9], [8]]]]
        assert await nodes[0].peer.call(nodes[1].peer_id, PUT, body, timeout=5) == [[None]]
        await trio.sleep(0.5)
        assert (await nodes[2].store.resource(KEY.id)).key == KEY


async def test_a_write_goes_on_when_its_caller_leaves(autojump_clock) -> None:
    async with simulated_nodes(24, clock=clock) as (network, nodes):
        near, far = await split(nodes)
        network.delay = 0.5
        for number, moment in enumerate((0.0, 0.001, 0.3, 0.7)):
            item = Item(KEY, a_record(KEY.id, value=str(number), issued=NOW + 1 + number))
            with trio.move_on_after(moment) as caller:
                await far[0].parts.writer.write(item, factor=20, timeout=30)
            assert caller.cancelled_caught
            await trio.sleep(10)
            assert item.state is not None
            for node in near:
                assert (await node.store.resource(KEY.id)).slots[item.state.slot] == item.state, moment


async def test_a_put_goes_on_when_its_caller_leaves_to_its_share_and_then_to_all(
    autojump_clock,
) -> None:
    async with simulated_nodes(12, clock=clock) as (_, nodes):
        spread = Spread((nodes[2].peer_id,), tuple(node.peer_id for node in nodes))
        body = build(PutBody.of([ITEM], [spread]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[1].peer.handle, PUT, nodes[0].peer_id, body)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.sleep(0.09)
        assert await holders(nodes) == {nodes[1].peer_id, nodes[2].peer_id}
        await trio.sleep(1)
        assert len(await holders(nodes)) == 12, "who wrote it may have died before it sent it to anybody else"


async def test_what_a_stranger_puts_without_waiting_isnt_sent_on(autojump_clock) -> None:
    async with simulated_nodes(6, clock=clock) as (_, nodes):
        await compared(nodes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[1].peer.handle, PUT, STRANGER, build(PutBody.of([ITEM], [None])))
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.sleep(2)
        assert await holders(nodes) == {nodes[1].peer_id}


class Crowded:
    """A network of this node and many members, and what it sends them with."""

    def __init__(self) -> None:
        self.peer_id = NODE.peer_id
        self.topics = self
        self.puts = 0
        self._members = [identity(1000 + number).peer_id for number in range(250)]

    def serve(self, *_: object) -> None:
        """Nobody asks."""

    def members(self) -> list[str]:
        return self._members

    def peers_in(self, _: str) -> Collection[str]:
        return ()

    def put(self, *_: object, **__: object) -> None:
        self.puts += 1


async def test_a_frame_of_writes_to_a_large_region_holds_nobody_up() -> None:
    """It took 0.2 s to say to whom all are passed on."""
    network = Crowded()
    pass_on = PassOn(cast("Network", network), cast("Store", None), cast("SendQueue", network), 20, random.Random(1))
    targets = tuple(network.members()[:64])
    key = a_key()
    items = [Item(key, a_tombstone(key.id, issuer=identity(5000 + number))) for number in range(MAX_ITEMS)]
    turns = LongestTurn()
    trio.lowlevel.add_instrument(turns)
    try:
        await pass_on.take("writer", items, (Spread(targets, targets) for _ in items))
    finally:
        trio.lowlevel.remove_instrument(turns)
    assert network.puts >= MAX_ITEMS * len(targets)
    assert turns.longest < 0.1
    before = network.puts
    await pass_on.take("writer", items, (Spread(targets, targets) for _ in items))
    assert network.puts == before, "whoever puts the same again has nobody sent it again"
