"""The node API over the wire: every operation of the table, asked by a remote node's client and answered by a node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
import trio

from overlay.errors import CallRefused, Overloaded, Unreachable
from registry.client.node_api_server import serve_node_api
from registry.client.node_operations import HOSTS, OPERATIONS, READ, SERVICE, WRITE, CallBody, ServiceRequest
from registry.client.node_status import NodeStatus
from registry.client.peer_info import PeerInfo
from registry.client.remote_node import RemoteNode
from registry.codes import Code
from registry.errors import HostingRefused, NodeOverloaded, NodeUnavailable, NotPermitted, RegistryRefusal
from registry.health.messages import ToldStanding
from registry.health.report import HealthReport, signed_report
from registry.health.state import HealthState
from registry.model.history import HistoryEvent
from registry.model.merge import ResourceState
from registry.model.owner_index import IndexEntry
from registry.model.values import Key, Record, RecordMetadata, Tombstone
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import LARGEST_COUNT, LONGEST_TIME, Item, WriteOutcome, build
from registry.quorum.listing import ListOutcome
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.upkeep.schedule import ScheduleStatus
from tests.simulation.simulated_network import SimulatedNetwork, SimulatedPeer
from tests.unit.registry.builders import (
    HOST,
    ISSUER,
    NOW,
    a_key,
    a_key_tombstone,
    a_metadata,
    a_record,
    a_tombstone,
    hosted,
    identity,
)

KEY = a_key()
UNREACHABLE = ErrorInfo(Code.UNREACHABLE, "unreachable on somebody")
RESOURCE = ResourceState.of(KEY, [a_record(KEY.id)])
OUTCOME = WriteOutcome(stored=2, targets=3, errors=(UNREACHABLE,), write_id="a write")
INFO = PeerInfo(HOST.peer_id, ("/ip4/127.0.0.1/tcp/1",))
STATUS = NodeStatus(HOST.peer_id, (), (), 1, 2, 3, 4.5, ready=True, particles={"taken": 1.0})
EVENT = HistoryEvent(NOW, KEY.id, "", "", "stored")
REPORT = signed_report(ISSUER, a_metadata(KEY.id).slot, "a", NOW * 1000, HealthState.WARNING, "slow", 10)
STANDING = ToldStanding(HOST.peer_id, False, True, 3.5, b"evidence")
LISTED = ListOutcome((IndexEntry.of(KEY),), KEY.label, 2, (UNREACHABLE,), timed_out=False)
SCHEDULE = ScheduleStatus("renew_43200", 43200.0, 1, NOW, 0.5, "nothing was due")


class FakeNode:
    """Answers like a `LocalNode`, and remembers what it was asked."""

    def __init__(self, resource: ResourceState = RESOURCE) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.resource = resource
        self.timeouts: list[float] = []

    async def _answer(self, timeout: float, *asked: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.timeouts.append(timeout)
        self.asked.append(asked)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        await self._answer(timeout, "write", item, factor)
        return OUTCOME

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        await self._answer(timeout, "read", key_id, ack, key_suffices)
        outcome = ReadOutcome()
        outcome.resource, outcome.answered, outcome.errors, outcome.timed_out = self.resource, 3, [UNREACHABLE], True
        return outcome

    async def countersign(
        self, key: Key, metadata: RecordMetadata, *, timeout: float, caller: str | None = None
    ) -> Record:
        await self._answer(timeout, "countersign", key, caller)
        if metadata.peer_id != HOST.peer_id:
            raise HostingRefused("not here")
        return hosted(metadata, HOST, NOW)

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        await self._answer(timeout, "neighbours", resource_id)
        return [HOST.peer_id]

    async def peer_infos(self, resource_id: str, *, timeout: float) -> list[PeerInfo]:
        await self._answer(timeout, "peer_infos", resource_id)
        return [INFO]

    async def service(self, function: str, arguments: Any, *, timeout: float, caller: str | None = None) -> Any:
        await self._answer(timeout, "service", function, tuple(arguments), caller)
        return "the id"

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        await self._answer(timeout, "progress", write_id)
        return OUTCOME if write_id == OUTCOME.write_id else None

    async def status(self, *, timeout: float) -> NodeStatus:
        await self._answer(timeout, "status")
        return STATUS

    async def run_schedule(self, name: str, *, timeout: float, caller: str | None = None) -> ScheduleStatus:
        await self._answer(timeout, "run_schedule", name, caller)
        if name != SCHEDULE.name:
            raise NotPermitted("this one")
        return SCHEDULE

    async def report_health(self, report: HealthReport, *, timeout: float, caller: str | None = None) -> None:
        await self._answer(timeout, "report_health", report, caller)

    async def hosts(
        self, hosts: Sequence[str], seconds: float, *, timeout: float, caller: str
    ) -> tuple[ToldStanding, ...]:
        await self._answer(timeout, "hosts", tuple(hosts), seconds, caller)
        return (STANDING,)

    async def complain(self, host: str, *, timeout: float, caller: str) -> None:
        await self._answer(timeout, "complain", host, caller)

    async def list_resources(
        self, owner_peer_id: str, after: str | None, *, limit: int, ack: int, timeout: float
    ) -> ListOutcome:
        await self._answer(timeout, "list_resources", owner_peer_id, after, limit, ack)
        return LISTED

    async def explain(self, key_id: str, *, timeout: float, caller: str | None = None) -> list[HistoryEvent]:
        await self._answer(timeout, "explain", key_id, caller)
        return [EVENT]


class ClientPeer:
    """A light client's peer: it links to whatever node answers."""

    def __init__(self, peer: SimulatedPeer) -> None:
        self.peer = peer
        self.linked: set[str] = set()

    def is_linked(self, peer_id: str) -> bool:
        return peer_id in self.linked

    async def connect(self, multiaddr: str, *, timeout: float) -> str:
        await trio.lowlevel.checkpoint()
        peer_id = multiaddr.rpartition("/")[2]
        self.linked.add(peer_id)
        return peer_id

    async def call(self, peer_id: str, method: str, body: object, *, timeout: float) -> object:
        try:
            return await self.peer.call(peer_id, method, body, timeout=timeout)
        except Unreachable:
            self.linked.discard(peer_id)
            raise


class World:
    """Some nodes, and one light client that knows them all."""

    def __init__(self, *nodes: FakeNode) -> None:
        self.network = SimulatedNetwork()
        self.nodes = nodes
        self.peer_ids = [identity(20 + number).peer_id for number in range(len(nodes))]
        for peer_id, node in zip(self.peer_ids, nodes, strict=True):
            serve_node_api(self.network.add(peer_id), cast("Any", node))
        self.client = self.network.add(ISSUER.peer_id)
        self.peer = ClientPeer(self.client)
        addresses = [
            f"/ip4/127.0.0.1/tcp/{4000 + number}/p2p/{peer_id}" for number, peer_id in enumerate(self.peer_ids)
        ]
        self.remote = RemoteNode(self.peer, addresses, RegistrySettings(), lambda: float(NOW))


async def test_every_operation_is_answered_as_the_node_answers_it(autojump_clock: trio.testing.MockClock) -> None:
    node = FakeNode()
    remote = World(node).remote
    item = Item(KEY, a_tombstone(KEY.id))
    metadata = a_metadata(KEY.id)
    assert await remote.write(item, factor=2, timeout=5) == OUTCOME
    assert await remote.write(Item(a_key_tombstone()), factor=-1, timeout=5) == OUTCOME
    read = await remote.read(KEY.id, ack=2, timeout=5, key_suffices=True)
    assert (read.resource, read.answered, read.errors, read.timed_out) == (RESOURCE, 3, [UNREACHABLE], True)
    assert await remote.countersign(KEY, metadata, timeout=5) == hosted(metadata, HOST, NOW)
    assert await remote.neighbours(KEY.id, timeout=5) == [HOST.peer_id]
    assert await remote.peer_infos(KEY.id, timeout=5) == [INFO]
    assert await remote.progress(OUTCOME.write_id, timeout=5) == OUTCOME
    assert await remote.progress("another", timeout=5) is None
    assert await remote.status(timeout=5) == STATUS
    assert await remote.explain(KEY.id, timeout=5) == [EVENT]
    assert await remote.run_schedule(SCHEDULE.name, timeout=5) == SCHEDULE
    await remote.report_health(REPORT, timeout=5)
    assert await remote.hosts([HOST.peer_id], 300, timeout=5) == (STANDING,)
    await remote.complain(HOST.peer_id, timeout=5)
    assert await remote.list_resources(KEY.owner_peer_id, "a", limit=9, ack=2, timeout=5) == LISTED
    assert await remote.service("get_key_id", ["sample", b"bytes"], timeout=5) == "the id"
    assert node.asked == [
        ("write", item, 2),
        ("write", Item(a_key_tombstone()), -1),
        ("read", KEY.id, 2, True),
        ("countersign", KEY, ISSUER.peer_id),
        ("neighbours", KEY.id),
        ("peer_infos", KEY.id),
        ("progress", OUTCOME.write_id),
        ("progress", "another"),
        ("status",),
        ("explain", KEY.id, ISSUER.peer_id),
        ("run_schedule", SCHEDULE.name, ISSUER.peer_id),
        ("report_health", REPORT, ISSUER.peer_id),
        ("hosts", (HOST.peer_id,), 300.0, ISSUER.peer_id),
        ("complain", HOST.peer_id, ISSUER.peer_id),
        ("list_resources", KEY.owner_peer_id, "a", 9, 2),
        ("service", "get_key_id", ("sample", b"bytes"), ISSUER.peer_id),
    ]
    assert {asked[0] for asked in node.asked} == {operation.name.removeprefix("node.") for operation in OPERATIONS}
    assert all(2 < timeout < 5 for timeout in node.timeouts), "the answer has to travel too"


async def test_a_read_of_several_pages_is_put_together(autojump_clock: trio.testing.MockClock) -> None:
    records = [a_record(KEY.id, identity(number), identity(number), value="x" * 60_000) for number in range(30, 54)]
    node = FakeNode(ResourceState.of(KEY, records))
    read = await World(node).remote.read(KEY.id, ack=1, timeout=5)
    assert read.resource.digest() == node.resource.digest()
    assert len(node.asked) > 1


async def test_what_a_node_serves_that_is_not_signed_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    forged = Tombstone(KEY.id, ISSUER.peer_id, HOST.peer_id, NOW, b"", bytes(64))
    node = FakeNode(ResourceState.of(a_key("another"), [a_record(KEY.id, HOST), forged]))
    read = await World(node).remote.read(KEY.id, ack=1, timeout=5)
    assert read.resource.key is None
    assert list(read.resource.slots.values()) == [a_record(KEY.id, HOST)]


async def test_a_refusal_is_told_to_whoever_asked(autojump_clock: trio.testing.MockClock) -> None:
    remote = World(FakeNode()).remote
    with pytest.raises(RegistryRefusal, match="this one"):
        await remote.run_schedule("another", timeout=5)
    with pytest.raises(RegistryRefusal, match="not here"):
        await remote.countersign(KEY, a_metadata(KEY.id, host=ISSUER), timeout=5)


async def test_the_next_node_is_asked_when_one_is_gone_and_stays_the_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(FakeNode(), FakeNode())
    await world.remote.open(timeout=5)
    assert world.remote.peer_id == world.peer_ids[0]
    world.network.down.add(world.peer_ids[0])
    assert await world.remote.neighbours(KEY.id, timeout=5) == [HOST.peer_id]
    assert world.remote.peer_id == world.peer_ids[1]
    world.network.down.clear()
    await world.remote.neighbours(KEY.id, timeout=5)
    assert len(world.nodes[0].asked) == 1


async def test_a_node_that_stalls_uses_up_half_of_the_time(autojump_clock: trio.testing.MockClock) -> None:
    world = World(FakeNode(), FakeNode())
    world.network.stalled.add(world.peer_ids[0])
    began = trio.current_time()
    assert await world.remote.neighbours(KEY.id, timeout=6) == [HOST.peer_id]
    assert trio.current_time() - began == pytest.approx(3)


async def test_without_any_node_it_is_said_why(autojump_clock: trio.testing.MockClock) -> None:
    world = World(FakeNode(), FakeNode())
    world.network.down.update(world.peer_ids)
    with pytest.raises(NodeUnavailable, match="unreachable"):
        await world.remote.status(timeout=5)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        (WRITE.name, None),
        (WRITE.name, build(CallBody(5.0, []))),
        (READ.name, build(CallBody(5.0, ["x" * 2000, 1]))),
        (READ.name, [float("nan"), [KEY.id, 1]]),
        (SERVICE.name, build(CallBody(5.0, build(ServiceRequest("f", (0,) * 17))))),
        (HOSTS.name, build(CallBody(5.0, [[HOST.peer_id, "0"], 60.0]))),
    ],
)
async def test_what_is_malformed_reaches_no_node(method: str, body: object) -> None:
    node = FakeNode()
    world = World(node)
    with pytest.raises(CallRefused) as refused:
        await world.client.call(world.peer_ids[0], method, body, timeout=5)
    assert refused.value.code == "invalid"
    assert node.asked == []


@pytest.mark.parametrize(("said", "meant"), [(-1.0, 0.0), (2, 2.0), (1e300, LONGEST_TIME)])
async def test_times_and_counts_out_of_range_count_as_the_nearest_within(said: float, meant: float) -> None:
    node = FakeNode()
    world = World(node)
    for count in (2**40, -(2**40)):
        await world.client.call(world.peer_ids[0], READ.name, [said, [KEY.id, count]], timeout=5)
    assert node.timeouts == [meant, meant]
    assert node.asked == [("read", KEY.id, count, False) for count in (LARGEST_COUNT, -LARGEST_COUNT)]


def test_no_two_operations_have_one_name() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


class BusyNode(FakeNode):
    """Has too much to do for its first calls."""

    def __init__(self, calls: int, retry_after: float) -> None:
        super().__init__()
        self._busy_for = calls
        self._retry_after = retry_after

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        if self._busy_for:
            self._busy_for -= 1
            raise NodeOverloaded("too many of everything", self._retry_after)
        return await super().neighbours(resource_id, timeout=timeout)


async def test_an_overloaded_node_is_asked_again_when_it_said(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    assert await World(BusyNode(2, 1.0)).remote.neighbours(KEY.id, timeout=6) == [HOST.peer_id]
    assert 2 <= trio.current_time() - began <= 3
    with pytest.raises(RegistryRefusal, match=r"overloaded: too many of everything; come back in 1\.0 s") as refusal:
        await World(BusyNode(9, 1.0)).remote.neighbours(KEY.id, timeout=3)
    assert refusal.value.code is Code.OVERLOADED


async def test_who_is_turned_away_by_all_nodes_is_told_of_overload(autojump_clock: trio.testing.MockClock) -> None:
    world = World(FakeNode(), FakeNode())
    turned_away = 0

    async def call(peer_id: str, method: str, body: object, *, timeout: float) -> object:
        nonlocal turned_away
        await trio.lowlevel.checkpoint()
        turned_away += 1
        raise Overloaded(peer_id, method, retry_after=0.5)

    served, world.peer.call = world.peer.call, call  # type: ignore[method-assign]
    with pytest.raises(NodeOverloaded, match=r"tcp/4000.*: overloaded; come back in 0\.5 s; .*tcp/4001"):
        await world.remote.status(timeout=2)
    assert 4 <= turned_away <= 8, "two nodes, every half second or more"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.remote.status, timeout=2))
        await trio.sleep(0.1)
        world.peer.call = served  # type: ignore[method-assign]
