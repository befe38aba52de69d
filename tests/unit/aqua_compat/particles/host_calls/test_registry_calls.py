"""The service `registry` and `sig` as scripts see them, on simulated nodes in virtual time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import base58
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.steps import CallRequest, CallResult, Tetraplet
from aqua_compat.particles.fairness.fair_semaphore import FairSemaphore
from aqua_compat.particles.host_calls import registry_calls
from aqua_compat.particles.host_calls.host_calls import HostCalls
from aqua_compat.particles.host_calls.registry_calls import TIME, WEIGHT, RegistryCalls
from aqua_compat.particles.host_calls.signing_calls import SigningCalls, countersigning
from aqua_compat.schema.json_codec import to_json
from overlay.identity import Identity
from overlay.limits.time_slices import TimeSlices
from registry.client.results import Found
from registry.model.values import Key, Record, RecordMetadata, Tombstone
from registry.protocol.messages import Item
from registry.service import functions
from registry.settings import HostingPolicy, NodeSettings, RegistrySettings
from tests.paths import DATA
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.unit.aqua_compat.particles.scripts import a_holding, a_particle
from tests.unit.registry.builders import ISSUER, NOW, OWNER, a_key, a_metadata, a_record, a_tombstone, hosted, identity

INTERFACE = json.loads((DATA / "aqua-interface.json").read_text())
FUNCTIONS = INTERFACE["services"]["registry"]["functions"]


def clock() -> float:
    """Wall clock in step with the virtual one."""
    return NOW + trio.current_time() % 1_000_000


class Script:
    """What one particle, initiated by `by`, calls on a node."""

    def __init__(self, node: SimulatedNode, by: Identity = OWNER, *, as_original: bool = False) -> None:
        self.node = node
        parts = node.parts
        registry = RegistryCalls(
            parts.service,
            node.store,
            parts.replica.ingest,
            parts.rumors,
            parts.health_of_hosts,
            node.peer_id,
            TimeSlices(),
        )
        countersign = countersigning(
            parts.registry, parts.host, parts.service.settings.hosting, FairSemaphore(64, 16), clock
        )
        signing = SigningCalls(node.identity, countersign, parts.host.clock_guard.check, as_original=as_original)
        self.calls = HostCalls({"registry": registry.functions(), "sig": signing.functions()}, 10**6)
        self.context = Context(a_particle(by=by), "a client", trio.current_time() + 10, a_holding())

    def of_host(self, function: tuple[str, str]) -> Tetraplet:
        return Tetraplet(self.node.peer_id, *function, "")

    async def raw(self, service: str, function: str, arguments: list[Any], tetraplets: list[Any]) -> CallResult:
        return await self.calls.call(self.context, CallRequest(service, function, arguments, tetraplets))

    async def call(self, function: str, **arguments: Any) -> Any:
        """A function with time and weights from this host, as scripts get them; its result."""
        values, tetraplets = [], []
        for name, _ in FUNCTIONS[function]["args"]:
            if name == "current_timestamp_sec":
                values.append(int(clock()))
                tetraplets.append([self.of_host(TIME)])
            elif name in ("weight", "weights"):
                values.append(arguments[name])
                count = len(arguments[name]) if name == "weights" else 1
                tetraplets.append([self.of_host(WEIGHT)] * count)
            else:
                values.append(to_json(arguments[name]))
                tetraplets.append([Tetraplet(OWNER.peer_id, "", "", "")])
        result = await self.raw("registry", function, values, tetraplets)
        assert result.ret_code == 0, result
        return json.loads(result.result)

    async def register(self, key: Key) -> Any:
        return await self.call("republish_key", key=key, weight=weight_of(key.owner_peer_id))

    async def put(self, record: Record) -> Any:
        return await self.call(
            "put_record",
            metadata=record.metadata,
            timestamp_created=record.timestamp_created,
            signature=record.signature,
            weight=weight_of(record.metadata.issued_by),
        )

    async def bytes_to_sign(self, metadata: RecordMetadata, created: int) -> list[int]:
        made: list[int] = await self.call("get_record_bytes", metadata=metadata, timestamp_created=created)
        return made

    async def sign(self, given: Any, *origin: str) -> CallResult:
        found = Tetraplet(*origin, "") if origin else self.of_host(("registry", "get_record_bytes"))
        return await self.raw("sig", "sign", [given], [[found]])


def weight_of(peer_id: str) -> dict[str, Any]:
    return {"success": True, "weight": 0, "peer_id": peer_id, "error": ""}


def signed(result: CallResult) -> dict[str, Any]:
    assert result.ret_code == 0, result
    decoded: dict[str, Any] = json.loads(result.result)
    return decoded


@asynccontextmanager
async def nodes(count: int = 1, rules: RegistrySettings | None = None) -> AsyncIterator[list[SimulatedNode]]:
    settings = NodeSettings(registry=rules or RegistrySettings())
    async with simulated_nodes(count, settings, clock) as (_, running):
        yield running


async def test_key_and_record_that_scripts_write_are_read_by_scripts_and_natively(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key()
        assert await script.register(key) == {"success": True, "error": ""}
        record = a_record(key.id, value="v")
        assert await script.put(record) == {"success": True, "error": ""}
        assert (await script.call("get_key_metadata", key_id=key.id))["key"] == to_json(key)
        assert (await script.call("get_records", key_id=key.id))["result"] == [to_json(record)]
        assert (await node.registry.resolve_resource(key.id, 1)).records == (record,)
        tombstone = a_tombstone(key.id)
        buried = await script.call(
            "add_tombstone",
            **{name: getattr(tombstone, name) for name in ("key_id", "issued_by", "peer_id", "timestamp_issued")},
            solution=b"",
            signature=tombstone.issuer_signature,
        )
        assert buried["success"], buried
        assert (await node.registry.resolve_resource(key.id, 1)).records == ()


async def test_owner_of_a_registered_key_is_who_initiated_the_particle(autojump_clock) -> None:
    async with nodes() as [node]:
        key = a_key("label", OWNER)
        fields = {
            "label": "label",
            "owner_peer_id": [],
            "timestamp_created": NOW,
            "challenge": b"",
            "challenge_type": "",
        }
        made = await Script(node).call(
            "register_key", **fields, signature=key.signature, weight=weight_of(OWNER.peer_id)
        )
        assert made == {"success": True, "error": "", "key_id": key.id}
        theirs = await Script(node, by=ISSUER).call(
            "register_key", **fields, signature=key.signature, weight=weight_of(ISSUER.peer_id)
        )
        assert "Invalid signature for key_id" in theirs["error"]


@pytest.mark.parametrize(
    "origin",
    [
        ("", "", ""),
        (ISSUER.peer_id, *TIME),
        ("host", "peer", "timestamp_ms"),
        ("host", "op", "identity"),
        ("host", *WEIGHT),
    ],
)
async def test_time_that_isnt_this_hosts_is_refused(autojump_clock, origin: tuple[str, str, str]) -> None:
    async with nodes() as [node]:
        peer_id = node.peer_id if origin[0] == "host" else origin[0]
        found = Tetraplet(peer_id, *origin[1:], "")
        result = await Script(node).raw("registry", "get_records", ["key", NOW], [[], [found]])
        answer = signed(result)
        assert answer["success"] is False
        assert answer["error"].startswith(
            "Invalid timestamp tetraplet: you should use host peer.timestamp_sec to pass timestamp: SecurityTetraplet {"
        )
        assert answer["result"] == []


async def test_time_without_a_tetraplet_is_refused(autojump_clock) -> None:
    async with nodes() as [node]:
        for tetraplets in ([], [[], []]):
            result = signed(await Script(node).raw("registry", "get_records", ["key", NOW], tetraplets))
            assert "Invalid timestamp tetraplet" in result["error"]


async def test_weight_that_isnt_this_hosts_is_refused(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key()
        elsewhere = Tetraplet(ISSUER.peer_id, *WEIGHT, "")
        arguments = [to_json(key), weight_of(OWNER.peer_id), NOW]
        result = signed(
            await script.raw("registry", "republish_key", arguments, [[], [elsewhere], [script.of_host(TIME)]])
        )
        assert result["error"].startswith(
            "Invalid weight tetraplet: you should use host trust-graph.get_weight to pass weight: "
        )
        assert (await node.store.resource(key.id)).key is None


async def test_each_weight_of_a_batch_must_be_this_hosts(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key()
        await script.register(key)
        records = [a_record(key.id), a_record(key.id, host=OWNER)]
        arguments = [to_json(records), [weight_of(ISSUER.peer_id)] * 2, NOW]
        time, good = [script.of_host(TIME)], script.of_host(WEIGHT)
        bad = Tetraplet(ISSUER.peer_id, *WEIGHT, "")
        for weights in ([good, bad], [bad, good], [good]):
            result = signed(await script.raw("registry", "republish_records", arguments, [[], weights, time]))
            assert "Invalid weight tetraplet" in result["error"]
        result = signed(await script.raw("registry", "republish_records", arguments, [[], [good, good], time]))
        assert result == {"success": True, "error": "", "updated": 2}


async def test_weight_of_another_peer_is_refused(autojump_clock) -> None:
    async with nodes() as [node]:
        key = a_key()
        result = await Script(node).call("republish_key", key=key, weight=weight_of(ISSUER.peer_id))
        assert result["error"] == f"Invalid weight peer_id: expected {OWNER.peer_id}, found {ISSUER.peer_id}"


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("get_key_id", ["label"], "takes 2 arguments"),
        ("get_key_id", ["label", 5], "peer_id must be a str"),
        ("get_key_bytes", ["l", [], -1, [], ""], "timestamp_created is -1"),
        ("get_key_bytes", ["l", [], 1, [256], ""], "not within 0 and 255"),
        ("get_key_bytes", ["l", [], 1, "AAAA", ""], "challenge must be an array of numbers"),
        ("get_key_bytes", ["l", [], 1.0, [], ""], "timestamp_created must be an int, not float"),
        ("get_key_bytes", ["l", ["nobody"], 1, [], ""], "peer id parse error"),
        ("get_tombstone_bytes", ["k", OWNER.peer_id, "nobody", 1, []], "peer id parse error"),
        ("get_record_metadata_bytes", ["k", OWNER.peer_id, 1, "", "nobody", [], [], []], "peer id parse error"),
        ("get_record_metadata_bytes", ["k", OWNER.peer_id, 1, "", OWNER.peer_id, ["a", "b"], [], []], "relay_id"),
        ("merge", [[[{}]]], "records[0][0] has no metadata"),
        ("merge_keys", [{}], "keys must be an array"),
        ("create_record_metadata", ["k", "not a peer", 1, "", "x", [], [], [], []], "issued_by"),
    ],
)
async def test_malformed_arguments_fail_the_call(
    autojump_clock, function: str, arguments: list[Any], text: str
) -> None:
    async with nodes() as [node]:
        result = await Script(node).raw("registry", function, arguments, [])
        assert result.ret_code == 1
        assert text in json.loads(result.result)


@pytest.mark.parametrize("wrong", [{"peer_id": "nobody"}, {"issued_by": ""}, {"value": "x" * 70_000}])
async def test_values_that_are_none_are_refused_in_the_result(autojump_clock, wrong: dict[str, str]) -> None:
    async with nodes() as [node]:
        arguments = [
            {**to_json(a_metadata(a_key().id)), **wrong},
            NOW,
            [1] * 64,
            to_json(weight_of(ISSUER.peer_id)),
            NOW,
        ]
        [time, weight] = [Tetraplet(node.peer_id, *of, "") for of in (TIME, WEIGHT)]
        result = signed(await Script(node).raw("registry", "put_record", arguments, [[], [], [], [weight], [time]]))
        assert result["success"] is False
        assert next(iter(wrong)) in result["error"]


async def test_nothing_is_republished_without_tetraplets(autojump_clock) -> None:
    async with nodes() as [node]:
        result = signed(await Script(node).raw("registry", "republish_records", [[], [], NOW], [[], [], []]))
        assert result == {"success": True, "error": "", "updated": 0}
        result = signed(await Script(node).raw("registry", "republish_tombstones", [[], NOW], [[], []]))
        assert "Invalid timestamp tetraplet" in result["error"]


async def test_what_only_the_operator_may_do_is_refused(autojump_clock) -> None:
    async with nodes() as [node]:
        script = Script(node)
        assert "only the node's operator" in (await script.call("clear_expired"))["error"]
        assert "only the node's operator" in (await script.call("evict_stale"))["error"]
        result = await script.raw("registry", "set_expired_timeout", [1], [[]])
        assert result.ret_code == 1
        assert node.parts.service.settings.expired_age == RegistrySettings().expired_age


async def test_bytes_and_ids_are_those_of_the_values(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key("label")
        made = await script.call(
            "get_key_bytes", label="label", owner_peer_id=[], timestamp_created=NOW, challenge=b"", challenge_type=""
        )
        assert bytes(made) == key.signed_bytes()
        assert await script.call("get_key_id", label="label", peer_id=OWNER.peer_id) == key.id
        of_nobody = await script.call("get_key_id", label="label", peer_id="")
        assert base58.b58decode(of_nobody) == sha256(b"label").digest(), "of the label alone, as there"
        metadata = a_metadata(key.id)
        fields = {name: getattr(metadata, name) for name in metadata.__struct_fields__ if name != "issuer_signature"}
        assert bytes(await script.call("get_record_metadata_bytes", **fields)) == metadata.signed_bytes()
        created = await script.call("create_record_metadata", **fields, signature=metadata.issuer_signature)
        assert created == to_json(metadata)


async def test_merge_drops_what_is_forged_and_what_this_node_knows_to_be_superseded(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key()
        await script.register(key)
        old, new, other = a_record(key.id), a_record(key.id, issued=NOW + 1), a_record(key.id, host=OWNER)
        forged = a_record(key.id, host=node.identity)
        forged = Record(forged.metadata, forged.timestamp_created, bytes(64))
        merged = await script.call("merge", records=[[old, forged], [new], [other]])
        assert sorted(merged["result"], key=str) == sorted(to_json([new, other]), key=str)
        tombstone = a_tombstone(key.id, issued=NOW + 2)
        await node.parts.replica.ingest.store([Item(key, tombstone)], node.peer_id)
        assert (await script.call("merge_two", a=[new], b=[other]))["result"] == [to_json(other)]


async def test_merging_no_keys_gives_the_originals_empty_key(autojump_clock) -> None:
    async with nodes() as [node]:
        merged = await Script(node).call("merge_keys", keys=[])
        assert merged["success"] is False
        assert merged["key"]["id"] == ""
        assert merged["key"]["signature"] == []


# Many values, and long ones


async def most_between_turns_of_others(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: Callable[[], Awaitable[Any]]
) -> tuple[int, int]:
    """(how often `place.name` was called within `call`, and how often at most while nobody else had a turn)"""
    time_slices, calls = 0, Counter[int]()
    original = getattr(place, name)

    def counted(*arguments: Any) -> Any:
        calls[time_slices] += 1
        return original(*arguments)

    async def others() -> None:
        nonlocal time_slices
        while True:
            time_slices += 1
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(place, name, counted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await call()
        nursery.cancel_scope.cancel()
    return calls.total(), max(calls.values())


MANY = 200
AT_ONCE = 2 * 32  # others run before or after a slice, by chance


@pytest.mark.parametrize(
    ("place", "name", "times"),
    [(functions, "record_is_genuine", MANY), (registry_calls, "from_json", MANY), (registry_calls, "to_json", MANY)],
)
@pytest.mark.parametrize("function", ["merge", "merge_two"])
async def test_others_get_turns_while_many_records_are_merged(
    monkeypatch: pytest.MonkeyPatch, function: str, place: Any, name: str, times: int
) -> None:
    async with nodes() as [node]:
        records = [to_json(a_record(a_key().id, issuer=identity(number))) for number in range(MANY)]
        arguments: list[Any] = [records[:90], records[90:]]

        async def merge() -> None:
            result = await Script(node).raw("registry", function, arguments if function != "merge" else [arguments], [])
            assert len(signed(result)["result"]) == MANY

        called, at_once = await most_between_turns_of_others(monkeypatch, place, name, merge)
        assert called == times, "nothing is done twice"
        assert at_once <= AT_ONCE


@pytest.mark.parametrize(
    ("function", "check"),
    [
        ("republish_records", "check_record"),
        ("republish_tombstones", "check_tombstone"),
        ("merge_keys", "key_is_genuine"),
    ],
)
async def test_others_get_turns_while_many_signatures_are_verified(
    monkeypatch: pytest.MonkeyPatch, function: str, check: str
) -> None:
    async with nodes() as [node]:
        script, key = Script(node), a_key()
        await script.register(key)
        issuers = [identity(number) for number in range(MANY)]
        arguments: dict[str, Any] = {
            "republish_records": {
                "records": [a_record(key.id, issuer, issued=int(clock())) for issuer in issuers],
                "weights": [weight_of(issuer.peer_id) for issuer in issuers],
            },
            "republish_tombstones": {"tombstones": [a_tombstone(key.id, issuer) for issuer in issuers]},
            "merge_keys": {"keys": [a_key(owner=issuer) for issuer in issuers]},
        }[function]

        async def call() -> None:
            assert (await script.call(function, **arguments))["success"]

        called, at_once = await most_between_turns_of_others(monkeypatch, functions, check, call)
        assert called == MANY
        assert at_once <= AT_ONCE


@pytest.mark.parametrize("place", ["challenge", "key", "relay"])
async def test_array_longer_than_any_field_may_be_isnt_converted(
    autojump_clock, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async with nodes() as [node]:
        longest: list[Any] = [0] * 4096
        calls = {
            "challenge": ("get_key_bytes", ["l", [], 1, [*longest, 0], ""], "challenge"),
            "key": ("merge_keys", [[{**to_json(a_key()), "challenge": [*longest, 0]}]], "keys[0].challenge"),
            "relay": ("merge", [[[with_relays(["x"] * 4097)]]], "records[0][0].metadata.relay_id"),
        }
        function, arguments, name = calls[place]
        result = await Script(node).raw("registry", function, arguments, [])
        assert json.loads(result.result) == f"{function}: {name} has 4097 elements, more than 4096"
        assert (await Script(node).raw("registry", "get_key_bytes", ["l", [], 1, longest, ""], [])).ret_code == 0


def with_relays(relays: list[str]) -> Any:
    record: Any = to_json(a_record(a_key().id))
    record["metadata"]["relay_id"] = relays
    return record


# Rations


def buried(number: int) -> Tombstone:
    return a_tombstone(a_key().id, identity(number), identity(9), int(clock()))


async def bury(script: Script, tombstone: Tombstone) -> str:
    fields = {name: getattr(tombstone, name) for name in ("key_id", "issued_by", "peer_id", "timestamp_issued")}
    answer = await script.call("add_tombstone", **fields, solution=b"", signature=tombstone.issuer_signature)
    return str(answer["error"])


async def test_whoever_brings_particles_with_many_tombstones_is_slowed_down_like_a_putter(autojump_clock) -> None:
    async with nodes(1, RegistrySettings(tombstone_burst=2, tombstone_rate=1.0)) as [node]:
        script, key, ingest = Script(node), a_key(), node.parts.replica.ingest
        await script.register(key)
        assert await ingest.store([Item(key, buried(10))], script.context.source) == [None]
        assert await bury(Script(node, by=ISSUER), buried(11)) == "", "who initiated it doesn't matter"
        assert "too many tombstones for unknown records by a client" in await bury(script, buried(12))
        assert (await script.call("republish_tombstones", tombstones=[buried(13)]))["success"]
        assert len((await node.store.resource(key.id)).slots) == 2, "skipped, as for other quotas"
        await trio.sleep(1)
        assert await bury(script, buried(12)) == ""


async def test_tombstone_of_a_record_that_is_here_is_never_rationed(autojump_clock) -> None:
    async with nodes(1, RegistrySettings(tombstone_burst=0)) as [node]:
        script, key = Script(node), a_key()
        await script.register(key)
        await script.put(a_record(key.id))
        assert await bury(script, a_tombstone(key.id, issued=int(clock()) + 1)) == ""


# Responsibility

SMALL = RegistrySettings(neighbourhood_size=1, responsibility_margin=0)


async def far_and_near(running: list[SimulatedNode], key: Key) -> tuple[SimulatedNode, SimulatedNode]:
    near = next(node for node in running if node.parts.replica.ingest.is_responsible(key.id))
    return next(node for node in running if node is not near), near


async def test_stranger_cant_make_a_far_node_store(autojump_clock) -> None:
    key = a_key()
    async with nodes(3, SMALL) as running:
        far, near = await far_and_near(running, key)
        refused = await Script(far).register(key)
        assert refused == {"success": False, "error": f"Peer is not responsible for key {key.id}"}
        assert (await Script(near).register(key))["success"]


async def test_far_node_stores_what_it_hosts(autojump_clock) -> None:
    key = a_key()
    async with nodes(3, SMALL) as running:
        far, near = await far_and_near(running, key)
        await Script(near).register(key)
        script = Script(far, by=ISSUER)
        metadata = a_metadata(key.id, host=far.identity)
        made = await script.bytes_to_sign(metadata, int(clock()))
        [signature] = signed(await script.sign(made))["signature"]
        assert (await script.register(key))["success"]
        record = Record(metadata, int(clock()), bytes(signature))
        assert (await script.put(record))["success"]
        foreign = await script.put(a_record(key.id, host=OWNER))
        assert "not responsible" in foreign["error"]


# Offering


async def test_write_by_a_script_reaches_the_whole_neighbourhood_within_a_second(autojump_clock) -> None:
    async with nodes(5) as running:
        script, key = Script(running[0]), a_key()
        await script.register(key)
        record = a_record(key.id)
        await script.put(record)
        await trio.sleep(1)
        for node in running:
            stored = await node.store.resource(key.id)
            assert stored.key == key
            assert list(stored.slots.values()) == [record]


async def test_what_a_script_repeats_isnt_offered_again(autojump_clock) -> None:
    async with nodes(3) as running:
        script, key = Script(running[0]), a_key()
        await script.register(key)
        await trio.sleep(2)
        offered = running[0].parts.rumors.offered
        assert offered == 2
        await script.register(key)
        await trio.sleep(2)
        assert running[0].parts.rumors.offered == offered


# Signing as a host


async def test_host_signs_a_record_that_names_it_and_keeps_it(autojump_clock) -> None:
    async with nodes() as [node]:
        script, key = Script(node, by=ISSUER), a_key()
        await script.register(key)
        metadata, created = a_metadata(key.id, host=node.identity), int(clock()) - 5
        made = await script.bytes_to_sign(metadata, created)
        assert script.context.memory.amount > 0, "what is remembered is charged"
        answer = signed(await script.sign(made))
        expected = hosted(metadata, node.identity, created)
        assert answer == {"success": True, "error": [], "signature": [list(expected.signature)]}
        assert (await node.registry.resolve_resource(key.id, 1)).records == (expected,)
        assert (await script.put(expected))["success"]


@pytest.mark.parametrize(
    "origin",
    [
        (OWNER.peer_id, "registry", "get_record_bytes"),
        ("host", "registry", "get_key_bytes"),
        ("host", "registry", "get_record_metadata_bytes"),
        ("host", "op", "identity"),
    ],
)
async def test_host_signs_nothing_from_elsewhere(autojump_clock, origin: tuple[str, str, str]) -> None:
    async with nodes() as [node]:
        script, key = Script(node, by=ISSUER), a_key()
        await script.register(key)
        made = await script.bytes_to_sign(a_metadata(key.id, host=node.identity), int(clock()))
        peer_id = node.peer_id if origin[0] == "host" else origin[0]
        result = await script.sign(made, peer_id, *origin[1:])
        assert result.ret_code == 1
        assert "signs only what" in result.result


async def test_host_signs_only_bytes_made_in_the_same_particle(autojump_clock) -> None:
    async with nodes() as [node]:
        key = a_key()
        await Script(node).register(key)
        made = await Script(node, by=ISSUER).bytes_to_sign(a_metadata(key.id, host=node.identity), int(clock()))
        result = await Script(node, by=ISSUER).sign(made)
        assert result.ret_code == 1
        assert "in the same particle" in result.result


async def test_host_refuses_what_its_policy_forbids(autojump_clock) -> None:
    listed = RegistrySettings(hosting=HostingPolicy(allow="nobody", issuers=(OWNER.peer_id,)))
    async with nodes(1, listed) as [node]:
        script, key = Script(node, by=ISSUER), a_key()
        await script.register(key)

        async def ask(metadata: RecordMetadata, created: int) -> dict[str, Any]:
            return signed(await script.sign(await script.bytes_to_sign(metadata, created)))

        now = int(clock())
        refused = await ask(a_metadata(key.id, host=node.identity), now)
        assert refused["success"] is False
        assert "hosts no records issued by" in refused["error"][0]
        mine = a_metadata(key.id, issuer=OWNER, host=node.identity)
        assert (await ask(mine, now))["success"]
        for wrong, created, text in (
            (a_metadata(key.id, issuer=OWNER, host=ISSUER), now, "names"),
            (mine, now - 31, "isn't the time"),
            (mine, now + 31, "isn't the time"),
            (RecordMetadata(*[*tuple_of(mine)[:-1], bytes(64)]), now, "Invalid record metadata signature"),
        ):
            refused = await ask(wrong, created)
            assert refused["success"] is False
            assert text in refused["error"][0]


def tuple_of(metadata: RecordMetadata) -> list[Any]:
    return [getattr(metadata, name) for name in metadata.__struct_fields__]


async def test_host_signs_nothing_for_an_unknown_resource(autojump_clock) -> None:
    async with nodes() as [node]:
        script = Script(node, by=ISSUER)
        made = await script.bytes_to_sign(a_metadata(a_key().id, host=node.identity), int(clock()))
        assert "does not exist" in signed(await script.sign(made))["error"][0]


class Lookups:
    """How a node's lookups of keys went: each takes `duration`."""

    def __init__(self, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch, duration: float = 1.0) -> None:
        self.count = self.under_way = self.most = 0
        self._duration = duration
        self._look_up = node.registry.get_resource
        monkeypatch.setattr(node.registry, "get_resource", self._get_resource)

    async def _get_resource(self, resource_id: str, *, timeout: float) -> Found:
        self.count += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await trio.sleep(self._duration)
            return await self._look_up(resource_id, timeout=timeout)
        finally:
            self.under_way -= 1


async def test_key_is_looked_up_only_for_what_the_host_may_sign(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = RegistrySettings(hosting=HostingPolicy(allow="listed", issuers=(OWNER.peer_id,)), max_value=20)
    async with nodes(1, listed) as [node]:
        lookups, script, key_id = Lookups(node, monkeypatch), Script(node), a_key().id
        now, good = int(clock()), a_metadata(key_id, issuer=OWNER, host=node.identity)
        for metadata, created in (
            (good, now - 31),
            (a_metadata(key_id, issuer=OWNER, host=ISSUER), now),
            (RecordMetadata(*[*tuple_of(good)[:-1], bytes(64)]), now),
            (a_metadata(key_id, issuer=ISSUER, host=node.identity), now),
            (a_metadata(key_id, issuer=OWNER, host=node.identity, value="v" * 21), now),
        ):
            assert not signed(await script.sign(await script.bytes_to_sign(metadata, created)))["success"]
        assert lookups.count == 0
        assert "does not exist" in signed(await script.sign(await script.bytes_to_sign(good, now)))["error"][0]
        assert lookups.count == 1


async def test_keys_are_looked_up_for_an_issuer_as_often_as_it_may_ask(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(1, RegistrySettings(hosting=HostingPolicy(rate=0.001, burst=3))) as [node]:
        lookups, script = Lookups(node, monkeypatch, duration=0.0), Script(node)
        errors = []
        for number in range(6):
            metadata = a_metadata(a_key(f"unknown {number}").id, host=node.identity)
            errors += signed(await script.sign(await script.bytes_to_sign(metadata, int(clock()))))["error"]
        assert lookups.count == 3
        assert ["too many requests" in error for error in errors] == [False] * 3 + [True] * 3


async def test_calls_of_a_particle_that_want_the_same_signed_share_one_lookup(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes() as [node]:
        script, key, answers = Script(node), a_key(), []
        await script.register(key)
        lookups = Lookups(node, monkeypatch)
        made = await script.bytes_to_sign(a_metadata(key.id, host=node.identity), int(clock()))

        async def ask() -> None:
            answers.append(signed(await script.sign(made)))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert lookups.count == 1
        assert answers == [answers[0]] * 100
        assert answers[0]["success"]


async def test_call_that_is_cancelled_leaves_the_lookup_to_those_that_want_the_same(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes() as [node]:
        script, key, answers = Script(node), a_key(), []
        await script.register(key)
        lookups = Lookups(node, monkeypatch)
        made = await script.bytes_to_sign(a_metadata(key.id, host=node.identity), int(clock()))

        async def ask(patience: float) -> None:
            with trio.move_on_after(patience):
                answers.append(signed(await script.sign(made)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.5)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                nursery.start_soon(ask, 10.0)
        assert lookups.count == 2
        assert [answer["success"] for answer in answers] == [True] * 10


async def test_lookups_for_signing_are_bounded_by_who_brought_the_particle(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes() as [node]:
        lookups, script = Lookups(node, monkeypatch), Script(node)
        made = []
        for number in range(40):
            metadata = a_metadata(a_key(f"unknown {number}").id, host=node.identity)
            made.append(await script.bytes_to_sign(metadata, int(clock())))
        async with trio.open_nursery() as nursery:
            for one in made:
                nursery.start_soon(script.sign, one)
        assert lookups.count == 40
        assert lookups.most == 16


async def test_originals_rule_signs_bytes_of_records_and_metadata_of_anyone(autojump_clock) -> None:
    async with nodes() as [node]:
        script = Script(node, by=ISSUER, as_original=True)
        given = list(b"anything whose origin is right")
        for function in ("get_record_bytes", "get_record_metadata_bytes"):
            answer = signed(await script.sign(given, node.peer_id, "registry", function))
            assert bytes(answer["signature"][0]) == node.identity.sign(bytes(given))
        assert (await script.sign(given, node.peer_id, "registry", "get_key_bytes")).ret_code == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(OWNER.peer_id),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
OF_TYPE = {
    "string": st.text(max_size=5) | st.just(OWNER.peer_id),
    "u64": st.integers(0, 2**64 - 1),
    "[]u8": st.lists(st.integers(0, 255), max_size=70),
    "[]string": st.lists(st.text(max_size=5), max_size=2),
    "Key": st.just(to_json(a_key())),
    "RecordMetadata": st.just(to_json(a_metadata(a_key().id))),
    "WeightResult": st.just(weight_of(OWNER.peer_id)),
    "[]Key": st.just(to_json([a_key()])),
    "[]Record": st.just(to_json([a_record(a_key().id)])),
    "[][]Record": st.just(to_json([[a_record(a_key().id)]])),
    "[]Tombstone": st.just(to_json([a_tombstone(a_key().id)])),
    "[]WeightResult": st.just([weight_of(ISSUER.peer_id)]),
}


@given(st.data())
def test_any_arguments_of_any_function_give_a_result_or_an_error(data: st.DataObject) -> None:
    calls: list[tuple[str, list[Any], bool]] = []
    for _ in range(10):
        name = data.draw(st.sampled_from(sorted(FUNCTIONS)))
        arguments = [data.draw(OF_TYPE[kind] | VALUES) for _, kind in FUNCTIONS[name]["args"]]
        calls.append((name, arguments, data.draw(st.booleans())))

    async def run() -> None:
        async with nodes() as [node]:
            script = Script(node)
            for name, arguments, proven in calls:
                tetraplets = [
                    [script.of_host(TIME if argument == "current_timestamp_sec" else WEIGHT)] if proven else []
                    for argument, _ in FUNCTIONS[name]["args"]
                ]
                result = await script.raw("registry", name, arguments, tetraplets)
                assert result.ret_code in (0, 1)
                json.loads(result.result)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
