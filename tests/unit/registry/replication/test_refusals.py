"""What another replica refused isn't sent to it again, unless asking again, or from elsewhere, may help."""

from __future__ import annotations

import pytest

from registry.codes import Code
from registry.model.merge import ResourceState
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item, PutAnswer, build, parse
from registry.replication.anti_entropy import AntiEntropy
from registry.replication.messages import COMPARE, REPLICATE, CompareAnswer, CompareBody, ReplicateBody, Summary
from tests.simulation.nodes import simulated_nodes
from tests.unit.registry.builders import NOW, a_key, identity

KEY = a_key()
OTHER = identity(77).peer_id


def clock() -> float:
    return NOW


@pytest.mark.parametrize(
    ("code", "times"),
    [
        (Code.KEY_REMOVED, 1),
        (Code.QUOTA_EXCEEDED, 1),
        (Code.VALUES_LIMIT_EXCEEDED, 1),
        ("of a later version", 2),
        (Code.NOT_RESPONSIBLE, 2),
        (Code.RATE_EXCEEDED, 2),
        (Code.KEY_FROM_FUTURE, 2),
        (Code.STORAGE, 2),
    ],
)
async def test_a_refusal_is_remembered_by_its_code(autojump_clock, code: str, times: int) -> None:
    async with simulated_nodes(1, clock=clock) as (network, [node]):
        sent: list[ReplicateBody] = []

        async def compare(caller: str, body: object) -> object:
            request = parse(body, CompareBody)
            return build(CompareAnswer(request.horizon, len(request.entries), (Summary.of(0, ResourceState()),)))

        async def replicate(caller: str, body: object) -> object:
            sent.append(parse(body, ReplicateBody))
            return build(PutAnswer((ErrorInfo(code, "why"),)))

        other = network.add(OTHER)
        other.serve(COMPARE, compare)
        other.serve(REPLICATE, replicate)
        assert await node.parts.replica.ingest.store([Item(KEY)], node.peer_id) == [None]
        anti_entropy = AntiEntropy(node.peer, node.store, node.parts.replica, clock)
        for _ in range(2):
            await anti_entropy.with_peer(OTHER, [KEY.id], last=False)
        assert len(sent) == times
