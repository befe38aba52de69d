"""In which order providers are tried."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from aqua_compat.rpc.load_balancing import AVOIDED_FOR, LoadBalancer


class _Metadata(msgspec.Struct):
    peer_id: str
    value: str = ""
    issued_by: str = "issuer"


class _Record(msgspec.Struct):
    metadata: _Metadata


def _records(*values: str) -> Any:
    return cast("Any", [_Record(_Metadata(f"peer{number}", value)) for number, value in enumerate(values)])


def _first(load_balancer: LoadBalancer, records: Any, strategy: Any) -> str:
    return str(load_balancer.order("id", records, strategy)[0].metadata.peer_id)


async def test_round_robin_gives_each_its_turn() -> None:
    load_balancer = LoadBalancer(random.Random(1))
    firsts = [_first(load_balancer, _records("", "", ""), "round robin") for _ in range(6)]
    assert Counter(firsts) == {"peer0": 2, "peer1": 2, "peer2": 2}
    assert firsts[:3] == firsts[3:]


async def test_weighted_follows_the_values() -> None:
    load_balancer = LoadBalancer(random.Random(1))
    counted = Counter(_first(load_balancer, _records("3", "1", "0", "nan"), "weighted") for _ in range(4000))
    assert set(counted) == {"peer0", "peer1"}
    assert 2.5 < counted["peer0"] / counted["peer1"] < 3.5


async def test_least_latency_tries_each_once_then_prefers_the_fastest() -> None:
    load_balancer = LoadBalancer(random.Random(1))
    load_balancer.answered("peer0", 0.5)
    assert _first(load_balancer, _records("", ""), "least latency") == "peer1"
    load_balancer.answered("peer1", 0.1)
    assert _first(load_balancer, _records("", ""), "least latency") == "peer1"


async def test_who_failed_comes_last_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    load_balancer = LoadBalancer(random.Random(1))
    load_balancer.failed("peer0")
    assert {_first(load_balancer, _records("", ""), "random") for _ in range(20)} == {"peer1"}
    assert len(load_balancer.order("id", _records("", ""), "random")) == 2
    await trio.sleep(AVOIDED_FOR + 1)
    assert {_first(load_balancer, _records("", ""), "random") for _ in range(20)} == {"peer0", "peer1"}


async def test_an_own_function_decides_and_unknown_names_are_refused() -> None:
    load_balancer = LoadBalancer()
    assert _first(load_balancer, _records("", "", ""), lambda records: list(reversed(records))) == "peer2"
    with pytest.raises(ValueError, match="no strategy"):
        load_balancer.order("id", _records(""), cast("Any", "best"))
