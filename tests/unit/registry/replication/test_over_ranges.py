"""Comparing whole ranges with one peer: what it costs, what it finds, and what is left out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pytest
import trio

from overlay.discovery.keyspace import resource_position
from overlay.errors import CallRefused
from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.values import Key, Record
from registry.protocol.messages import Item, build, parse
from registry.replica.takeover import Takeover
from registry.replication.anti_entropy import AntiEntropy
from registry.replication.epoch import EPOCH, epoch_of
from registry.replication.messages import COMPARE_RANGES, RangesAnswer, RangesBody, packed, unpacked
from registry.replication.ranges import EVERYWHERE, Range, covers
from registry.settings import NodeSettings, RegistrySettings, UpkeepSettings
from registry.storage import Transaction
from tests.attacks.fuzz.driver import is_within, settled
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.longest_turn import LongestTurn
from tests.unit.registry.builders import NOW, a_key, a_record, a_tombstone, identity

QUIET = UpkeepSettings(clear_expired=1e6, replicate=1e6, renew=1e6)
HALF = 2**255
LONGEST: Final = 0.02  # seconds of CPU for one turn
TRIES: Final = 3
SKEW = RegistrySettings().clock_skew


def clock() -> float:
    return NOW + 10


def settings(**rules: int) -> NodeSettings:
    return NodeSettings(registry=RegistrySettings(**rules), upkeep=QUIET)


async def fill(node: SimulatedNode, keys: list[Key], records: list[Record]) -> None:
    def put(transaction: Transaction) -> None:
        for key in keys:
            transaction.put_key(key, NOW, 0)
        for record in records:
            transaction.put_state(record, 0)

    await node.store.write(put)


async def compared(node: SimulatedNode) -> tuple[int, int]:
    """Messages and bytes that comparing everything cost a node."""
    before = node.parts.replication.status()
    await node.parts.replication.replicate()
    after = node.parts.replication.status()
    return after.messages - before.messages, after.bytes - before.bytes


async def test_equal_replicas_find_that_out_in_two_messages(autojump_clock) -> None:
    keys = [a_key(str(number)) for number in range(300)]
    async with simulated_nodes(2, settings(), clock) as (_, nodes):
        await trio.sleep(5)
        for node in nodes:
            await fill(node, keys, [a_record(key.id) for key in keys[:50]])
        messages, size = await compared(nodes[0])
        assert (messages, nodes[0].parts.replication.status().compared) == (2, 300)
        assert size < 100


async def test_what_differs_is_found_and_handed_over_by_whoever_has_it(autojump_clock) -> None:
    keys = [a_key(str(number)) for number in range(120)]
    records = [a_record(key.id) for key in keys]
    ended = [a_tombstone(key.id, issued=NOW + 1) for key in keys[:3]]
    async with simulated_nodes(2, settings(), clock) as (_, [one, other]):
        await trio.sleep(5)
        await fill(one, keys, records[5:])
        await fill(other, keys[:-4], records[:-4])
        await other.store.write(lambda transaction: [transaction.put_state(state, 0) for state in ended])
        await compared(one)
        assert one.parts.replication.status().repaired == 4
        await compared(other)
        assert other.parts.replication.status().repaired == 5
        for key in keys:
            assert await one.store.resource(key.id) == await other.store.resource(key.id)
        assert [await compared(node) for node in (one, other)] == [(2, pytest.approx(60, abs=20))] * 2


async def test_what_is_too_old_by_either_clock_is_no_difference(autojump_clock) -> None:
    """One node has collected it already."""
    keys = [a_key(str(number)) for number in range(40)]
    old, young = NOW + 10 - 86_400 + SKEW + 1, NOW
    records = [a_record(key.id, issued=young, created=young) for key in keys]
    expired = [a_record(key.id, identity(70), issued=old) for key in keys[:7]]
    async with simulated_nodes(2, settings(), clock) as (_, [one, other]):
        await trio.sleep(5)
        await fill(one, keys, [*records, *expired])
        await fill(other, keys, records)
        assert (await compared(one))[0] == (await compared(other))[0] == 2


async def test_what_a_peers_limits_refused_is_left_out_until_it_changes(autojump_clock) -> None:
    key = a_key()
    mine, theirs = ([a_record(key.id, identity(first + number)) for number in range(2)] for first in (30, 40))
    async with simulated_nodes(2, settings(records_per_key=2), clock) as (_, [one, other]):
        await trio.sleep(5)
        await fill(one, [key], mine)
        await fill(other, [key], theirs)
        for node in (one, other):
            await compared(node)
        assert [node.parts.replication.status().refused for node in (one, other)] == [2, 2]
        assert [(await compared(node))[0] for node in (one, other)] == [2, 2], "each leaves out what the other refused"
        renewed = a_record(key.id, identity(30), issued=NOW, created=NOW + 5)
        assert await one.parts.replica.ingest.store([Item(key, renewed)], one.peer_id) == [None]
        assert (await compared(one))[0] > 2, "it is another now"
        assert one.parts.replication.status().refused == 3
        assert (await compared(one))[0] == 2


async def test_a_key_that_was_refused_with_all_under_it_is_left_out_too(autojump_clock) -> None:
    key = a_key("too much")
    async with simulated_nodes(2, settings(keys_per_owner=3), clock) as (_, [one, other]):
        await trio.sleep(5)
        others = [a_key(str(number)) for number in range(3)]
        await fill(one, [*others, key], [a_record(key.id)])
        await fill(other, others, [])
        for _ in range(2):
            await compared(one)
        assert one.parts.replication.status().refused == 2
        assert (await compared(one))[0] == 2


async def test_ranges_that_a_peer_doesnt_take_are_told_of(autojump_clock) -> None:
    """By its view it is too far away: then only the rest is compared."""
    keys = [a_key(str(number)) for number in range(60)]
    async with simulated_nodes(2, settings(), clock) as (network, [one, _]):
        await trio.sleep(5)
        await fill(one, keys, [])
        taken = (Range(0, HALF),)
        far = network.add(identity(80).peer_id)

        async def answer(caller: str, body: object) -> object:
            request = parse(body, RangesBody)
            if unpacked(request.ranges) != taken:
                return build(RangesAnswer(False, ranges=packed(taken)))
            return build(RangesAnswer(False, ((True, b""),)))

        far.serve(COMPARE_RANGES, answer)
        anti_entropy = AntiEntropy(one.peer, one.store, one.parts.replica, clock)
        result = await anti_entropy.over_ranges(far.peer_id, EVERYWHERE, last=False)
        assert result.unwanted == (Range(HALF, 2**256),)
        assert sorted(result.differing) == sorted(key.id for key in keys if resource_position(key.id) < HALF)


async def test_the_stricter_rules_count_on_both_sides(autojump_clock) -> None:
    async with simulated_nodes(2, settings(), clock) as (_, [one, other]):
        await trio.sleep(5)
        epoch = epoch_of(clock(), SKEW)
        assert epoch % EPOCH == 0
        assert clock() + SKEW < epoch <= clock() + SKEW + EPOCH
        laxer = ExpiryHorizon.at(epoch - 1000, settings().registry)
        body = RangesBody(epoch, laxer, packed(EVERYWHERE), b"x" * 16, (), False)
        answer = parse(await one.peer.call(other.peer_id, COMPARE_RANGES, build(body), timeout=5), RangesAnswer)
        assert answer == RangesAnswer(False, horizon=ExpiryHorizon.at(epoch, settings().registry))
        body = RangesBody(epoch + 600, None, packed(EVERYWHERE), b"x" * 16, (), False)
        with pytest.raises(CallRefused) as refused:
            await one.peer.call(other.peer_id, COMPARE_RANGES, build(body), timeout=5)
        assert refused.value.code == Code.CLOCK


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        [NOW, None, [[b"\x01", b"\x01"]], b"", [], False],
        [NOW, None, [[b"\x05", b"\x07"], [b"\x06", b""]], b"", [], False],
        [NOW, None, [[b"x" * 33, b""]], b"", [], False],
        [NOW, None, [[b"", b""]] * 1025, b"", [], False],
        [NOW, None, [[b"", b""]], b"", [b"\x10"], False],
        [NOW, None, [[b"", b""]], b"", [b"\x01" * 17], False],
        [NOW, None, [[b"", b""]], b"x" * 17, [], False],
        [NOW, [2**60, 0], [[b"", b""]], b"", [], False],
    ],
)
async def test_malformed_questions_are_refused(autojump_clock, body: object) -> None:
    async with simulated_nodes(2, settings(), clock) as (_, [one, other]):
        with pytest.raises(CallRefused) as refused:
            await one.peer.call(other.peer_id, COMPARE_RANGES, body, timeout=5)
        assert refused.value.code == Code.INVALID


async def test_a_horizon_of_any_numbers_is_survived(autojump_clock) -> None:
    async with simulated_nodes(2, settings(), clock) as (_, [one, other]):
        await trio.sleep(5)
        await fill(other, [a_key()], [])
        body = [epoch_of(clock(), SKEW), [2**63] * 5, [[b"", b""]], b"x" * 16, [], False]
        answer = parse(await one.peer.call(other.peer_id, COMPARE_RANGES, body, timeout=5), RangesAnswer)
        assert answer.nodes == ((True, b""),), "nothing lives so late"


async def test_a_resource_counts_once_its_range_was_compared(autojump_clock) -> None:
    async with simulated_nodes(4, settings(neighbourhood_size=2, responsibility_margin=0), clock) as (network, nodes):
        takeover = Takeover(nodes[0].peer, 2)
        here = nodes[0].peer_id
        for resource_id in map(str, range(1000)):
            if (await nodes[0].peer.neighbourhood(resource_id, 3))[2] == here:
                break
        gone = (await nodes[0].peer.neighbourhood(resource_id, 2))[0]
        network.down.add(gone)
        network.membership_changed()
        assert takeover.is_new_to(resource_id)
        await trio.sleep(0.1)
        position = resource_position(resource_id)
        takeover.note_compared_where(lambda where: covers((Range(0, position),), where))
        assert takeover.is_new_to(resource_id)
        takeover.note_compared_where(lambda where: covers((Range(position, position + 1),), where))
        assert not takeover.is_new_to(resource_id)


async def test_a_peer_that_differs_everywhere_holds_nobody_up(autojump_clock) -> None:
    """It tells of other digests below each node that it is asked for: 256 and more in one answer."""
    asked: list[int] = []

    def differing(method: str, body: Any, is_answer: bool) -> Any:
        if method == COMPARE_RANGES:
            if not is_answer:
                asked.append(len(parse(body, RangesBody).prefixes))
            else:
                nodes = tuple((False, bytes([number % 255 + 1]) * 256) for number in range(max(asked[-1], 1)))
                return build(RangesAnswer(False, nodes))
        return body

    keys = [a_key(str(number)) for number in range(2000)]
    async with simulated_nodes(2, settings(keys_per_owner=10_000), clock) as (network, [one, other]):
        await trio.sleep(5)
        await fill(one, keys, [])
        network.rewrites[other.peer_id] = differing
        network.rewrites[one.peer_id] = differing
        with settled():
            for _ in range(TRIES):
                turns = LongestTurn()
                trio.lowlevel.add_instrument(turns)
                with suppress(InvalidValue), trio.move_on_after(60):
                    await compared(one)
                trio.lowlevel.remove_instrument(turns)
                if is_within(turns.longest, LONGEST):
                    break
        assert max(asked) >= 256
        assert is_within(turns.longest, LONGEST), f"{turns.longest * 1000:.1f} ms"
