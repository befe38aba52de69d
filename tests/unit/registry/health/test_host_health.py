"""A host's side on nodes: what it takes of providers, what it keeps on disk, and what it tells its presence."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from overlay.errors import CallRefused
from overlay.identity import Identity
from overlay.tasks import background
from registry.client.results import Done
from registry.codes import Code
from registry.errors import HostingRefused, RegistryError
from registry.health.exceptions import digest_of_entries, entries_in, exceptions_in
from registry.health.host_health import HostHealth
from registry.health.hosted import NOT_HEARD, RESTARTED
from registry.health.messages import EXCEPTIONS, REPORT_HEALTH, ExceptionsBody, ExceptionsPage, ReportBody
from registry.health.report import HealthReport, encode_report, signed_report
from registry.health.state import PASSING, Health, HealthState, HostedService
from registry.model.endpoints import Instance, write_instances
from registry.model.values import Record, Slot
from registry.protocol.messages import build, parse
from registry.settings import HealthLimits, NodeSettings, RegistrySettings
from registry.storage import open_store
from tests.simulation.nodes import SimulatedNode, simulated_nodes
from tests.simulation.simulated_network import SimulatedNetwork
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW, STRANGER, a_key, a_record, a_tombstone
from tests.unit.registry.health.builders import CRITICAL, PASSES, WARNING, FakePresence

KEY = a_key()
VALUE = write_instances([Instance(id="a"), Instance(id="b")])
RECORD, OWN_RECORD = a_record(KEY.id, value=VALUE), a_record(KEY.id, issuer=HOST, value=VALUE)
SLOT, OWN_SLOT = RECORD.slot, OWN_RECORD.slot


class TwoHosted:
    """HOST with its two records: its own, and one of ISSUER's."""

    def __init__(self, path: Path = Path(":memory:"), **limits: float) -> None:
        self.network = SimulatedNetwork()
        self.peer = self.network.add(HOST.peer_id)
        self.stranger = self.network.add(STRANGER.peer_id)
        self.presence = FakePresence()
        self.path = path
        self.ahead = 0.0
        self.settings = RegistrySettings(health=HealthLimits(**limits))  # type: ignore[arg-type]

    def time(self) -> float:
        return NOW + self.ahead + trio.current_time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HostHealth]:
        async with open_store(self.path, inline=True) as self.store, background() as nursery:
            await self.put(RECORD, OWN_RECORD)
            health = HostHealth(self.peer, self.store, self.settings, self.time, self.presence)
            await nursery.start(health.run)
            yield health

    async def put(self, *records: Record) -> None:
        def decide(transaction: Any) -> None:
            for record in records:
                transaction.put_state(record, 0, -1)

        await self.store.write(decide)

    async def ttls(self) -> dict[Any, float]:
        return await self.store.read(lambda transaction: transaction.health_ttls.of_hosted(HOST.peer_id, 100))

    def told(self) -> dict[HostedService, Health]:
        return dict(exceptions_in(HOST.peer_id, self.presence.told).services)

    def report(
        self,
        state: HealthState | None = CRITICAL,
        *,
        slot: Slot = SLOT,
        instance: str = "",
        ttl: float | None = None,
        by: Identity = ISSUER,
        later: float = 0.0,
    ) -> HealthReport:
        return signed_report(by, slot, instance, int((self.time() + later) * 1000), state, "no answer", ttl)


@pytest.fixture
def hosting() -> TwoHosted:
    return TwoHosted()


async def refused(health: HostHealth, report: HealthReport) -> Code:
    with pytest.raises(RegistryError) as raised:
        await health.take(report)
    return raised.value.code


async def test_what_the_issuer_signed_is_told_by_the_presence_at_once(
    autojump_clock: object, hosting: TwoHosted
) -> None:
    async with hosting.running() as health:
        await health.take(hosting.report())
        await trio.testing.wait_all_tasks_blocked()
        service = HostedService.of(SLOT)
        assert hosting.told() == {service: Health(CRITICAL, NOW, "no answer")}
        await health.take(hosting.report(PASSES, later=1))
        await trio.testing.wait_all_tasks_blocked()
        assert hosting.presence.told == b""


async def test_a_time_to_live_runs_out_without_a_call(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        await health.report(OWN_SLOT, ttl=10)
        assert health.health_of(OWN_SLOT).note == NOT_HEARD
        await health.report(OWN_SLOT, state=PASSES)
        await trio.sleep(9.9)
        assert health.health_of(OWN_SLOT).state is PASSES
        assert hosting.told() == {}
        await trio.sleep(0.2)
        assert hosting.told()[HostedService.of(OWN_SLOT)].state is CRITICAL


async def test_registering_what_nothing_was_said_of_is_no_change(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        changes: list[None] = []
        health.on_change(lambda: changes.append(None))
        await trio.testing.wait_all_tasks_blocked()
        await health.report(OWN_SLOT, ttl=0, is_registered=False)  # as each registration does
        await trio.testing.wait_all_tasks_blocked()
        assert changes == []
        await health.report(OWN_SLOT, state=CRITICAL)
        await health.report(OWN_SLOT, ttl=0, is_registered=False)
        await trio.testing.wait_all_tasks_blocked()
        assert changes
        assert health.health_of(OWN_SLOT) == PASSING


async def test_times_to_live_survive_a_restart_and_what_has_one_has_to_pass_again(
    autojump_clock: object, tmp_path: Path
) -> None:
    before, after = TwoHosted(tmp_path / "db"), TwoHosted(tmp_path / "db")
    async with before.running() as health:
        await health.report(OWN_SLOT, "a", state=PASSES, ttl=10)
        await health.take(before.report(PASSES, ttl=20))
        await health.report(OWN_SLOT, state=CRITICAL)
        assert before.told() == {}  # not before a turn of the loop
    async with after.running() as health:
        await trio.testing.wait_all_tasks_blocked()
        instance = HostedService.of(OWN_SLOT, "a")
        assert after.told() == {
            instance: Health(CRITICAL, NOW + int(trio.current_time()), RESTARTED),
            HostedService.of(SLOT): Health(CRITICAL, NOW + int(trio.current_time()), RESTARTED),
        }
        await health.report(OWN_SLOT, "a", state=PASSES)
        await health.take(after.report(PASSES))
        await trio.testing.wait_all_tasks_blocked()
        assert after.told() == {}
        await trio.sleep(15)
        assert set(after.told()) == {instance}


async def test_the_end_of_a_record_ends_its_health_here_and_on_disk(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        await health.take(hosting.report(ttl=20))
        await health.take(hosting.report(instance="a", ttl=20))
        await health.report(OWN_SLOT, ttl=30)
        assert len(await hosting.ttls()) == 3

        def decide(transaction: Any) -> None:
            transaction.put_state(a_tombstone(KEY.id, issued=NOW + 1), 0, -1)

        await hosting.store.write(decide)
        await trio.testing.wait_all_tasks_blocked()
        assert set(hosting.told()) == {HostedService.of(OWN_SLOT)}
        assert await hosting.ttls() == {tuple(HostedService.of(OWN_SLOT)): 30.0}
        assert await refused(health, hosting.report(later=1)) is Code.HOSTING_REFUSED


async def test_a_time_to_live_of_zero_ends_it(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        await health.report(OWN_SLOT, ttl=10)
        await health.report(OWN_SLOT, ttl=0)
        assert await hosting.ttls() == {}
        assert health.health_of(OWN_SLOT) == PASSING


async def test_only_the_issuer_of_a_record_that_is_here_is_heard(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        forged = msgspec.structs.replace(hosting.report(by=STRANGER), issued_by=ISSUER.peer_id)
        assert await refused(health, forged) is Code.INVALID
        assert await refused(health, hosting.report(by=STRANGER)) is Code.HOSTING_REFUSED
        elsewhere = SLOT._replace(peer_id=NODE.peer_id)
        assert await refused(health, hosting.report(slot=elsewhere)) is Code.HOSTING_REFUSED
        with pytest.raises(RegistryError):
            await health.report(OWN_SLOT._replace(key_id=a_key("other").id), state=CRITICAL)
        assert health.health_of(SLOT) == PASSING


async def test_a_report_counts_once_and_not_after_a_later_one(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        first, second = hosting.report(CRITICAL), hosting.report(PASSES, later=1)
        await health.take(first)
        await health.take(second)
        await health.take(second)  # its answer was lost
        assert await refused(health, first) is Code.NEWER_STATE_EXISTS
        assert health.health_of(SLOT).state is PASSES
        await health.take(hosting.report(CRITICAL, instance="a"))  # of another service


async def test_of_an_instance_that_the_record_does_not_name_nothing_is_taken(
    autojump_clock: object, hosting: TwoHosted
) -> None:
    async with hosting.running() as health:
        for state, ttl in ((CRITICAL, None), (PASSES, None), (PASSES, 20.0), (None, 0.0)):
            for said in (
                health.report(OWN_SLOT, "c", state, ttl=ttl),
                health.take(hosting.report(state, instance="c", ttl=ttl)),
            ):
                with pytest.raises(HostingRefused, match=r"names no instance 'c'; there are: a, b$") as raised:
                    await said
                assert raised.value.code is Code.INSTANCE_UNKNOWN
        await health.report(OWN_SLOT, "a", CRITICAL)

        await hosting.put(a_record(KEY.id, issuer=HOST, issued=NOW + 1, value="tcp://192.0.2.1:80"))
        with pytest.raises(HostingRefused, match="names no instances, and so none 'a': say it of the record"):
            await health.report(OWN_SLOT, "a", WARNING)
        await health.report(OWN_SLOT, "a", PASSES)  # ends what was said of it
        assert health.health_of(OWN_SLOT, "a") == PASSING


async def test_who_is_told_of_many_instances_is_told_of_some(autojump_clock: object, hosting: TwoHosted) -> None:
    many = write_instances([Instance(id=f"i{number}") for number in range(20)])
    async with hosting.running() as health:
        await hosting.put(a_record(KEY.id, issuer=HOST, issued=NOW + 1, value=many))
        with pytest.raises(HostingRefused, match=r"i7 and 12 more$"):
            await health.report(OWN_SLOT, "x", CRITICAL)


@pytest.mark.parametrize("off", [-31.0, 31.0])
async def test_what_was_signed_at_another_time_is_refused(
    autojump_clock: object, hosting: TwoHosted, off: float
) -> None:
    async with hosting.running() as health:
        assert await refused(health, hosting.report(later=off)) is Code.CLOCK


async def test_a_repeated_report_is_refused_however_long_the_host_waits(
    autojump_clock: object, hosting: TwoHosted
) -> None:
    async with hosting.running() as health:
        old, new = hosting.report(CRITICAL, later=29), hosting.report(PASSES, later=29.5)
        await health.take(old)
        await health.take(new)
        for _ in range(40):
            await trio.sleep(5)
            assert await refused(health, old) in (Code.NEWER_STATE_EXISTS, Code.CLOCK)


async def test_reports_are_bounded_in_rate_and_the_hosts_own_are_not(autojump_clock: object) -> None:
    hosting = TwoHosted(rate=1, burst=5)
    async with hosting.running() as health:
        for number in range(5):
            await health.take(hosting.report(later=number / 1000))
        assert await refused(health, hosting.report(later=1)) is Code.RATE_EXCEEDED
        for number in range(10):
            await health.report(OWN_SLOT, state=CRITICAL if number % 2 else WARNING)


async def test_reports_and_lists_go_over_the_network(autojump_clock: object, hosting: TwoHosted) -> None:
    async with hosting.running() as health:
        call = hosting.stranger.call
        report = build(ReportBody(encode_report(hosting.report(WARNING))))
        assert await call(HOST.peer_id, REPORT_HEALTH, report, timeout=1) == []
        named = [Instance(id=f"{number:02}") for number in range(60)]
        keys = [a_key(f"key {number}") for number in range(10)]
        records = [a_record(key.id, issuer=HOST, value=write_instances(named)) for key in keys]
        await hosting.put(*records)
        for record in records:
            for instance in named:
                await health.report(record.slot, instance.id, state=CRITICAL)
        await trio.sleep(10)
        told = exceptions_in(HOST.peer_id, hosting.presence.told)
        assert told.count == 601
        entries: list[bytes] = []
        after: HostedService | None = None
        while len(entries) < told.count:
            body = build(ExceptionsBody(None if after is None else tuple(after)))  # type: ignore[arg-type]
            page = parse(await call(HOST.peer_id, EXCEPTIONS, body, timeout=1), ExceptionsPage)
            assert page.digest == told.digest
            entries += page.entries
            after = entries_in(HOST.peer_id, page.entries)[-1][0]
        assert digest_of_entries(entries) == told.digest


@pytest.mark.parametrize(
    ("method", "body"),
    [(REPORT_HEALTH, []), (REPORT_HEALTH, [b"\xff"]), (EXCEPTIONS, 5), (EXCEPTIONS, [["a", "b"]])],
)
async def test_what_is_malformed_is_refused(
    autojump_clock: object, hosting: TwoHosted, method: str, body: object
) -> None:
    async with hosting.running():
        with pytest.raises(CallRefused) as refusal:
            await hosting.stranger.call(HOST.peer_id, method, body, timeout=1)
        assert refusal.value.code == Code.INVALID


# Through nodes

Nodes = tuple[list[SimulatedNode], str]


@asynccontextmanager
async def three_nodes(clock: Callable[[], float] = time.time) -> AsyncIterator[Nodes]:
    settings = NodeSettings(registry=RegistrySettings(neighbourhood_size=3))
    async with simulated_nodes(3, settings, clock) as (_, nodes):
        created = await nodes[0].registry.create_resource("web")
        assert created.resource_id, created
        yield nodes, created.resource_id


async def test_a_service_on_another_host_is_critical_until_its_issuer_says_that_it_passes(
    autojump_clock: object,
) -> None:
    async with three_nodes() as (nodes, resource_id):
        issuer, host = nodes[0].registry, nodes[1]
        slot = Slot(resource_id, nodes[0].peer_id, host.peer_id)
        done = await issuer.register_service(resource_id, "v", host.peer_id, None, ttl=5)
        assert done.success, done
        assert host.parts.health.health_of(slot).note == NOT_HEARD
        done = await issuer.report_health(resource_id, peer_id=host.peer_id)
        assert done == Done(True, ())
        assert host.parts.health.health_of(slot).state is PASSES
        await trio.sleep(6)
        assert host.parts.health.health_of(slot).state is CRITICAL
        assert (await issuer.report_health(resource_id, WARNING, "slow", peer_id=host.peer_id)).success
        assert host.parts.health.health_of(slot).note == "slow"


async def test_registering_anew_without_a_time_to_live_begins_anew_on_ones_own_peer(autojump_clock: object) -> None:
    async with three_nodes() as (nodes, resource_id):
        node = nodes[0]
        slot = Slot(resource_id, node.peer_id, node.peer_id)
        assert (await node.registry.register_service(resource_id, "v", node.peer_id, None, ttl=5)).success
        assert node.parts.health.health_of(slot).state is CRITICAL
        assert (await node.registry.register_service(resource_id, "w", node.peer_id, None)).success
        assert node.parts.health.health_of(slot) == PASSING


async def test_what_the_host_refuses_is_told_and_nothing_stays_registered(autojump_clock: object) -> None:
    async with three_nodes() as (nodes, resource_id):
        issuer, host = nodes[0].registry, nodes[1].peer_id
        done = await issuer.register_service(resource_id, "v", host, None, ttl=0.1)
        assert not done.success
        assert "time to live" in done.errors[0]
        await trio.sleep(60)
        assert (await issuer.resolve_resource(resource_id, 1)).records == ()


async def test_who_reports_of_what_is_not_registered_is_told(autojump_clock: object) -> None:
    async with three_nodes() as (nodes, resource_id):
        for host in (nodes[0].peer_id, nodes[1].peer_id):
            done = await nodes[0].registry.report_health(resource_id, peer_id=host)
            assert not done.success
            assert "nothing is registered here" in done.errors[0]
