"""Hostile HTTP against a node's own router and connections: `python -m tests.attacks.http_fuzz --count 100000`.

Each input is what one client sends, from a grammar of requests that are nearly right, then damaged. A fault is a 500, a
line in the log that says that something was unforeseen, an answer that is no HTTP, or a turn of over 20 ms of CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio
import trio.testing

from aqua_compat.http.access import AddressGuard
from aqua_compat.http.connection import Connection, Handle
from aqua_compat.http.feeds import Feeds
from aqua_compat.http.native_api import NativeApi
from aqua_compat.http.native_operations import OPERATIONS
from aqua_compat.http.places import WatchPlaces
from aqua_compat.http.server import Router, answering
from aqua_compat.http.tokens import Tokens
from aqua_compat.settings import HttpSettings, Settings
from overlay.identity import Identity
from overlay.settings import OverlaySettings
from registry.model.endpoints import Instance, write_instances
from registry.model.signing import key_id_of
from registry.node import Node
from tests.attacks.fuzz.driver import BUDGET, is_within

PEER: Final = Identity.from_seed(bytes(range(32))).peer_id
MOST_FAULTS: Final = 20
LIMITS: Final = HttpSettings(
    head_timeout=0.2, body_timeout=0.2, idle_timeout=0.2, write_timeout=0.5, max_body=65_536, max_watches=16
)

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")
_METHODS: Final = ("GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "G\0T", "PRI")
_TEXTS: Final = (
    "web", "me", PEER, key_id_of("web", PEER), "", ".", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "%ff", "%",
    "\u00fc", "<script>alert(1)</script>", "a" * 3000, "-1", "0", "1", "32768", "1e999", "nan", "true", "null", "{}",
    "[]", "'",
    "%F0%9F%98%80", "\u202e", "%0d%0aX: y",
)  # fmt: skip
_HEADERS: Final = (
    "Content-Type: application/json", "Content-Type: text/plain", "Origin: http://evil.example", "Origin: null",
    "Authorization: Bearer aqr_x", "Authorization: Basic eDp5", "Authorization:", "Last-Event-ID: a-1",
    "Connection: close", "Connection: Upgrade", "Upgrade: websocket", "Expect: 100-continue", "Expect: something",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Content-Length: 5", "Content-Length: 0",
    "Content-Length: 99999999999999999999", "Content-Length: +5", "Host: evil.example", "Sec-Fetch-Site: cross-site",
    "X: \u00fc", "X:\t\x0b", " folded", ": nameless", "Cookie: " + "a" * 2000, "Range: bytes=0-",
)  # fmt: skip
_GOOD: Final = {
    "timeout": "0.02", "ack": "1", "factor": "1", "label": "web", "owner": PEER, "trust": PEER, "trust_root": PEER,
    "reachable": "true", "last_event_id": "abc-1",
}  # fmt: skip
_VALUES: Final = (
    None, True, 0, 1, -1, 2**63, 2**70, 1e308, "", "web", PEER, "a" * 5000, "\ud800", [], {}, [[[]]], "AAAA", "====",
    "gmNrZXk=", {"label": "a"},
)  # fmt: skip
_NAMES: Final = (
    "label", "value", "peer_id", "service_id", "factor", "timeout", "key_or_tombstone", "state", "key", "metadata",
    "colour", "", "note", "instance", "ttl",
)  # fmt: skip


_CONSUL: Final = (
    "catalog/datacenters", "catalog/services", "catalog/nodes", "catalog/service/*", "catalog/node/*",
    "health/service/*", "health/service/*", "health/checks/*", "health/node/*", "health/state/*", "agent/self",
    "agent/services", "agent/checks", "agent/service/register", "agent/service/deregister/*", "agent/check/register",
    "agent/check/pass/*", "agent/health/service/name/*", "status/peers", "kv/*", "*",
)  # fmt: skip
_CONSUL_QUERIES: Final = (
    "passing", "passing=x", "index=1", "index=-1", "index=99999999999999999999", "wait=1ms", "wait=x", "wait=99999h",
    "tag=v1", "near=_agent", "dc=me", "dc=", "node-meta=a:b", "filter=", "filter=Service.Port+==+80",
    "filter=Status+!=+passing", "filter=" + "not+" * 200, "filter=" + "(" * 500, "filter=Service.Meta[", "&&", "=",
    "filter=%22%5c", "stale",
)  # fmt: skip
_FIELDS: Final = (
    "Node", "Node.Meta.a", "Service", "Service.Port", "Service.Weights.Passing", "Service.Tags", "Service.Meta",
    "Service.Meta.zone", "Service.EnableTagOverride", "Checks", "Checks.Status", "Checks.ServiceTags", "ServicePort",
    "Status", "Meta[`a`]", "80", "%22v2%22",
)  # fmt: skip
_OPERATORS: Final = ("==", "!=", "in", "not in", "contains", "not contains", "is empty", "is not empty", "matches")
_CONSUL_NAMES: Final = (
    "Name",
    "ID",
    "Port",
    "Tags",
    "Meta",
    "Check",
    "Checks",
    "Weights",
    "TTL",
    "ServiceID",
    "Status",
)


class Tried(NamedTuple):
    """What became of the inputs: how many there were, answers by status, what was wrong with which, turns that took too
    long, and the slowest turn in seconds of CPU."""

    count: int
    statuses: Counter[int]
    faults: list[str]
    slow: list[str]
    slowest: float


def hostile_request(seed: int, number: int) -> bytes:
    """What one client sends, a function of its arguments alone."""
    chosen = random.Random(f"{seed}/{number}")
    sent = b"".join(_request(chosen) for _ in range(chosen.choice([1, 1, 1, 2, 4])))
    if chosen.random() < 0.3:
        sent = _damaged(chosen, sent)
    return sent[: chosen.randrange(len(sent) + 1)] if chosen.random() < 0.1 else sent


def _consul_request(chosen: random.Random) -> bytes:
    path = chosen.choice(_CONSUL).replace("*", chosen.choice(["web", "any", PEER, chosen.choice(_TEXTS)]))
    is_write = path.startswith("agent/") and chosen.random() < 0.7
    query = "&".join(chosen.choices(_CONSUL_QUERIES, k=chosen.choice([0, 1, 1, 2, 5])))
    if chosen.random() < 0.2:
        query = "filter=" + "+".join((chosen.choice(_FIELDS), chosen.choice(_OPERATORS), chosen.choice(_FIELDS)))
        query = query.replace(" ", "+")
    members = {name: chosen.choice(_VALUES) for name in chosen.sample(_CONSUL_NAMES, chosen.randrange(5))}
    body = json.dumps(members).encode() if is_write or chosen.random() < 0.05 else b""
    method = "PUT" if is_write else chosen.choice(["GET"] * 9 + [chosen.choice(_METHODS)])
    lines = [f"{method} /v1/{path}?{query} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += chosen.sample(_HEADERS, chosen.choice([0, 0, 1]))
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def _request(chosen: random.Random) -> bytes:
    if chosen.random() < 1 / 3:
        return _consul_request(chosen)
    operation = chosen.choice(OPERATIONS)
    method = operation.method if chosen.random() < 0.85 else chosen.choice(_METHODS)
    parts = [_part(chosen, part) for part in operation.parts]
    target = "/" + "/".join(parts)
    names = [each.name for each in operation.parameters if each.where == "query"]
    given = chosen.sample(names, chosen.randrange(len(names) + 1))
    if "label" in names and "label" not in given and chosen.random() < 0.8:
        given.append("label")
    given += chosen.choices([*names, "x"], k=chosen.choice([0] * 12 + [1, 9]))
    query = "&".join(f"{name}={_argument(chosen, name)}" for name in given)
    target = f"{target}?{query}" if query else target
    if chosen.random() < 0.03:
        target = chosen.choice(["*", "http://x/", "//", "/", "?", "/" * 5000, "\\..\\", "/v1/aqua/%2e%2e/status"])
    lines = [f"{method} {target} HTTP/{chosen.choice(['1.1'] * 12 + ['1.0', '2.0', '0.9', ''])}"]
    lines += ["Host: localhost"] * chosen.choice([0] + [1] * 12 + [2])
    body = _body(chosen) if operation.body is not None or chosen.random() < 0.05 else b""
    if body and chosen.random() < 0.9:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += chosen.sample(_HEADERS, chosen.choice([0, 0, 0, 1, 2]))
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def _argument(chosen: random.Random, name: str) -> str:
    return _GOOD[name] if name in _GOOD and chosen.random() < 0.8 else chosen.choice(_TEXTS)


def _part(chosen: random.Random, part: str) -> str:
    if part == "{resource_id}" and chosen.random() < 0.7:
        return key_id_of("web", PEER)
    if part.startswith("{") or chosen.random() < 0.02:
        return chosen.choice(_TEXTS)
    return part


def _body(chosen: random.Random) -> bytes:
    if chosen.random() < 0.05:
        return chosen.choice(
            [b"[" * 60_000, b'{"a":' * 9_000, b"\xff\xfe", b'"\\ud800"', b"1e99999", b"{" + b" " * 70_000]
        )
    members: dict[str, object] = {"timeout": 0.02}
    if chosen.random() < 0.5:
        members |= chosen.choice([{"label": chosen.choice(_TEXTS)}, {"value": "v"}, {"key_or_tombstone": "gA=="}])
    if chosen.random() < 0.5:
        members |= {name: chosen.choice(_VALUES) for name in chosen.sample(_NAMES, chosen.randrange(4))}
    return json.dumps(members).encode()


def _damaged(chosen: random.Random, sent: bytes) -> bytes:
    damaged = bytearray(sent)
    for _ in range(chosen.choice([1, 1, 2, 8])):
        at = chosen.randrange(len(damaged) + 1)
        match chosen.randrange(4):
            case 0:
                damaged[at : at + 1] = bytes([chosen.randrange(256)])
            case 1:
                del damaged[at : at + chosen.randrange(1, 40)]
            case 2:
                damaged[at:at] = chosen.choice([b"\r\n", b"\n", b"\0", b"\r", b"\x80", b" ", b"%", b"\r\n\r\n"])
            case _:
                damaged[at:at] = damaged[at : at + 200]
    return bytes(damaged)


class Turns(trio.abc.Instrument):
    """The CPU that tasks take between two waits: the most, and what was tried when it was too much."""

    def __init__(self, counts: Callable[[trio.lowlevel.Task], bool]) -> None:
        """`counts`: whether a task counts."""
        self._counts = counts
        self.slowest = 0.0
        self.trying: set[int] = set()
        self.slow: list[str] = []
        self._began = math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._counts(task):
            return
        took = time.thread_time() - self._began
        self.slowest = max(self.slowest, took)
        if took > BUDGET and not is_within(took, BUDGET) and len(self.slow) < MOST_FAULTS:
            self.slow.append(f"{took * 1000:.0f} ms in {task.name}, one of the inputs {sorted(self.trying)}")


async def try_requests(count: int, seed: int, folder: Path) -> Tried:
    """Sends so many inputs to a node in this process, each on a connection of its own, 16 at the same time."""
    from aqua_compat.api.full_node import identity_in, open_full_node
    from aqua_compat.http.consul.consul_api import consul_api

    settings = Settings(overlay=OverlaySettings(listen=("/ip4/127.0.0.1/tcp/0",)), http=LIMITS)
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    numbers, turns = (
        iter(range(count)),
        Turns(lambda task: not task.name.endswith("send_some")),
    )  # what sends isn't the node's
    async with (
        open_full_node(identity_in(folder), settings, folder) as (node, services),
        trio.open_nursery() as nursery,
    ):
        places = WatchPlaces(LIMITS.max_watches)
        feeds = Feeds(node.registry, places)
        consul = consul_api(node, LIMITS, folder, None, places, None)
        router = Router(NativeApi(node, services, feeds), consul)
        nursery.start_soon(feeds.run)
        await nursery.start(consul.run)
        await _register_an_instance(node)
        guard = AddressGuard(Tokens(folder), (), is_loopback=True, now=trio.current_time)

        async def send_some() -> None:
            for number in numbers:
                turns.trying.add(number)
                handle = answering(router, lambda each: guard.judged(each, "x"))
                answers = await _answers(handle, hostile_request(seed, number), ends=number % 8 == 0)
                turns.trying.discard(number)
                if {0, 500}.intersection(answers) and len(faults) < MOST_FAULTS:
                    faults.append(f"input {number}: {answers}, {hostile_request(seed, number)[:300]!r}")
                statuses.update(answers)

        gc.collect()  # as a node does: what is here by now isn't looked through again and again
        gc.freeze()
        trio.lowlevel.add_instrument(turns)
        async with trio.open_nursery() as senders:
            for _ in range(16):
                senders.start_soon(send_some)
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    return Tried(count, statuses, faults, turns.slow, turns.slowest)


async def _register_an_instance(node: Node) -> None:
    """So that filters, tags and the like have something to be asked of."""
    instance = Instance(id="a", address="192.0.2.1", port=80, tags=("v2",), metadata={"zone": "eu"})
    made = await node.registry.create_resource("web")
    assert made.resource_id is not None, made.errors
    value = write_instances([instance])
    done = await node.registry.register_service(made.resource_id, value, node.peer.peer_id, None)
    assert done.success, done.errors


async def _answers(handle: Handle, sent: bytes, *, ends: bool) -> list[int]:
    """The statuses of the answers to what a client sends; 0 for one that is no HTTP. `ends`: it says that it ends."""
    client, server = trio.testing.memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(server, handle, LIMITS).serve)
        with trio.move_on_after(1.0):  # an endless answer
            try:
                await client.send_all(sent)
                if ends:
                    await client.send_eof()
                while piece := await client.receive_some(65_536):
                    received += piece
                    if b"event: snapshot" in piece:
                        break
            except trio.BrokenResourceError:
                pass
        await client.aclose()
    return _statuses_in(received)


def _statuses_in(received: bytes) -> list[int]:
    statuses = [int(found) for found in _STATUS.findall(received)]
    return statuses if not received or _STATUS.match(received) else [0, *statuses]


def main() -> int:
    """Whether there was any fault."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attacks.http_fuzz", description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        tried = trio.run(try_requests, given.count, given.seed, Path(folder) / "node")
    print(
        f"{tried.count} inputs, {time.process_time() - began:.0f} s of CPU, slowest turn {tried.slowest * 1000:.1f} ms"
    )
    print(" ".join(f"{status}: {count}" for status, count in sorted(tried.statuses.items())))
    print("\n".join([*tried.faults, *tried.slow]) or "no fault")
    return 1 if tried.faults or tried.slow else 0


if __name__ == "__main__":
    sys.exit(main())
