"""A node's figures for Prometheus: all that `status` tells, in one table, by prometheus_client.

Rules:
1. Names begin with `aqua_`, end with the unit, which is a base unit (seconds, bytes), and counts with `_total`:
   https://prometheus.io/docs/practices/naming/.
2. A label has few values, all of them the node's own words: no peer id, no resource, nothing that others can make up.
3. Figures are taken when somebody asks; nothing is counted for their sake that the node doesn't count anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from overlay.clock.comparison import Standing
from registry.client.node_status import NodeStatus
from registry.codes import Code

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"

Value = float | Mapping[str, float] | None
"""A figure, or one for each value of a label; None where there is none."""
MoreMetrics = Callable[[], Iterable[Metric]]
"""The figures of another server of this node, such as DNS."""


class Figures(NamedTuple):
    """What is told of."""

    status: NodeStatus
    is_isolated: bool
    is_ready: bool
    hosts_followed: int
    hosts_down: int


class _Row(NamedTuple):
    name: str
    about: str
    value: Callable[[Figures], Value]
    label: str = ""

    @property
    def is_count(self) -> bool:
        return self.name.endswith("_total")

    def metric(self, figures: Figures) -> Metric | None:
        """The figure for Prometheus."""
        value = self.value(figures)
        if value is None:
            return None
        family = CounterMetricFamily if self.is_count else GaugeMetricFamily
        made = family(self.name, self.about, labels=[self.label] if self.label else [])
        for each, number in value.items() if isinstance(value, Mapping) else [("", value)]:
            made.add_metric([each] if self.label else [], float(number))
        return made


_GAUGES: Final = {
    "actors": ("aqua_particles_actors", "Particles of which the node keeps a state."),
    "calls": ("aqua_particles_calls", "Calls of scripts that are under way."),
    "bytes": ("aqua_particles_held_bytes", "Bytes that particles take."),
    "receiving bytes": ("aqua_particles_receiving_bytes", "Bytes of particles that haven't arrived whole."),
    "sending": ("aqua_particles_sending", "Particles that wait for being sent."),
    "waiting_steps": ("aqua_particles_waiting_steps", "Steps that wait for an interpreter."),
}
_DROPPED: Final = "dropped: "
_STEPS: Final = ("steps", "step ms", "longest step ms")


def _overlay(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.overlay is None else getattr(figures.status.overlay, name)


def _replication(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.replication is None else getattr(figures.status.replication, name)


def _topics(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.topics is None else getattr(figures.status.topics, name)


def _disk(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.disk is None else getattr(figures.status.disk, name)


def _network(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.network is None else getattr(figures.status.network, name)


def _schedules(name: str) -> Callable[[Figures], Value]:
    return lambda figures: {each.name: getattr(each, name) for each in figures.status.schedules}


def _particles(name: str) -> Callable[[Figures], Value]:
    return lambda figures: None if figures.status.particles is None else figures.status.particles.get(name, 0)


def _step_seconds(figures: Figures) -> Value:
    particles = figures.status.particles
    return None if particles is None else particles["steps"] * particles["step ms"] / 1000


def _longest_step(figures: Figures) -> Value:
    particles = figures.status.particles
    return None if particles is None else particles["longest step ms"] / 1000


def _dropped(figures: Figures) -> Value:
    particles = figures.status.particles
    if particles is None:
        return None
    return {name.removeprefix(_DROPPED): count for name, count in particles.items() if name.startswith(_DROPPED)}


def _events(figures: Figures) -> Value:
    if figures.status.particles is None:
        return None
    return {
        name: count
        for name, count in figures.status.particles.items()
        if not name.startswith(_DROPPED) and name not in _GAUGES and name not in _STEPS
    }


def _refusals(figures: Figures) -> Value:
    """By the registry's codes; what others made up is `other`."""
    if figures.status.overlay is None:
        return None
    counted: dict[str, int] = {}
    for code, count in figures.status.overlay.refusals.items():
        known = code if code in set(Code) else OTHER
        counted[known] = counted.get(known, 0) + count
    return counted


def _clock(figures: Figures) -> Value:
    clock = figures.status.clock
    return None if clock is None else {each.value: float(clock.standing is each) for each in Standing}


def _clock_ahead(figures: Figures) -> Value:
    return None if figures.status.clock is None else figures.status.clock.ahead


def _clock_opinions(figures: Figures) -> Value:
    return None if figures.status.clock is None else figures.status.clock.opinions


def _product(figures: Figures) -> Value:
    own = figures.status.versions.get(figures.status.peer_id)
    return None if own is None else {own.product: 1.0}


def _of_other_products(figures: Figures) -> Value:
    versions = figures.status.versions
    own = versions.get(figures.status.peer_id)
    if own is None:
        return None
    told = [versions[each].product for each in figures.status.members if each in versions]
    return len(figures.status.members) - told.count(own.product)


ROWS: Final = (
    _Row("aqua_build_info", "What the node runs; always 1.", _product, "product"),
    _Row("aqua_uptime_seconds", "Since the node's start.", lambda each: each.status.uptime),
    _Row("aqua_ready", "Whether the node is a member, has caught up, and its clock is right.",
         lambda each: each.is_ready),
    _Row("aqua_joined", "Whether the node has joined and takes writes.", lambda each: each.status.ready),
    _Row("aqua_isolated", "Whether the node was told of others, and is linked to none.",
         lambda each: each.is_isolated),
    _Row("aqua_caught_up", "Whether the node's answers count yet.", lambda each: each.status.caught_up),
    _Row("aqua_store_keys", "Resources that the node keeps.", lambda each: each.status.keys),
    _Row("aqua_store_records", "Records that the node keeps.", lambda each: each.status.records),
    _Row("aqua_store_tombstones", "Tombstones that the node keeps.", lambda each: each.status.tombstones),
    _Row("aqua_store_used_bytes", "Bytes of the node's database.", _disk("used")),
    _Row("aqua_store_budget_bytes", "Bytes that the node's database may have.", _disk("budget")),
    _Row("aqua_store_full", "Whether there is no room for what comes.", _disk("is_full")),
    _Row("aqua_store_refused_total", "What was refused for want of room.", _disk("refused")),
    _Row("aqua_store_gave_way_total", "What gave way for want of room.", _disk("gave_way")),
    _Row("aqua_store_damaged_rows_total", "Rows that weren't what had been stored, and were dropped.",
         _disk("damaged")),
    _Row("aqua_store_lacking_resources", "Resources of which the node lacks something that others may have.",
         lambda each: each.status.lacking, "code"),
    _Row("aqua_replication_settled", "Whether no comparison is due.", _replication("settled")),
    _Row("aqua_replication_pending_comparisons", "Comparisons with peers that are due: how far replication lags.",
         _replication("pending")),
    _Row("aqua_replication_refused", "What others refused to take lately.", _replication("refused")),
    _Row("aqua_replication_comparisons_total", "Comparisons with peers.", _replication("compared")),
    _Row("aqua_replication_repairs_total", "States that were brought to a peer, or from it.",
         _replication("repaired")),
    _Row("aqua_replication_messages_total", "Messages of comparisons.", _replication("messages")),
    _Row("aqua_replication_bytes_total", "Bytes of comparisons, about.", _replication("bytes")),
    _Row("aqua_members", "Members that the node is linked to.", lambda each: len(each.status.members)),
    _Row("aqua_members_of_other_products", "Of those, the ones that run another release, or don't say which.",
         _of_other_products),
    _Row("aqua_members_that_dialled", "Of those, the ones that have dialled the node since its start.",
         _overlay("dialled_by")),
    _Row("aqua_links", "Open links, to members and light clients.", _overlay("links")),
    _Row("aqua_connections", "Open connections, with or without a link.", _overlay("connections")),
    _Row("aqua_routing_table_peers", "Peers in the Kad table.", _overlay("routing_table")),
    _Row("aqua_links_closed_total", "Links that neither side kept.", _overlay("closed")),
    _Row("aqua_links_turned_away_total", "Links refused because all places were taken.", _overlay("turned_away")),
    _Row("aqua_links_stalled_total", "Links ended because the peer took or said nothing.", _overlay("stalled")),
    _Row("aqua_links_malformed_total", "Links ended, and bodies refused, because the peer broke the protocol.",
         _overlay("malformed")),
    _Row("aqua_dial_failures_total", "Attempts to connect that failed.", _overlay("dial_failures")),
    _Row("aqua_lookups_total", "Lookups of members for which others were asked.", _overlay("lookups")),
    _Row("aqua_lookups_cut_short_total", "Of those, the ones that a deadline ended.", _overlay("lookups_cut_short")),
    _Row("aqua_calls_made_total", "Calls of other peers.", _overlay("calls_made")),
    _Row("aqua_calls_failed_total", "Calls of other peers that ended with an error.", _overlay("calls_failed")),
    _Row("aqua_calls_served_total", "Calls of this peer that were answered.", _overlay("calls_served")),
    _Row("aqua_calls_overloaded_total", "Calls turned away because their sender had too many.",
         _overlay("overloaded")),
    _Row("aqua_calls_internal_errors_total", "Calls that failed for a fault of this node's.",
         _overlay("internal_errors")),
    _Row("aqua_calls_refused_total", "Calls that were refused, by the code of the refusal.", _refusals, "code"),
    _Row("aqua_received_bytes_total", "Bytes that came over links.", _overlay("bytes_received")),
    _Row("aqua_sent_bytes_total", "Bytes that went over links.", _overlay("bytes_sent")),
    _Row("aqua_loop_lag_max_seconds", "By which the loop was late at worst, in the last minute.",
         _overlay("loop_lag_max")),
    _Row("aqua_loop_lag_p99_seconds", "That 99 of 100 turns weren't later than, in the last minute.",
         _overlay("loop_lag_p99")),
    _Row("aqua_topics", "Topics that the node is in.", _topics("topics")),
    _Row("aqua_announcements_published_total", "Announcements of the node's own.", _topics("published")),
    _Row("aqua_announcements_forwarded_total", "Announcements of others that were news.", _topics("forwarded")),
    _Row("aqua_announcements_ignored_total", "Announcements that were no news.", _topics("ignored")),
    _Row("aqua_announcements_invalid_total", "Announcements that can't be true.", _topics("invalid")),
    _Row("aqua_announcements_over_rate_total", "Announcements dropped unread: their sender sent too many.",
         _topics("over_rate")),
    _Row("aqua_announcements_bans_total", "Times that a peer was banned.", _topics("banned")),
    _Row("aqua_subscriptions", "Pairs of a watcher and a resource that the node announces to.",
         lambda each: each.status.subscriptions),
    _Row("aqua_watched_resources", "Resources that the node watches, for itself or its clients.",
         lambda each: each.status.watched),
    _Row("aqua_watch_sources", "Subscriptions that other nodes hold for these.",
         lambda each: sum(each.status.sources.values())),
    _Row("aqua_presence_followed_hosts", "Hosts whose presence the node follows, since somebody reads of them.",
         lambda each: each.hosts_followed),
    _Row("aqua_presence_down_hosts", "Of those, the ones that are down.", lambda each: each.hosts_down),
    _Row("aqua_schedule_runs_total", "Runs of a schedule.", _schedules("runs"), "schedule"),
    _Row("aqua_schedule_period_seconds", "Between two runs of a schedule.", _schedules("period"), "schedule"),
    _Row("aqua_schedule_last_run_timestamp_seconds", "When a schedule last ran; 0 for never.",
         _schedules("last_run"), "schedule"),
    _Row("aqua_schedule_duration_seconds", "That the last run of a schedule took.", _schedules("duration"),
         "schedule"),
    _Row("aqua_clock_standing", "What is known of this machine's clock: 1 for what is so.", _clock, "standing"),
    _Row("aqua_clock_ahead_seconds", "By which this machine's clock is ahead of the peers'.", _clock_ahead),
    _Row("aqua_clock_opinions", "Peers that have an opinion of this machine's clock.", _clock_opinions),
    _Row("aqua_network_certificate_ends_timestamp_seconds", "When the node's certificate of a private network ends.",
         _network("ends_at")),
    _Row("aqua_network_revocations", "Entries of the list of revocations.", _network("revoked")),
    _Row("aqua_network_refused_total", "Times that a peer wasn't let in, or was put out.", _network("refused")),
    _Row("aqua_particles_steps_total", "Steps of Aqua's interpreter.", _particles("steps")),
    _Row("aqua_particles_step_seconds_total", "That steps of Aqua's interpreter took.", _step_seconds),
    _Row("aqua_particles_step_longest_seconds", "That the longest of them took.", _longest_step),
    *(_Row(name, about, _particles(of)) for of, (name, about) in _GAUGES.items()),
    _Row("aqua_particles_dropped_total", "Particles that were dropped, by the reason.", _dropped, "reason"),
    _Row("aqua_particles_events_total", "What else was done and refused for particles.", _events, "event"),
)  # fmt: skip
"""Every figure of the node's own."""


def gauge(name: str, about: str, value: float) -> Metric:
    """A figure that goes up and down."""
    return GaugeMetricFamily(name, about, value)


def counter(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    """Counts by the values of a label. `name` ends with `_total`."""
    made = CounterMetricFamily(name, about, labels=[label])
    for each, count in values.items():
        made.add_metric([each], count)
    return made


class Exposition(Collector):
    """Writes figures as Prometheus reads them, those of the process and of the node's other servers among them."""

    def __init__(self, more: Sequence[MoreMetrics] = ()) -> None:
        self._more = more
        self._figures: Figures | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def written(self, figures: Figures) -> bytes:
        """The text."""
        self._figures = figures
        try:
            return generate_latest(self._registry)
        finally:
            self._figures = None

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for."""
        if self._figures is None:  # when this was registered
            return
        for row in ROWS:
            metric = row.metric(self._figures)
            if metric is not None:
                yield metric
        for more in self._more:
            yield from more()
