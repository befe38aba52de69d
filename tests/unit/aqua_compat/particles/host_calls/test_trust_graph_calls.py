"""The trust graph as scripts have it, and as peers call it."""

from __future__ import annotations

import inspect
import json
import time
from typing import Any

import base58
import pytest
import trio

from aqua_compat.builtins.trust_graph import TIMES, TrustGraph, in_memory
from aqua_compat.particles.engine.actor import Context
from aqua_compat.particles.engine.steps import CallRequest, Tetraplet
from aqua_compat.particles.host_calls.host_calls import HostCalls
from aqua_compat.particles.host_calls.trust_graph_calls import trust_graph_calls
from overlay.identity import Identity, public_key_of
from overlay.limits.time_slices import TimeSlices
from registry.replica.trust_keeper import TrustKeeper
from registry.replica.weights import Weights
from tests.unit.aqua_compat.particles.scripts import CLIENT, HOST, OTHER, a_holding, a_particle
from tests.unit.registry.builders import identity

NOW = int(time.time())
SHORT = 12  # the number of an identity whose key has 43 letters, where those of 1 to 3 have 44
LASTING = 100_000  # seconds: other tests may take some before these run
TIME = Tetraplet(HOST.peer_id, "peer", "timestamp_sec", "")


class Script:
    """Calls of one peer's script on HOST."""

    def __init__(self, trust_graph: TrustGraph, by: Identity = HOST) -> None:
        functions = trust_graph_calls(trust_graph, HOST.peer_id, TimeSlices())
        self._calls = HostCalls({"trust-graph": functions}, 10**6)
        self._context = Context(a_particle(by=by), "a client", trio.current_time() + 10, a_holding())

    async def call(self, function: str, *arguments: Any, origin: Tetraplet = TIME) -> Any:
        request = CallRequest("trust-graph", function, list(arguments), [[origin]] * len(arguments))
        result = await self._calls.call(self._context, request)
        assert result.ret_code == 0, result
        return json.loads(result.result)

    async def trust(self, by: Identity, whom: Identity, issued_at: int = NOW - 10) -> Any:
        bytes_ = (await self.call("get_trust_bytes", whom.peer_id, NOW + LASTING, issued_at))["result"]
        signature = list(by.sign(bytes(bytes_)))
        return (await self.call("issue_trust", whom.peer_id, NOW + LASTING, issued_at, signature))["trust"]


@pytest.fixture
def trust_graph() -> TrustGraph:
    return in_memory(HOST.peer_id)


async def test_a_script_gives_and_takes_trust(trust_graph: TrustGraph) -> None:
    script = Script(trust_graph)
    assert await script.call("set_root", CLIENT.peer_id, 3) == {"success": True, "error": ""}
    for by, whom, weight in ((CLIENT, CLIENT, 8), (CLIENT, OTHER, 4)):
        added = await script.call("add_trust", await script.trust(by, whom), by.peer_id, NOW)
        assert added == {"success": True, "error": "", "weight": weight}
    found = await script.call("get_weight", OTHER.peer_id, NOW)
    assert found == {"success": True, "weight": 4, "peer_id": OTHER.peer_id, "error": ""}
    [certificate] = (await script.call("get_all_certs", OTHER.peer_id, NOW))["certificates"]
    assert [trust["issued_for"] for trust in certificate["chain"]] == [CLIENT.peer_id, OTHER.peer_id]
    bytes_ = (await script.call("get_revocation_bytes", OTHER.peer_id, NOW))["result"]
    issued = (CLIENT.peer_id, OTHER.peer_id, NOW, list(CLIENT.sign(bytes(bytes_))))
    revocation = (await script.call("issue_revocation", *issued))["revocation"]
    assert (await script.call("revoke", revocation, NOW))["success"]
    assert (await script.call("export_revocations", OTHER.peer_id))["revocations"] == [revocation]
    assert (await script.call("get_weight", OTHER.peer_id, NOW))["weight"] == 0
    other = Script(in_memory(HOST.peer_id))
    await other.call("set_root", CLIENT.peer_id, 3)
    assert (await other.call("insert_cert", certificate, NOW))["success"]
    assert (await other.call("get_weight_from", OTHER.peer_id, CLIENT.peer_id, NOW))["weight"] == 4


async def test_revocations_come_in_the_order_of_their_issuers_keys_as_text(trust_graph: TrustGraph) -> None:
    """Not in that of peer ids: of the keys some are shorter, the ids all have one length."""
    script, keys = Script(trust_graph), {}
    for number in (1, 2, 3, SHORT):
        by = identity(number)
        keys[by.peer_id] = base58.b58encode(public_key_of(by.peer_id))
        await script.call("set_root", by.peer_id, 3)
        bytes_ = (await script.call("get_revocation_bytes", OTHER.peer_id, NOW))["result"]
        issued = (by.peer_id, OTHER.peer_id, NOW, list(by.sign(bytes(bytes_))))
        await script.call("revoke", (await script.call("issue_revocation", *issued))["revocation"], NOW)
    found = [one["revoked_by"] for one in (await script.call("export_revocations", OTHER.peer_id))["revocations"]]
    assert found == sorted(keys, key=keys.__getitem__) != sorted(keys)


async def test_only_the_host_and_its_operators_set_roots(trust_graph: TrustGraph) -> None:
    refused = await Script(trust_graph, CLIENT).call("set_root", CLIENT.peer_id, 3)
    assert refused == {"success": False, "error": "Root could add only by trust graph service owner"}
    keeper = TrustKeeper(time.time, {})
    operated = TrustGraph(keeper, Weights({}, keeper), HOST.peer_id, (CLIENT.peer_id,))
    assert (await Script(operated, CLIENT).call("set_root", CLIENT.peer_id, 3))["success"]


@pytest.mark.parametrize("function", sorted(TIMES))
@pytest.mark.parametrize(
    "origin",
    [
        Tetraplet(OTHER.peer_id, "peer", "timestamp_sec", ""),
        Tetraplet(HOST.peer_id, "peer", "timestamp_ms", ""),
        Tetraplet(HOST.peer_id, "op", "timestamp_sec", ""),
    ],
)
async def test_a_time_from_elsewhere_is_refused(trust_graph: TrustGraph, function: str, origin: Tetraplet) -> None:
    number = len(inspect.signature(getattr(trust_graph, function)).parameters)
    assert TIMES[function].position == number - 1, "the time comes last"
    answer = await Script(trust_graph).call(function, *([None] * number), origin=origin)
    assert not answer["success"]
    assert answer["error"].startswith("you should use host peer.timestamp_sec to pass timestamp: SecurityTetraplet")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("get_trust_bytes", ("x" * 129, 1, 1)),
        ("get_trust_bytes", (HOST.peer_id, -1, 1)),
        ("get_trust_bytes", (HOST.peer_id, 1.5, 1)),
        ("issue_trust", (HOST.peer_id, 1, 1, [0] * 1025)),
        ("verify_trust", ({"issued_for": ""}, HOST.peer_id, 1)),
        ("insert_cert", ({"chain": [{}]}, 1)),
        ("insert_cert_raw", ("x" * 20_000, 1)),
        ("get_weight", (None, 1)),
    ],
)
async def test_arguments_of_other_types_fail_the_call(
    trust_graph: TrustGraph, function: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(AssertionError, match="ret_code=1"):
        await Script(trust_graph).call(function, *arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("get_trust_bytes", (HOST.peer_id, 2**64, 1)),
        ("get_revocation_bytes", (HOST.peer_id, 2**70)),
        ("issue_trust", (HOST.peer_id, 1, 1, [256])),
        ("set_root", (HOST.peer_id, 2**32)),
        ("get_weight", (" " + HOST.peer_id, 1)),
    ],
)
async def test_values_out_of_range_are_refused(
    trust_graph: TrustGraph, function: str, arguments: tuple[Any, ...]
) -> None:
    answer = await Script(trust_graph).call(function, *arguments)
    assert answer["success"] is False
    assert answer["error"]


def test_all_functions_of_the_original_are_there_and_no_other(trust_graph: TrustGraph) -> None:
    functions = trust_graph_calls(trust_graph, HOST.peer_id, TimeSlices())
    assert sorted(functions) == sorted(FUNCTIONS)


FUNCTIONS = [
    "add_trust",
    "export_revocations",
    "get_all_certs",
    "get_all_certs_from",
    "get_host_certs",
    "get_host_certs_from",
    "get_revocation_bytes",
    "get_trust_bytes",
    "get_weight",
    "get_weight_from",
    "insert_cert",
    "insert_cert_raw",
    "issue_revocation",
    "issue_trust",
    "revoke",
    "set_root",
    "verify_trust",
]
