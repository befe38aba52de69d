"""Hostile DNS against a node's own server: `python -m tests.attacks.dns_fuzz --count 100000`.

Each input is a datagram: a query that is nearly right, from a grammar, then damaged; of addresses that have shown
nothing, of this machine, or by TCP. A fault is an exception, an answer that dnspython can't read or that isn't one to
its query, more bytes than a source may get that has shown nothing, or over 20 ms of CPU.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.rcode
import structlog
import trio

from aqua_compat.dns.peer_names import label_of_peer
from aqua_compat.dns.responder import Answerable
from aqua_compat.dns.sources import MOST_TIMES
from aqua_compat.settings import DnsSettings
from overlay.identity import Identity
from registry.model.endpoints import MAX_INSTANCES, Instance
from tests.attacks.fuzz.driver import BUDGET, is_within
from tests.unit.aqua_compat.dns.running import running_dns

MOST_FAULTS: Final = 20
EVERY: Final = 50  # inputs, after which one goes through the sockets, too
LIMITS: Final = DnsSettings(listen="127.0.0.1:0", queries=1e9, queries_per_source=1e9, timeout=0.05)
STRANGER: Final = "192.0.2.1"

_LABELS: Final = (
    b"web", b"_web", b"_tcp", b"_udp", b"service", b"acme", b"me", b"node", b"addr", b"ns", b"c0000207", b"v2",
    label_of_peer(Identity.from_seed(bytes(32)).peer_id).encode(), b"aqua", b"AQUA", b"", b"x" * 63, b"\0", b"\xff\xfe",
    b".", b"*", b"k" + b"z" * 61, b"f" * 32, "\u00fc".encode(), b"12d3koow",
)  # fmt: skip
_NAMES: Final = (
    (b"web", b"me", b"aqua"), (b"_web", b"_tcp", b"me", b"aqua"), (b"v2", b"web", b"service", b"acme", b"aqua"),
    (b"me", b"node", b"aqua"), (b"c0000207", b"addr", b"aqua"), (b"aqua",), (),
)  # fmt: skip
_KINDS: Final = (1, 28, 33, 16, 6, 2, 255, 252, 251, 41, 5, 15, 12, 0, 65, 65_535)


class Answered(NamedTuple):
    """What became of the inputs: how many there were, answers by rcode, what was wrong with which, the slowest in
    seconds of CPU, and the mean of those that were no good query and of those that were."""

    count: int
    rcodes: Counter[str]
    faults: list[str]
    slowest: float
    bad: float
    good: float


def hostile_message(seed: int, number: int) -> bytes:
    """A datagram, a function of its arguments alone."""
    chosen = random.Random(f"{seed}/{number}")
    wire = _message(chosen)
    if chosen.random() < 0.4:
        wire = _damaged(chosen, wire)
    return wire[: chosen.randrange(len(wire) + 1)] if chosen.random() < 0.1 else wire


def _message(chosen: random.Random) -> bytes:
    if chosen.random() < 0.03:
        return chosen.randbytes(chosen.randrange(700))
    labels = list(chosen.choice(_NAMES))
    if chosen.random() < 0.4:
        labels = [*chosen.choices(_LABELS, k=chosen.choice([1, 2, 3, 4, 8, 40])), b"aqua"]
    name = b"".join(bytes([len(each)]) + each for each in labels) + b"\0"
    if chosen.random() < 0.05:
        name = chosen.choice([b"\xc0\x0c", b"\xc0\x00", b"\x40a", b"\x80", b"\x3f", b"\x01a\xc0\x0c"])
    question = name + chosen.choice(_KINDS).to_bytes(2, "big") + chosen.choice([1] * 9 + [3, 255]).to_bytes(2, "big")
    counts = [1, 0, 0, 0]
    after = b""
    if chosen.random() < 0.5:
        after, counts[3] = _edns(chosen), 1
    if chosen.random() < 0.1:
        counts[chosen.randrange(4)] = chosen.choice([0, 1, 2, 3, 65_535])
        after += chosen.choice([b"", b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd", name + b"\0\x06\0\1\0\0\0\0\xff\xff"])
    flags = chosen.choice([0x0100] * 8 + [0x0000, 0x8000, 0x2800, 0x7800, 0xFFFF, 0x0130])
    head = chosen.randbytes(2) + b"".join(each.to_bytes(2, "big") for each in (flags, *counts))
    return head + question + after


def _edns(chosen: random.Random) -> bytes:
    options = b""
    for _ in range(chosen.choice([0, 0, 1, 2, 9])):
        content = chosen.randbytes(chosen.choice([0, 4, 8, 16, 24, 40, 60]))
        options += chosen.choice([10, 8, 12, 3, 65_001]).to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    payload = chosen.choice([0, 100, 512, 1232, 4096, 65_535])
    version = chosen.choice([0] * 9 + [1, 255])
    return (
        b"\0\0\x29" + payload.to_bytes(2, "big") + bytes([0, version, 0x80, 0]) + len(options).to_bytes(2, "big")
    ) + options


def _damaged(chosen: random.Random, wire: bytes) -> bytes:
    damaged = bytearray(wire)
    for _ in range(chosen.choice([1, 1, 2, 8])):
        at = chosen.randrange(len(damaged) + 1)
        match chosen.randrange(4):
            case 0:
                damaged[at : at + 1] = bytes([chosen.randrange(256)])
            case 1:
                del damaged[at : at + chosen.randrange(1, 12)]
            case 2:
                damaged[at:at] = chosen.choice([b"\xc0\x0c", b"\0", b"\xff", b"\x3f", b"\0\x29"])
            case _:
                damaged[at:at] = damaged[at : at + 60]
    return bytes(damaged)


def _fault(wire: bytes, answer: bytes, *, is_stranger: bool) -> str:
    """What is wrong with an answer; nothing, mostly."""
    if is_stranger and len(answer) > MOST_TIMES * len(wire):
        return f"{len(answer)} bytes for {len(wire)}"
    try:
        told = dns.message.from_wire(answer)
    except (dns.exception.DNSException, ValueError) as error:
        return f"an answer that can't be read: {error!r}"
    if told.id != int.from_bytes(wire[:2], "big") or not told.flags & 0x8000:
        return "no answer to its query"
    if told.question and not wire[12:].startswith(told.question[0].name.to_wire() or b"-"):
        return "another question than was asked"
    return ""


async def try_messages(count: int, seed: int, folder: Path) -> Answered:
    """Has a node in this process answer so many."""
    rcodes: Counter[str] = Counter()
    faults: list[str] = []
    slowest, spent = 0.0, {True: [0.0, 0], False: [0.0, 0]}
    async with running_dns(folder, LIMITS, {"acme": Identity.from_seed(bytes(32)).peer_id}) as asked:
        await asked.register(
            "web", [Instance(id=str(each), address=f"192.0.2.{each + 1}", port=80) for each in range(MAX_INSTANCES)]
        )
        responder = asked.server.responder
        gc.collect()  # as a node does: what is here by now isn't looked through again and again
        gc.freeze()
        for number in range(count):
            if len(faults) >= MOST_FAULTS:
                break
            wire = hostile_message(seed, number)
            address, by_tcp = random.Random(number).choice(((STRANGER, False), ("127.0.0.1", False), (STRANGER, True)))
            is_stranger = address == STRANGER and not by_tcp
            # Each as if it came first: an address that has asked by TCP has shown where it is.
            address = f"198.51.100.{number % 250}" if by_tcp else address
            try:
                began = time.thread_time()
                answer = responder.answer(wire, address, trio.current_time(), by_tcp=by_tcp)
                took = time.thread_time() - began
                if isinstance(answer, Answerable):
                    answer = await responder.find(answer)
            except Exception as error:  # the fault that is looked for
                faults.append(f"input {number}: {error!r}, {wire.hex()}")
                continue
            slowest = max(slowest, took)
            if took > BUDGET and not is_within(took, BUDGET):
                faults.append(f"input {number}: {took * 1000:.0f} ms, {wire.hex()}")
            if answer is None:
                rcodes["none"] += 1
                continue
            if what := _fault(wire, answer, is_stranger=is_stranger):
                faults.append(f"input {number}: {what}, {wire.hex()}, {answer.hex()}")
            rcode = dns.rcode.to_text(dns.rcode.Rcode.make(answer[3] & 15))
            rcodes[rcode] += 1
            kind = spent[rcode not in ("FORMERR", "NOTIMP")]
            kind[0], kind[1] = kind[0] + took, kind[1] + 1
            if number % EVERY == 0:
                await trio.lowlevel.checkpoint()
                await _through_sockets(asked.server.address, wire)
        if not (await asked.ask("web.me.aqua", edns=8192)).answer:
            faults.append("it doesn't answer any more")
    bad, good = (spent[kind][0] / max(spent[kind][1], 1) for kind in (False, True))
    return Answered(count, rcodes, faults, slowest, bad, good)


async def _through_sockets(address: tuple[str, int], wire: bytes) -> None:
    """Sends it, and doesn't wait for what comes of it."""
    client = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with client:
        await client.sendto(wire, tuple(address))
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(len(wire).to_bytes(2, "big") + wire)


def main() -> int:
    """Whether there was any fault."""
    arguments = argparse.ArgumentParser(prog="python -m tests.attacks.dns_fuzz", description=__doc__)
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        tried = trio.run(try_messages, given.count, given.seed, Path(folder) / "node")
    print(
        f"{tried.count} inputs, {time.process_time() - began:.0f} s of CPU, the slowest {tried.slowest * 1000:.1f} ms,"
        f" mean {tried.bad * 1e6:.0f} us of what was no good query, {tried.good * 1e6:.0f} us of what was"
    )
    print(" ".join(f"{rcode}: {count}" for rcode, count in sorted(tried.rcodes.items())))
    print("\n".join(tried.faults) or "no fault")
    return 1 if tried.faults else 0


if __name__ == "__main__":
    sys.exit(main())
