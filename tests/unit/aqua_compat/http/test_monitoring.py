"""What those who operate a node are told: figures, whether it is ready, and targets for Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from aqua_compat.dns.server import open_dns_server
from aqua_compat.http.metrics import MEDIA_TYPE, ROWS, Exposition, Figures
from aqua_compat.http.monitoring import READY_FOR, Monitoring
from aqua_compat.settings import DnsSettings, HttpSettings
from overlay.clock.comparison import ClockVerdict, Standing
from overlay.peer import OverlayStatistics
from overlay.pubsub.topics import TopicStatistics
from overlay.rpc.counters import MOST_CODES, OTHER_CODES, Counters
from overlay.rpc.network_upkeep import NetworkStatus
from overlay.rpc.product import PeerVersion
from registry.client.node_status import DiskStatus, NodeStatus
from registry.errors import StorageError
from registry.health.state import HealthState
from registry.model.endpoints import Instance, write_instances
from registry.model.names import Names
from registry.replication import ReplicationStatus
from registry.upkeep.schedule import ScheduleStatus
from tests.paths import ROOT
from tests.unit.aqua_compat.http.running import running_server

DASHBOARD, ALERTS = ROOT / "packaging/grafana/aqua-registry.json", ROOT / "packaging/prometheus/alerts.yaml"

OVERLAY = {name: 7 for name in OverlayStatistics.__struct_fields__ if name != "refusals"}
EVERYTHING = NodeStatus(
    peer_id="me",
    addresses=(),
    members=("a", "b"),
    keys=1,
    records=2,
    tombstones=3,
    uptime=4.5,
    ready=True,
    overlay=OverlayStatistics(**OVERLAY, refusals={"hosting": 2, "made up": 3, "made up, too": 4}),
    lacking={"disk-full": 5},
    replication=ReplicationStatus(settled=False, pending=6, compared=1, repaired=1, messages=1, bytes=1),
    schedules=(ScheduleStatus("renew", 60.0, 3, 1_700_000_000, 0.5, "nothing"),),
    topics=TopicStatistics(topics=1, published=2, forwarded=3, ignored=4, invalid=5, over_rate=6, banned=7),
    disk=DiskStatus(100, 1000, is_full=True),
    particles={"steps": 10, "step ms": 2.5, "longest step ms": 40.0, "actors": 2, "sent": 9, "dropped: too old": 4},
    clock=ClockVerdict(Standing.OFF, -30.0, 5),
    network=NetworkStatus(("root",), 1_800_000_000, 2, 3),
    versions={"me": PeerVersion("aqua-registry/1", "1.0"), "a": PeerVersion("aqua-registry/1", "1.0")},
)
NOT_TOLD = {"peer_id", "addresses"}
"""What `status` tells that is no figure."""


def figures_in(text: str) -> dict[str, float]:
    """The figures by name and labels, as Prometheus reads them."""
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def written(status: NodeStatus = EVERYTHING) -> str:
    return (
        Exposition().written(Figures(status, is_isolated=False, is_ready=True, hosts_followed=8, hosts_down=1)).decode()
    )


def test_figures_are_those_of_the_status() -> None:
    told = figures_in(written())
    assert told["aqua_uptime_seconds"] == 4.5
    assert told["aqua_members"] == 2
    assert told["aqua_members_of_other_products"] == 1
    assert told["aqua_build_info{product=aqua-registry/1}"] == 1
    assert told["aqua_replication_pending_comparisons"] == 6
    assert told["aqua_store_lacking_resources{code=disk-full}"] == 5
    assert told["aqua_store_full"] == 1
    assert told["aqua_calls_refused_total{code=hosting}"] == 2
    assert told["aqua_calls_refused_total{code=other}"] == 7, "what others made up is no label"
    assert told["aqua_schedule_duration_seconds{schedule=renew}"] == 0.5
    assert told["aqua_clock_standing{standing=off}"] == 1
    assert told["aqua_clock_standing{standing=unknown}"] == 0
    assert told["aqua_clock_ahead_seconds"] == -30
    assert told["aqua_particles_step_seconds_total"] == 0.025
    assert told["aqua_particles_dropped_total{reason=too old}"] == 4
    assert told["aqua_particles_events_total{event=sent}"] == 9
    assert told["aqua_particles_actors"] == 2
    assert (told["aqua_presence_followed_hosts"], told["aqua_presence_down_hosts"]) == (8, 1)
    assert told["process_resident_memory_bytes"] > 1e6


def test_all_that_the_status_tells_is_told() -> None:
    """A field that is added to `status` has a figure, or is named here as none."""

    class Noted:
        def __init__(self, value: Any, path: str) -> None:
            self.value, self.path = value, path

        def __getattr__(self, name: str) -> Any:
            read.add(f"{self.path}{name}")
            value = getattr(self.value, name)
            return Noted(value, f"{self.path}{name}.") if isinstance(value, msgspec.Struct) else value

    read: set[str] = set()
    figures = Figures(EVERYTHING, is_isolated=False, is_ready=True, hosts_followed=8, hosts_down=1)
    for row in ROWS:
        row.value(figures._replace(status=Noted(EVERYTHING, "")))  # type: ignore[arg-type]
    there = set(NodeStatus.__struct_fields__)
    for name, value in ((name, getattr(EVERYTHING, name)) for name in NodeStatus.__struct_fields__):
        if isinstance(value, msgspec.Struct):
            there |= {f"{name}.{field}" for field in value.__struct_fields__}
    not_told = {name for name in there - read if name not in NOT_TOLD}
    assert not_told == {"network.roots", "overlay.members", "overlay.refused"}, "told as others"


def test_names_and_units_are_as_prometheus_has_them() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert re.fullmatch(r"aqua_[a-z][a-z0-9_]*", row.name)
        assert row.about.endswith("."), row.name
        assert not re.search(r"_(ms|minutes|kb|mb|percent)(_|$)", row.name), row.name
        if "Bytes" in row.about.split(" ")[0]:
            assert row.name.removesuffix("_total").endswith("_bytes"), row.name


def test_a_node_that_lacks_something_leaves_it_out() -> None:
    told = figures_in(
        written(
            NodeStatus(peer_id="me", addresses=(), members=(), keys=0, records=0, tombstones=0, uptime=0, ready=False)
        )
    )
    assert not any("particles" in name or "clock" in name or "http" in name for name in told)


def test_codes_that_others_make_up_are_not_counted_for_ever() -> None:
    counters = Counters()
    for number in range(MOST_CODES + 10):
        counters.note_refusal(str(number))
        counters.note_refusal("0")
    assert len(counters.refusals) == MOST_CODES + 1
    assert counters.refusals["0"] == MOST_CODES + 11
    assert counters.refusals[OTHER_CODES] == 10
    assert counters.refused == sum(counters.refusals.values())


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression of Prometheus names."""
    return set(re.findall(r"\b((?:aqua|process|python)_[a-z0-9_]+)", expression))


def test_dashboard_and_alerts_name_what_there_is() -> None:
    dashboard, alerts = json.loads(DASHBOARD.read_text()), yaml.safe_load(ALERTS.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    asked += [rule["expr"] for rule in rules]
    named = {name for expression in asked for name in metrics_in(expression)}
    told = {sample.partition("{")[0] for sample in figures_in(written())}
    told |= {row.name for row in ROWS} | OF_SERVERS
    assert len(named) > 30
    assert named - told == set()
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


OF_SERVERS = {
    "aqua_dns_answers_total",
    "aqua_dns_dropped_total",
    "aqua_dns_queries_total",
    "aqua_http_connections",
    "aqua_http_connections_budget",
    "aqua_http_watches",
    "aqua_http_watches_budget",
}


async def test_a_node_tells_of_itself(tmp_path: Path) -> None:
    async with running_server(tmp_path / "node") as running:
        node = running.node
        metrics = await running.ask("GET", "/metrics")
        assert metrics.headers["content-type"] == MEDIA_TYPE
        told = figures_in(metrics.body.decode())
        assert {"aqua_http_connections", "aqua_http_watches_budget"} <= set(told)
        assert told["aqua_http_connections"] == 1
        async with open_dns_server(node, DnsSettings(listen="127.0.0.1:0")) as dns:
            there = {sample.name for family in dns.metrics() for sample in family.samples}
            assert {"aqua_dns_truncated_total", "aqua_dns_followed_resources"} <= there
            families = {family.name for family in dns.metrics()}
            assert {name.removesuffix("_total") for name in OF_SERVERS if "dns" in name} <= families

        instances = [
            Instance(id="1", address="192.0.2.1", port=80, tags=("v1",), metadata={"zone.a": "eu"}, protocol="http"),
            Instance(id="2", address="2001:db8::1", port=81),
            Instance(id="3", address="192.0.2.3"),
        ]
        created = await node.registry.create_resource("web")
        assert created.resource_id is not None
        value = write_instances(instances)
        assert (await node.registry.register_service(created.resource_id, value, node.peer.peer_id, None)).success
        [first, second] = (await running.ask("GET", "/v1/http_sd?resource=web@me")).json()
        assert (first["targets"], second["targets"]) == (["192.0.2.1:80"], ["[2001:db8::1]:81"])
        labels = {name.removeprefix("__meta_aqua_"): text for name, text in first["labels"].items()}
        assert labels["metadata_zone_a"] == "eu"
        assert (labels["tags"], labels["health"], labels["resource"]) == (",v1,", "passing", "web@me")
        assert labels["host"] == node.peer.peer_id
        done = await node.registry.report_health(created.resource_id, HealthState.CRITICAL, "", instance="1")
        assert done.success
        assert (await running.ask("GET", "/v1/http_sd?resource=web@me")).json() == [second]
        everything = (await running.ask("GET", "/v1/http_sd?resource=web@me&all=true")).json()
        assert [each["labels"]["__meta_aqua_health"] for each in everything] == ["critical", "passing"]
        assert (await running.ask("GET", "/v1/http_sd?resource=web@me&tag=v1&all=true")).json() == everything[:1]


class FakeNode:
    """A node with this status."""

    def __init__(self, status: NodeStatus, *, is_isolated: bool) -> None:
        self.peer = SimpleNamespace(is_isolated=lambda: is_isolated)
        self.told: NodeStatus | StorageError | None = status  # None: it doesn't answer
        self.asked = 0

    async def status(self) -> NodeStatus:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.told is None:
            await trio.sleep_forever()
        if isinstance(self.told, StorageError):
            raise self.told
        return self.told


READY = msgspec.structs.replace(EVERYTHING, clock=ClockVerdict(Standing.RIGHT, 0.1, 5))


@pytest.mark.parametrize(
    ("status", "is_isolated", "why"),
    [
        (READY, False, []),
        (msgspec.structs.replace(READY, clock=ClockVerdict(Standing.UNCHECKED)), False, []),  # alone in its network
        (msgspec.structs.replace(READY, clock=None), False, []),
        (msgspec.structs.replace(READY, ready=False), False, ["not joined"]),
        (READY, True, ["isolated"]),
        (msgspec.structs.replace(READY, caught_up=False), False, ["catching up"]),
        (EVERYTHING, False, ["clock"]),
        (msgspec.structs.replace(EVERYTHING, caught_up=False), True, ["isolated", "catching up", "clock"]),
    ],
)
async def test_a_node_is_ready_once_nothing_speaks_against_it(
    status: NodeStatus, is_isolated: bool, why: list[str]
) -> None:
    node = cast("Any", FakeNode(status, is_isolated=is_isolated))
    answer = await Monitoring(node, Names, Exposition()).ready()
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"ready": not why, "not_ready": why}
    assert answer.status == (503 if why else 200)


async def test_whoever_asks_whether_a_node_is_ready_has_it_look_once_a_second_at_most(
    autojump_clock: MockClock,
) -> None:
    node = FakeNode(READY, is_isolated=False)
    monitoring = Monitoring(cast("Any", node), Names, Exposition())
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(monitoring.ready)
    assert node.asked == 1
    node.told = msgspec.structs.replace(READY, ready=False)
    await trio.sleep(READY_FOR - 0.01)
    assert (await monitoring.ready()).status == 200
    await trio.sleep(0.02)
    assert (await monitoring.ready()).status == 503
    assert node.asked == 2


async def test_who_cannot_learn_whether_a_node_is_ready_keeps_nobody_from_learning_it(
    autojump_clock: MockClock,
) -> None:
    node = FakeNode(READY, is_isolated=False)
    monitoring = Monitoring(cast("Any", node), Names, Exposition())
    node.told = None
    with trio.move_on_after(5):
        await monitoring.ready()
    node.told = StorageError("the disk is broken")
    with pytest.raises(StorageError):
        await monitoring.ready()
    node.told = READY
    assert (await monitoring.ready()).status == 200


@pytest.mark.parametrize(
    "bootstrap", [("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWSHPwtqN9yDxuRv3xxYxcK3sUtkLgSHRP4nNVhNyNDNMT",)]
)
async def test_a_node_that_found_nobody_lives_and_is_not_ready(tmp_path: Path, bootstrap: tuple[str, ...]) -> None:
    async with running_server(tmp_path / "node", HttpSettings(listen="127.0.0.1:0"), bootstrap=bootstrap) as running:
        assert (await running.ask("GET", "/healthz")).status == 200
        with trio.fail_after(5):
            answer = await running.ask("GET", "/readyz")
        assert answer.status == 503
        assert answer.json()["ready"] is False
        assert "isolated" in answer.json()["not_ready"]
        told = figures_in((await running.ask("GET", "/metrics")).body.decode())
        assert (told["aqua_ready"], told["aqua_isolated"]) == (0, 1)
