"""How commands show what is known of a service's health."""

from __future__ import annotations

import pytest

from aqua_compat.cli.output import describe_health, wrapped
from aqua_compat.schema.shapes import health_as_json
from registry.health.health_reader import RecordHealth
from registry.health.state import Health, HealthState


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        (RecordHealth(), "passing"),
        (RecordHealth(is_up=False), "down"),
        (RecordHealth(up_or_down_for=12.2), "passing, up for 12 s"),
        (RecordHealth(is_up=False, up_or_down_for=12.2), "down for 12 s"),
        (RecordHealth(False, 12.2, ("one",)), "down for 12 s, as one says"),
        (RecordHealth(False, 12.2, ("one", "two")), "down for 12 s, as one and two say"),
        (RecordHealth(False, 12.2, has_left=True), "down for 12 s, stopped by its own word"),
        (RecordHealth(False, 12.2, ("one",), has_left=True), "down for 12 s, stopped by its own word"),
        (
            RecordHealth(up_or_down_for=5.0, health=Health(HealthState.WARNING, 86_400, "slow")),
            "warning since 1970-01-02 00:00:00 UTC: slow, up for 5 s",
        ),
        (RecordHealth(health=Health(HealthState.UNKNOWN)), "unknown"),
        (
            RecordHealth(is_up=False, health=Health(HealthState.CRITICAL, 86_400, "no disk")),
            "down, critical since 1970-01-02 00:00:00 UTC: no disk",
        ),
    ],
)
def test_health_is_shown_on_one_line(known: RecordHealth, shown: str) -> None:
    assert describe_health(health_as_json(known)) == shown


def test_programs_get_all_of_it() -> None:
    assert health_as_json(RecordHealth())["up_or_down_for"] is None
    known = RecordHealth(False, 7.91, ("somebody",), Health(HealthState.WARNING, 5, "slow"))
    assert health_as_json(known) == {
        "up": False,
        "up_or_down_for": 7.9,
        "accusers": ["somebody"],
        "stopped": False,
        "state": "warning",
        "since": 5,
        "note": "slow",
    }
    assert health_as_json(RecordHealth(False, 7.91, has_left=True))["stopped"] is True


def test_what_a_node_of_a_release_before_tells_is_shown_without_what_it_does_not_tell() -> None:
    told = health_as_json(RecordHealth(False, 12.2, ("one",)))
    del told["stopped"]
    assert describe_health(told) == "down for 12 s, as one says"


def test_a_line_that_is_too_long_for_a_terminal_goes_on_indented_and_its_ids_stay_whole() -> None:
    host, first, second = (letter * 52 for letter in "hab")
    line = f"2026-11-27 13:25:38 UTC  down        host {host}  the host isn't there, as {first} and {second} say"
    assert wrapped(line, 80) == [
        "2026-11-27 13:25:38 UTC  down        host",
        f"    {host}  the host isn't there,",
        f"    as {first} and",
        f"    {second} say",
    ]
    assert wrapped(line, len(line)) == [line]
    assert wrapped("", 80) == [""]
