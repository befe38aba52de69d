"""What the resources API makes of the registry's answers."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import trio

from aqua_compat import Constants
from aqua_compat.rpc.errors import PeerUnreachable, RaisedByService, TooSlow
from registry.model.names import Names
from registry.model.signing import key_id_of
from registry.model.values import Record
from tests.unit.aqua_compat.acting import HOST, OWNER, ScriptedRegistry, a_key, a_record, acting


async def test_created_resource_is_a_tuple_of_id_and_a_list_of_errors() -> None:
    registry = ScriptedRegistry(create_resource=SimpleNamespace(resource_id="id", errors=("slow",)))
    assert await acting(registry).createResource("a") == ("id", ["slow"])


async def test_constants_of_the_client_go_with_each_function() -> None:
    registry = ScriptedRegistry(register_service=SimpleNamespace(success=True, errors=()))
    constants = Constants(INITIAL_REPLICATION_FACTOR=4, DEFAULT_TIMEOUT=250)
    assert await acting(registry, constants).registerService("id", "v", HOST.peer_id, None) == (True, [])
    assert registry.asked == [
        ("register_service", ("id", "v", HOST.peer_id, None), {"factor": 4, "timeout": 0.25}),
    ]


async def test_consistency_level_is_how_many_replicas_must_know_a_resource() -> None:
    registry = ScriptedRegistry(get_resource=SimpleNamespace(key=None, errors=()))
    await acting(registry, Constants(CONSISTENCY_LEVEL=3)).getResource("id")
    assert registry.asked == [("get_resource", ("id",), {"ack": 3, "timeout": 6.0})]


async def test_names_stand_for_ids_and_unknown_owners_raise_at_once() -> None:
    registry = ScriptedRegistry(
        resolve_resource=SimpleNamespace(records=(), errors=()),
        unregister_service=SimpleNamespace(success=True, errors=()),
        on_host=None,
    )
    client = acting(registry, names=Names({"acme": HOST.peer_id}))
    await client.resolveResource("web@acme", 1)
    await client.unregisterService("web@me", HOST.peer_id)
    await client.getKeyMetadata(f"web@{HOST.peer_id}")
    asked = [arguments for _, arguments, _ in registry.asked]
    assert asked[0] == (key_id_of("web", HOST.peer_id), 1)
    assert asked[1] == (key_id_of("web", OWNER.peer_id), HOST.peer_id)
    assert asked[2] == ("get_key_metadata", key_id_of("web", HOST.peer_id))
    with pytest.raises(ValueError, match=r"did you mean acme\?"):
        await client.resolveResource("web@acne", 1)
    with pytest.raises(ValueError, match="is no alias"):
        client.watch("web@nobody")


async def test_resource_id_is_found_without_the_network() -> None:
    registry = ScriptedRegistry()
    assert await acting(registry).getResourceId("a", OWNER.peer_id) == key_id_of("a", OWNER.peer_id)
    assert registry.asked == []


async def test_absent_results_are_none_beside_their_errors() -> None:
    registry = ScriptedRegistry(
        get_resource=SimpleNamespace(key=None, errors=("resource not found: timeout exceeded",)),
        resolve_resource=SimpleNamespace(records=None, errors=("timeout exceeded",)),
    )
    client = acting(registry)
    assert await client.getResource("id") == (None, ["resource not found: timeout exceeded"])
    assert await client.resolveResource("id", 1) == (None, ["timeout exceeded"])
    assert await client.executeOnResource("id", 1, lambda _: None) == (False, ["timeout exceeded"])


async def test_found_results_are_values_and_lists() -> None:
    registry = ScriptedRegistry(
        get_resource=SimpleNamespace(key=a_key(), errors=()),
        resolve_resource=SimpleNamespace(records=(a_record(),), errors=()),
    )
    client = acting(registry)
    assert await client.getResource("id") == (a_key(), [])
    assert await client.resolveResource("id", 0) == ([a_record()], [])


def _resolving(*values: str) -> ScriptedRegistry:
    records = tuple(a_record(value) for value in values)
    return ScriptedRegistry(resolve_resource=SimpleNamespace(records=records, errors=("one was slow",)))


async def test_async_calls_run_at_the_same_time_for_every_record() -> None:
    arrived: list[str] = []
    all_there = trio.Event()

    async def call(record: Record) -> None:
        arrived.append(record.metadata.value)
        if len(arrived) == 3:
            all_there.set()
        await all_there.wait()

    assert await acting(_resolving("a", "b", "c")).executeOnResource("id", 1, call) == (True, ["one was slow"])
    assert sorted(arrived) == ["a", "b", "c"]


async def test_plain_calls_run_at_the_same_time_in_threads() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def call(record: Record) -> int:
        return meeting.wait()

    assert await acting(_resolving("a", "b")).executeOnResource("id", 1, call) == (True, ["one was slow"])


async def test_a_lambda_that_calls_an_async_function_is_awaited() -> None:
    called: list[str] = []

    async def call(value: str) -> None:
        called.append(value)

    executed = await acting(_resolving("a", "b")).executeOnResource("id", 1, lambda record: call(record.metadata.value))
    assert executed == (True, ["one was slow"])
    assert sorted(called) == ["a", "b"]


async def test_a_call_that_raises_is_an_error_and_the_others_run() -> None:
    seen: list[str] = []

    async def call(record: Record) -> None:
        if record.metadata.value == "bad":
            raise RuntimeError("no such tune")
        seen.append(record.metadata.value)

    success, errors = await acting(_resolving("bad", "good")).executeOnResource("id", 1, call)
    assert success
    assert errors == ["one was slow", f"RuntimeError: no such tune on {HOST.peer_id}"]
    assert seen == ["good"]


async def test_a_call_that_takes_too_long_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async def call(record: Record) -> None:
        await trio.sleep_forever()

    registry = _resolving("a")
    success, errors = await acting(registry).executeOnResource("id", 1, call)
    assert (success, errors) == (True, ["one was slow", f"timeout exceeded on {HOST.peer_id}"])
    assert trio.current_time() == pytest.approx(6, abs=1)
    assert registry.unreachable == [HOST.peer_id]


@pytest.mark.parametrize(
    ("error", "is_looked_at"),
    [
        (PeerUnreachable(HOST.peer_id, "s", "f", "it's off"), True),
        (TooSlow(HOST.peer_id, "s", "f", "no answer"), True),
        (RaisedByService(HOST.peer_id, "s", "f", "its own fault"), False),
        (ValueError("the caller's own fault"), False),
    ],
)
async def test_a_host_that_a_call_did_not_reach_is_looked_at(error: Exception, is_looked_at: bool) -> None:
    async def call(record: Record) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    registry = _resolving("a")
    assert (await acting(registry).executeOnResource("id", 1, call))[0]
    assert registry.unreachable == ([HOST.peer_id] if is_looked_at else [])


async def test_cancelling_reaches_the_calls() -> None:
    cancelled = trio.Event()

    async def call(record: Record) -> None:
        try:
            scope.cancel()
            await trio.sleep_forever()
        finally:
            cancelled.set()

    with trio.CancelScope() as scope:
        await acting(_resolving("a")).executeOnResource("id", 1, call)
    assert cancelled.is_set()
    assert scope.cancelled_caught
