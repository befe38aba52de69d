"""Which instances are told, and in which order."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from aqua_compat.dns.providers import ABSENT, Providers, providers_of
from aqua_compat.dns.zone import OfService
from overlay.identity import Identity
from registry.health.health_reader import UNTOLD, RecordHealth
from registry.health.state import Health, HealthState
from registry.model.endpoints import Instance
from registry.model.values import Slot

HOST = Identity.from_seed(bytes(32)).peer_id
SLOT = Slot("web", HOST, HOST)
ALL = OfService("web")
CRITICAL, WARNING = (RecordHealth(health=Health(state)) for state in (HealthState.CRITICAL, HealthState.WARNING))


def told(providers: Providers, asked: OfService = ALL, seed: int = 0) -> list[str]:
    return [each.instance.id for each in providers.chosen(asked, random.Random(seed))]


@pytest.mark.parametrize(
    ("health", "is_told"),
    [
        (UNTOLD, True),
        (WARNING, True),
        (CRITICAL, False),
        (RecordHealth(health=Health(HealthState.UNKNOWN)), False),
        (RecordHealth(is_up=False), False),
    ],
)
def test_a_record_is_told_while_it_is_up_and_passes_or_warns(health: RecordHealth, is_told: bool) -> None:
    providers = providers_of({SLOT: ([Instance(id="1", tags=("V2",))], health)})
    assert told(providers) == (["1"] if is_told else [])
    assert providers.has(OfService("web", "v2")), "the name is there, however its instances are"
    assert not providers.has(OfService("web", "v3"))


def test_an_instance_is_told_by_its_own_health() -> None:
    health = RecordHealth(instances={"1": Health(HealthState.CRITICAL), "2": Health(HealthState.WARNING)})
    assert told(providers_of({SLOT: ([Instance(id="1"), Instance(id="2")], health)})) == ["2"]


def test_tags_and_transports_choose() -> None:
    instances = [Instance(id="1", tags=("Blue",)), Instance(id="2", protocol="udp"), Instance(id="3", protocol="http")]
    providers = providers_of({SLOT: (instances, UNTOLD)})
    assert set(told(providers, OfService("web", "blue"))) == {"1"}
    assert set(told(providers, OfService("web", "", "_udp"))) == {"2"}
    assert set(told(providers, OfService("web", "", "_tcp"))) == {"1", "3"}


def test_what_has_no_weight_is_told_only_where_nothing_else_is() -> None:
    idle, busy = Instance(id="idle", weight=0), Instance(id="busy")
    assert told(providers_of({SLOT: ([idle, busy], UNTOLD)})) == ["busy"]
    assert told(providers_of({SLOT: ([idle], UNTOLD)})) == ["idle"]


def test_the_first_one_is_drawn_by_its_weight() -> None:
    providers = providers_of({SLOT: ([Instance(id="1", weight=1), Instance(id="3", weight=3)], UNTOLD)})
    first = Counter(told(providers, seed=seed)[0] for seed in range(2000))
    assert 0.7 < first["3"] / 2000 < 0.8


def test_nothing_is_there_of_what_does_not_exist() -> None:
    assert not ABSENT.has(ALL)
    assert providers_of({}).has(ALL)
