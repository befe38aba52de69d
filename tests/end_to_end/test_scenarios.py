"""The original's four end-to-end scenarios, over six processes, on random relays.

With the original's constants a reader on another relay may have to ask again for its own write, up to DEFAULT_TIMEOUT;
with factor and ack of a majority it never has to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aqua_compat import Constants, connect
from overlay.identity import Identity
from tests.end_to_end.network import MAJORITY, Network, command, eventually

ORIGINAL = Constants()
MAJORITIES = Constants(INITIAL_REPLICATION_FACTOR=MAJORITY, CONSISTENCY_LEVEL=MAJORITY)
PATIENCE = (
    60.0  # seconds of polling by commands, each of which is a process that takes seconds to start on a busy machine
)
EITHER = pytest.mark.parametrize("constants", [ORIGINAL, MAJORITIES], ids=["original constants", "majorities"])


async def _read(
    constants: Constants,
    ask: Callable[[], Awaitable[Any]],
    satisfied: Callable[[Any], bool],
    timeout: float | None = None,
) -> Any:
    if constants is MAJORITIES:
        answer = await ask()
        assert satisfied(answer), answer
        return answer
    return await eventually(ask, satisfied, timeout or constants.timeout)


def _ack(constants: Constants, original: int) -> int:
    return MAJORITY if constants is MAJORITIES else original


@EITHER
async def test_created_resource_has_the_id_of_its_label_and_owner(network: Network, constants: Constants) -> None:
    async with connect(network.relay(), constants=constants) as aqua:
        resource_id, errors = await aqua.createResource("scenario 1")
        assert errors == []
        assert resource_id == await aqua.getResourceId("scenario 1", aqua.peer_id)


@EITHER
async def test_created_resource_is_found_through_another_relay(network: Network, constants: Constants) -> None:
    async with (
        connect(network.relay(), constants=constants) as aqua,
        connect(network.relay(), constants=constants) as reader,
    ):
        resource_id, _ = await aqua.createResource("scenario 2")
        assert resource_id is not None
        resource, _ = await _read(
            constants, lambda: reader.getResource(resource_id), lambda found: found[0] is not None
        )
        assert (resource.id, resource.owner_peer_id, resource.label) == (resource_id, aqua.peer_id, "scenario 2")


@EITHER
@pytest.mark.parametrize("where", ["local", "remote"])
async def test_service_is_resolved_until_it_is_unregistered(network: Network, constants: Constants, where: str) -> None:
    identity = Identity.generate()
    async with (
        connect(network.relay(), constants=constants, identity=identity) as aqua,
        connect(network.relay()) as reader,
    ):
        resource_id, _ = await aqua.createResource("scenario 3 and 4")
        assert resource_id is not None
        peer_id = aqua.peer_id if where == "local" else random.choice(network.nodes).peer_id
        registered = await _read(
            constants,
            lambda: aqua.registerService(resource_id, "a value", peer_id, "a service"),
            lambda answer: answer[0],
        )
        assert registered == (True, [])
        ack = _ack(constants, 1 if where == "local" else 2)
        records, _ = await _read(
            constants, lambda: reader.resolveResource(resource_id, ack), lambda answer: bool(answer[0])
        )
        assert len(records) == 1
        metadata = records[0].metadata
        assert (metadata.key_id, metadata.issued_by, metadata.peer_id) == (resource_id, aqua.peer_id, peer_id)
        assert (metadata.service_id, metadata.value) == (("a service",), "a value")
        assert await aqua.unregisterService(resource_id, peer_id) == (True, [])
        ack = _ack(constants, 2)
        await _read(constants, lambda: reader.resolveResource(resource_id, ack), lambda answer: answer[0] == [])


@EITHER
async def test_scenarios_through_the_command_line(network: Network, constants: Constants, tmp_path: Path) -> None:
    async def run(call: str, **data: object) -> Any:
        finished = await command(
            "run", "-f", call, "--data", json.dumps(data), "--relay", network.relay(), "-k", "me",
            "--factor", str(constants.INITIAL_REPLICATION_FACTOR), home=tmp_path,
        )  # fmt: skip
        result = json.loads(finished.out)
        succeeded = not isinstance(result, list) or result[0] not in (None, False)
        assert finished.code == (0 if succeeded else 1)
        return result

    me = json.loads((await command("key", "show", "me", "--json", home=tmp_path)).out or "{}") or None
    assert me is None  # made by its first use
    resource_id, errors = await run('createResource("scenarios")')
    assert errors == []
    me = json.loads((await command("key", "show", "me", "--json", home=tmp_path)).out)["peer_id"]
    assert await run("getResourceId(label, me)", label="scenarios", me=me) == resource_id

    resource, _ = await _read(
        constants, lambda: run("getResource(id)", id=resource_id), lambda answer: answer[0] is not None, PATIENCE
    )
    assert list(resource) == [
        "id", "label", "owner_peer_id", "timestamp_created", "challenge", "challenge_type", "signature",
    ]  # fmt: skip
    assert (resource["id"], resource["owner_peer_id"], resource["label"]) == (resource_id, me, "scenarios")

    for peer_id, ack in ((me, 1), (random.choice(network.nodes).peer_id, 2)):
        given = {"id": resource_id, "peer": peer_id}
        registered = await _read(
            constants,
            lambda given=given: run('registerService(id, "v", peer, nil)', **given),
            lambda answer: answer[0],
            PATIENCE,
        )
        assert registered == [True, []]
        records, _ = await _read(
            constants,
            lambda ack=ack: run("resolveResource(id, ack)", id=resource_id, ack=_ack(constants, ack)),
            lambda answer: bool(answer[0]),
            PATIENCE,
        )
        assert [record["metadata"]["peer_id"] for record in records] == [peer_id]
        assert records[0]["metadata"]["service_id"] == []
        assert await run("unregisterService(id, peer)", **given) == [True, []]
        await _read(
            constants,
            lambda: run("resolveResource(id, ack)", id=resource_id, ack=_ack(constants, 2)),
            lambda answer: answer[0] == [],
            PATIENCE,
        )
