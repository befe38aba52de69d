"""What policies cost: the signatures that are checked; registering under a certificate beside registering on an open
resource, in turns; how long a change of a policy takes to all watchers; what strangers who try cost a node; and, of
private networks, how long a member that is revoked keeps links. Each figure stands beside its aim.

    python -m benchmarks.permissions [--nodes 8 32] [--count N] [--changes N] [--strangers N] [--revocations N]

So many node processes, 8 by default; this process is the owner, the issuer, a watcher at each node, and the strangers.
Then as many members of a private network, and one more for each that is revoked. The calls, bytes and CPU of a
registration are those of all nodes, with what it leaves to the background and without what they take when idle.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import structlog
import trio

from aqua_compat.cli.node_process import NodeProcess
from benchmarks.network_sizes import take_network_sizes
from benchmarks.observed import observed
from benchmarks.processes import cpu_seconds
from benchmarks.registry_operations import NODES, REPLICAS, network
from benchmarks.revocations import revoking
from overlay import identity as overlay_identity
from overlay.identity import Identity, public_key_of
from overlay.membership.certificate import Certificate, encode_chain
from registry.client.light import LightClient, open_light_client
from registry.client.registry import Registry
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, Record, RecordMetadata
from registry.model.verification import check_key, check_record
from registry.permission.edits import Edit, EditKind
from registry.permission.permitted import REGISTER
from registry.permission.policy import POLICY_TYPE, Policy, encode_policy
from registry.permission.scope import Scope, ScopeKind
from registry.protocol.messages import PUT, Item, PutAnswer, PutBody, build, parse
from registry.replica.countersign import sign_record
from registry.settings import RegistrySettings
from registry.watch.watch import Watch

EVERY: Final = 60.0  # seconds between two attempts of one stranger
RULES: Final = RegistrySettings()


def key_of(who: Identity) -> bytes:
    """The public key of `who`."""
    return public_key_of(who.peer_id)


def certificate_of(root: Identity, subject: Identity, owner: Identity, depth: int = 0) -> Certificate:
    """By `root`, of all resources of `owner`, for an hour."""
    now, scope = int(time.time()), Scope(ScopeKind.ALL, key_of(owner)).encoded()
    return Certificate(key_of(root), key_of(subject), (REGISTER,), depth, scope, now - 60, now + 3600).signed_by(root)


def a_key(owner: Identity, policy: Policy | None) -> Key:
    """A key of `owner`, with a policy or open."""
    challenge, kind = (b"", "") if policy is None else (encode_policy(policy), POLICY_TYPE)
    unsigned = Key("benchmark", owner.peer_id, int(time.time()), challenge, kind, b"")
    return msgspec.structs.replace(unsigned, signature=owner.sign(unsigned.signed_bytes()))


def a_record(key: Key, issuer: Identity, solution: bytes = b"", issued: int | None = None) -> Record:
    """A record of `issuer` on itself."""
    now = int(time.time()) if issued is None else issued
    unsigned = RecordMetadata(key.id, issuer.peer_id, issuer.peer_id, now, solution, "", (), ("s",), b"")
    signed = msgspec.structs.replace(unsigned, issuer_signature=issuer.sign(unsigned.signed_bytes()))
    return sign_record(issuer, signed, now)


def signature_checks(action: Callable[[], object]) -> int:
    """How many signatures are checked meanwhile."""
    checked = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal checked
        checked += event == "call" and frame.f_code is overlay_identity.verify.__code__

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return checked


def checked_by_a_replica(key: Key, record: Record) -> int:
    """Signatures that a replica checks for a registration."""

    def check() -> None:
        now = int(time.time())
        check_key(key, now, RULES)
        check_record(record, now, RULES)
        assert why_withheld(key, record, now) is None

    return signature_checks(check)


def count_checks() -> None:
    """First registrations and renewals, on an open resource and under a chain of three."""
    owner, root, middle, last, issuer = (Identity.generate() for _ in range(5))
    chain = [certificate_of(root, middle, owner, 2), certificate_of(middle, last, owner, 1)]
    solution = encode_chain([*chain, certificate_of(last, issuer, owner)])
    keys = (a_key(owner, None), a_key(owner, Policy(revision=1, roots=(key_of(root),))))
    counts = [
        [checked_by_a_replica(key, a_record(key, issuer, shown, int(time.time()) - age)) for age in (1, 0)]
        for key, shown in zip(keys, (b"", solution), strict=True)
    ]
    first, anew = (certified - opened for certified, opened in zip(counts[1], counts[0], strict=True))
    print(
        f"signature checks        first registration {counts[1][0]} under a chain of three, {counts[0][0]} open:"
        f" {first} more (aim: at most 4); issued anew {counts[1][1]} and {counts[0][1]}: {anew} more (aim: none)"
    )


async def created(registry: Registry, label: str, edits: list[Edit], replicas: int) -> str:
    """A resource that so many nodes have, with a policy if there are edits."""
    resource_id = (await registry.create_resource(label, factor=replicas)).resource_id
    assert resource_id is not None
    if edits:
        done = await registry.change_policy(resource_id, edits)
        assert done.success, done.errors
    return resource_id


async def registering(
    nodes: list[NodeProcess], owner: LightClient, issuer: LightClient, root: Identity, count: int
) -> None:
    """Timed in turns, so that both meet the same machine; then as many of each by themselves, for their costs."""
    replicas = min(len(nodes), REPLICAS)
    edits = [Edit(EditKind.ADD_ROOT, key_of(root)), Edit(EditKind.CLOSE)]
    chain = [certificate_of(root, issuer.registry.identity, owner.registry.identity)]
    issuer.registry.use_certificates(lambda: [chain])
    ids = [
        [
            await created(owner.registry, f"{name} {n}", each, replicas)
            for name, each in (("open", []), ("closed", edits))
        ]
        for n in range(2 * count)
    ]

    async def register(resource_id: str) -> None:
        done = await issuer.registry.register_service(resource_id, "", issuer.registry.identity.peer_id, "s")
        assert done.success, done.errors

    await trio.sleep(2)
    times: tuple[list[float], list[float]] = ([], [])
    for pair in ids[:count]:
        for resource_id, durations in zip(pair, times, strict=True):
            before = time.perf_counter()
            await register(resource_id)
            durations.append(time.perf_counter() - before)
    opened, certified = (sorted(durations)[count // 2] * 1000 for durations in times)
    print(
        f"register                p50 {certified:.2f} ms with a certificate, {opened:.2f} ms open:"
        f" {certified / opened:.2f} times (aim: at most 1.10)"
    )
    async with observed(nodes) as askers:
        all_nodes = await askers.knowing_idle()
        for which, name in enumerate(("open", "with a certificate")):
            spent = await all_nodes.spent()
            for pair in ids[count:]:
                await register(pair[which])
            print(f"  {name:21} {await all_nodes.costs(spent, count)}")


async def changing(owner: LightClient, clients: list[LightClient], changes: int) -> None:
    """The issuer is allowed and disallowed; each watcher is told."""
    issuer, replicas = clients[0].registry, min(len(clients), REPLICAS)
    named = key_of(issuer.identity)
    edits = [Edit(EditKind.ALLOW, named), Edit(EditKind.CLOSE)]
    resource_id = await created(owner.registry, "watched", edits, replicas)
    assert (await issuer.register_service(resource_id, "", issuer.identity.peer_id, "s", factor=replicas)).success
    told: list[list[float]] = [[] for _ in clients]
    came = trio.Condition()

    async def follow(number: int, watch: Watch) -> None:
        async for _ in watch:
            async with came:
                told[number].append(time.perf_counter())
                came.notify_all()

    asked: list[float] = []
    after: list[float] = []
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(follow, number, await stack.enter_async_context(client.registry.watch(resource_id)))
        await trio.sleep(5)
        for change in range(changes):
            seen = [len(each) for each in told]
            before = time.perf_counter()
            edit = Edit(EditKind.DISALLOW if change % 2 == 0 else EditKind.ALLOW, named)
            done = await owner.registry.change_policy(resource_id, [edit])
            acknowledged = time.perf_counter()
            assert done.success, done.errors
            with trio.fail_after(30):
                async with came:
                    while any(len(each) <= count for each, count in zip(told, seen, strict=True)):
                        await came.wait()
            last = [each[count] for each, count in zip(told, seen, strict=True)]
            asked += [when - before for when in last]
            after += [max(when - acknowledged, 0.0) for when in last]
        nursery.cancel_scope.cancel()
    for name, delays in (("since it was asked for", asked), ("since it was acknowledged", after)):
        in_order = sorted(delays)
        p50, p99 = in_order[len(in_order) // 2] * 1000, in_order[int(len(in_order) * 0.99)] * 1000
        print(f"a change to {len(clients)} watchers   p50 {p50:.1f} ms  p99 {p99:.1f} ms {name} (aim: p99 below 50)")


async def trying(owner: LightClient, node: NodeProcess, strangers: int, replicas: int) -> None:
    """Records of strangers, each signed by a key of its own, put to a replica; at the rate of so many that try once a
    minute each."""
    resource_id = await created(owner.registry, "closed to all", [Edit(EditKind.CLOSE)], replicas)
    key = (await owner.registry.get_resource(resource_id)).key
    assert key is not None
    assert node.process_id is not None
    bodies = [build(PutBody.of([Item(key, a_record(key, Identity.generate()))])) for _ in range(strangers)]
    pause = EVERY / strangers
    await trio.sleep(2)
    idle = cpu_seconds(node.process_id)
    await trio.sleep(10)
    idle = (cpu_seconds(node.process_id) - idle) / 10
    before, began = cpu_seconds(node.process_id), trio.current_time()
    for number, body in enumerate(bodies):
        await trio.sleep_until(began + number * pause)
        answer = parse(await owner.peer.call(owner.registry.host_peer_id, PUT, body, timeout=10), PutAnswer)
        assert answer.errors[0] is not None, "a stranger got in"
    took = trio.current_time() - began
    used = (cpu_seconds(node.process_id) - before) / took - idle
    print(
        f"{strangers} strangers, each trying once in {EVERY:.0f} s: {used * 100:.1f} % of a core of the node that"
        f" they try (aim: below 5; {used * took / strangers * 1000:.2f} ms each), idle {idle * 100:.1f} %"
    )


async def putting_out(folder: Path, nodes: int, times: int) -> None:
    """Members of a private network of which so many stay, by the command."""
    cuts = await revoking(folder, nodes, times)
    print(
        f"{len(cuts)} revoked members     no link at any of {nodes} nodes"
        f" {max(cut.since_start for cut in cuts):.2f} s after the command was started at the latest,"
        f" {max(cut.since_end for cut in cuts):.2f} s after it ended (aim: below 5)"
    )


async def main() -> None:
    """Measures, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    take_network_sizes(parser, NODES, least=2)
    parser.add_argument("--count", type=int, default=100, help="registrations of each kind")
    parser.add_argument("--changes", type=int, default=50, help="changes of a policy")
    parser.add_argument("--strangers", type=int, default=1000)
    parser.add_argument("--revocations", type=int, default=5, help="members of a private network that are put out")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"Python {platform.python_version()}")
    count_checks()
    for nodes in arguments.nodes:
        print(f"{nodes} node processes", flush=True)
        await measure(nodes, arguments)


async def measure(count: int, arguments: argparse.Namespace) -> None:
    """All of it that takes a network, of `count` nodes."""
    with tempfile.TemporaryDirectory() as folder:
        async with network(Path(folder), count) as nodes, AsyncExitStack() as stack:
            await trio.sleep(3)
            owner = await stack.enter_async_context(open_light_client(Identity.generate(), [nodes[1].address]))
            clients = [
                await stack.enter_async_context(open_light_client(Identity.generate(), [node.address]))
                for node in nodes
            ]
            await registering(nodes, owner, clients[-1], Identity.generate(), arguments.count)
            await changing(owner, clients, arguments.changes)
            await trying(owner, nodes[1], arguments.strangers, min(count, REPLICAS))
        await putting_out(Path(folder), count, arguments.revocations)


if __name__ == "__main__":
    trio.run(main)
