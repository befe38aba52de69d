"""What a host decides about its services: against a model that looks at everything each time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from registry.codes import Code
from registry.errors import HostingRefused, InvalidValue
from registry.health.exceptions import MOST_LISTED, exceptions_in
from registry.health.hosted import NOTE_PAUSE, TOLD_BURST, TOLD_RATE, HostedHealth
from registry.health.state import Health, HealthState, HostedService
from registry.settings import HealthLimits
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW, STRANGER
from tests.unit.registry.health.builders import CRITICAL, GUEST, PASSES, WARNING, a_service, at

OWN = a_service()


def a_host(exempt: tuple[str, ...] = (), **limits: float) -> HostedHealth:
    return HostedHealth(HOST.peer_id, HealthLimits(**limits), exempt)  # type: ignore[arg-type]


def state(host: HostedHealth, service: HostedService = OWN) -> HealthState:
    return host.health_of(service).state


def told(host: HostedHealth, seconds: float) -> dict[HostedService, Health] | None:
    encoded = host.to_tell(at(seconds))
    return None if encoded is None else dict(exceptions_in(HOST.peer_id, encoded).services)


def test_a_service_passes_until_somebody_says_otherwise_and_costs_nothing() -> None:
    host = a_host()
    for number in range(1000):
        host.pass_check(a_service(number), at(0))
    assert len(host) == 0
    assert host.to_tell(at(0)) is None
    assert host.wake_at == math.inf


def test_a_state_without_a_time_to_live_lasts_until_another_one_is_said() -> None:
    host = a_host()
    host.set(OWN, CRITICAL, "no answer", at(5))
    host.wake(at(1e6))
    assert host.health_of(OWN) == Health(CRITICAL, NOW + 5, "no answer")
    host.pass_check(OWN, at(1e6))
    assert state(host) is PASSES
    assert len(host) == 0


def test_a_service_with_a_time_to_live_passes_only_while_its_provider_said_so_lately() -> None:
    host = a_host()
    host.set_ttl(OWN, 10, at(0))
    assert state(host) is CRITICAL  # nobody said anything yet
    assert set(told(host, 0) or ()) == {OWN}
    host.pass_check(OWN, at(1))
    assert state(host) is PASSES
    assert told(host, 1) == {}
    host.pass_check(OWN, at(9))
    host.wake(at(18.9))
    assert state(host) is PASSES
    host.wake(at(19))
    assert host.health_of(OWN) == Health(CRITICAL, NOW + 19, "its provider hasn't said for 10 s that it passes")


def test_it_wakes_in_time_and_not_for_each_beat() -> None:
    host = a_host()
    host.set_ttl(OWN, 10, at(0))
    host.to_tell(at(0))
    host.pass_check(OWN, at(0))
    host.to_tell(at(0))
    for second in range(1, 10):
        host.pass_check(OWN, at(second))
        assert host.wake_at == 10
    host.wake(at(10))
    assert host.wake_at == 19


def test_a_warning_counts_as_word_of_the_provider_for_as_long() -> None:
    host = a_host()
    host.set_ttl(OWN, 10, at(0))
    host.set(OWN, WARNING, "slow", at(1))
    host.wake(at(10.9))
    assert host.health_of(OWN) == Health(WARNING, NOW + 1, "slow")
    host.wake(at(11))
    assert state(host) is CRITICAL


def test_after_a_restart_what_has_a_time_to_live_is_critical_until_it_passes_again() -> None:
    host = a_host()
    host.restore({OWN: 10.0, GUEST: 20.0}, at(0))
    assert told(host, 0) == {
        service: Health(CRITICAL, NOW, "its provider hasn't said that it passes since its host was started")
        for service in (OWN, GUEST)
    }
    host.pass_check(OWN, at(1))
    assert (state(host), state(host, GUEST)) == (PASSES, CRITICAL)
    assert host.ttl_of(GUEST) == 20


def test_a_shorter_time_to_live_counts_at_once_and_a_longer_one_from_the_next_word_on() -> None:
    host = a_host()
    host.set_ttl(OWN, 10, at(0))
    host.pass_check(OWN, at(0))
    host.set_ttl(OWN, 2, at(1))
    host.wake(at(3))
    assert state(host) is CRITICAL
    host.pass_check(OWN, at(4))
    host.set_ttl(OWN, 50, at(4))
    host.wake(at(6))
    assert state(host) is CRITICAL


def test_without_a_time_to_live_any_more_what_was_said_is_gone() -> None:
    host = a_host()
    host.set_ttl(OWN, 10, at(0))
    host.to_tell(at(0))
    host.set_ttl(OWN, 0, at(1))
    assert told(host, 1) == {}
    assert (len(host), host.ttl_of(OWN)) == (0, math.inf)


def test_the_end_of_a_record_ends_all_that_was_said_of_it_and_its_instances() -> None:
    host = a_host()
    instance, other = OWN._replace(instance="a"), a_service(1)
    for service in (OWN, instance, other, GUEST):
        host.set(service, CRITICAL, "", at(0))
    assert set(host.forget_slot(OWN.key_id, OWN.issued_by, at(0))) == {OWN, instance}
    assert host.forget_slot(OWN.key_id, OWN.issued_by, at(0)) == []
    assert told(host, 0) is not None
    assert (len(host), state(host), state(host, GUEST)) == (2, PASSES, CRITICAL)


@pytest.mark.parametrize("ttl", [0.9, 86_401, -1, math.nan, math.inf])
def test_a_time_to_live_is_within_bounds(ttl: float) -> None:
    host = a_host()
    with pytest.raises(InvalidValue):
        host.set_ttl(OWN, ttl, at(0))
    assert len(host) == 0


def test_nobody_can_say_that_it_is_unknown() -> None:
    with pytest.raises(InvalidValue):
        a_host().set(OWN, HealthState.UNKNOWN, "", at(0))


# What is told, and when


def test_changes_are_told_at_once_then_at_a_pace_and_none_is_lost() -> None:
    host, sent = a_host(), []
    for step in range(200):  # flapping for 2 seconds
        host.set(OWN, CRITICAL if step % 2 else PASSES, "", at(step / 100))
        if host.to_tell(at(step / 100)) is not None:
            sent.append(step / 100)
    assert len(sent) <= TOLD_BURST + 2 * TOLD_RATE
    assert sent[0] == 0.01
    assert host.wake_at <= 2 + 1 / TOLD_RATE
    last = told(host, host.wake_at)
    assert last is not None
    assert set(last) == {OWN}


def test_a_new_note_of_the_same_state_waits_for_a_change_or_its_time() -> None:
    host = a_host()
    host.set(OWN, WARNING, "12 ms", at(0))
    assert told(host, 0) == {OWN: Health(WARNING, NOW, "12 ms")}
    host.set(OWN, WARNING, "13 ms", at(1))
    assert told(host, 1) is None
    assert host.wake_at == 1 + NOTE_PAUSE
    host.set(GUEST, CRITICAL, "", at(2))
    assert told(host, 2) == {OWN: Health(WARNING, NOW, "13 ms"), GUEST: Health(CRITICAL, NOW + 2, "")}
    host.set(OWN, WARNING, "14 ms", at(3))
    assert told(host, host.wake_at) is not None


def test_what_is_as_it_was_told_is_not_told_again() -> None:
    host = a_host()
    host.set(OWN, CRITICAL, "", at(0))
    assert told(host, 0) is not None
    host.pass_check(OWN, at(0))
    host.set(OWN, CRITICAL, "", at(0))
    assert told(host, 0) is None
    assert host.wake_at == math.inf


# Quotas


def refusal(host: HostedHealth, service: HostedService) -> Code:
    with pytest.raises(HostingRefused) as raised:
        host.set(service, CRITICAL, "", at(0))
    return raised.value.code


def test_quotas_bind_strangers_one_by_one_and_together_and_not_who_is_exempt() -> None:
    host = a_host(max_services=5, max_services_per_issuer=3, exempt=(NODE.peer_id,))
    for number in range(3):
        host.set(a_service(number, ISSUER.peer_id), CRITICAL, "", at(0))
    assert refusal(host, a_service(3, ISSUER.peer_id)) is Code.QUOTA_EXCEEDED
    host.set(a_service(2, ISSUER.peer_id), WARNING, "", at(0))  # it is there already
    for number in range(2):
        host.set(a_service(number, STRANGER.peer_id), CRITICAL, "", at(0))
    assert refusal(host, a_service(2, STRANGER.peer_id)) is Code.QUOTA_EXCEEDED
    for number in range(10):
        host.set(a_service(number), CRITICAL, "", at(0))
        host.set(a_service(number, NODE.peer_id), CRITICAL, "", at(0))
    host.pass_check(a_service(0, ISSUER.peer_id), at(0))
    host.set(a_service(2, STRANGER.peer_id), CRITICAL, "", at(0))


def test_there_are_never_more_than_a_reader_takes() -> None:
    host = a_host()
    for number in range(MOST_LISTED):
        host.set(OWN._replace(instance=str(number)), CRITICAL, "", at(0))
    assert refusal(host, OWN) is Code.QUOTA_EXCEEDED
    encoded = host.to_tell(at(0))
    assert encoded is not None
    assert exceptions_in(HOST.peer_id, encoded).count == MOST_LISTED


@settings(max_examples=20)
@given(st.integers(100, 1000))
def test_coming_and_going_does_not_make_it_wake_more_often(times: int) -> None:
    host = a_host()
    for _ in range(times):
        host.set_ttl(OWN, 100, at(0))
        host.pass_check(OWN, at(0))
        host.forget(OWN, at(0))
    wakings, seconds = 0, 0.0
    while host.wake_at < math.inf:
        seconds = host.wake_at
        host.wake(at(seconds))
        host.to_tell(at(seconds))
        wakings += 1
    assert wakings <= 5


SERVICES = [OWN, OWN._replace(instance="a"), a_service(1), GUEST, GUEST._replace(instance="a")]


class Oracle(RuleBasedStateMachine):
    """The same by the rules alone: what was said last of each service, when, and with which time to live."""

    def __init__(self) -> None:
        super().__init__()
        self.host = a_host()
        self.now = 0.0
        self.ttls: dict[HostedService, float] = {}
        self.said: dict[HostedService, HealthState] = {}
        self.until: dict[HostedService, float] = {}  # when what was said counts no more
        self.presence = b""

    def act(self) -> None:
        self.host.wake(at(self.now))
        encoded = self.host.to_tell(at(self.now))
        self.presence = self.presence if encoded is None else encoded

    @rule(service=st.sampled_from(SERVICES), ttl=st.sampled_from([1, 3, 10]))
    def set_ttl(self, service: HostedService, ttl: float) -> None:
        if service not in self.ttls:
            self.said.pop(service, None)
        elif self.now < self.until.get(service, 0.0):
            self.until[service] = min(self.until[service], self.now + ttl)
        self.host.set_ttl(service, ttl, at(self.now))
        self.ttls[service] = ttl
        self.act()

    @rule(service=st.sampled_from(SERVICES), said=st.sampled_from([PASSES, WARNING, CRITICAL]))
    def say(self, service: HostedService, said: HealthState) -> None:
        self.host.set(service, said, "", at(self.now))
        self.said[service] = said
        if service in self.ttls:
            self.until[service] = self.now + self.ttls[service]
        self.act()

    @rule(service=st.sampled_from(SERVICES))
    def end(self, service: HostedService) -> None:
        self.host.forget_slot(service.key_id, service.issued_by, at(self.now))
        for each in [each for each in SERVICES if each[:2] == service[:2]]:
            self.ttls.pop(each, None)
            self.said.pop(each, None)
            self.until.pop(each, None)
        self.act()

    @rule(seconds=st.sampled_from([0.5, 1, 5]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.host.wake_at <= until:
            self.now = max(self.now, self.host.wake_at)
            self.act()
        self.now = until

    def expected(self, service: HostedService) -> HealthState:
        if service in self.ttls and self.now >= self.until.get(service, 0.0):
            return CRITICAL
        return self.said.get(service, PASSES)

    @invariant()
    def knows_the_states(self) -> None:
        self.host.wake(at(self.now))
        assert {service: state(self.host, service) for service in SERVICES} == {
            service: self.expected(service) for service in SERVICES
        }

    @invariant()
    def has_told_them_unless_it_will_soon(self) -> None:
        told = exceptions_in(HOST.peer_id, self.presence).services
        listed = {service: health.state for service, health in told.items()}
        if listed != {each: self.expected(each) for each in SERVICES if self.expected(each) is not PASSES}:
            assert self.host.wake_at <= self.now + 1 / TOLD_RATE + 0.1


TestOracle = Oracle.TestCase
TestOracle.settings = settings(max_examples=50, stateful_step_count=25)
