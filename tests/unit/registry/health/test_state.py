"""States and notes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.health.state import MAX_NOTE, Health, HealthState, HostedService, cut, worst
from registry.model.fields import U63_MAX
from tests.unit.registry.builders import a_record
from tests.unit.registry.health.builders import CRITICAL, PASSES, WARNING, a_service


@given(st.text())
def test_a_note_fits_and_can_be_printed(note: str) -> None:
    kept = cut(note)
    assert len(kept.encode()) <= MAX_NOTE
    assert kept.isprintable()
    assert cut(kept) == kept


@given(st.text(alphabet="aé€😀", min_size=1, max_size=300))
def test_a_note_is_cut_between_characters_and_no_earlier(note: str) -> None:
    kept = cut(note)
    assert note.startswith(kept)
    if kept != note:
        assert len((kept + note[len(kept)]).encode()) > MAX_NOTE


def test_what_a_terminal_would_obey_becomes_blanks() -> None:
    assert cut("up\x1b[2Jdown\nright\u202eleft\ud800") == "up [2Jdown right left "


def test_health_is_within_bounds_whoever_made_it() -> None:
    health = Health(CRITICAL, -5, "x" * 999)
    assert (health.since, len(health.note)) == (0, MAX_NOTE)
    assert Health(CRITICAL, 2**64).since == U63_MAX


@pytest.mark.parametrize("number", [-1, 2, 4, 2**63])
def test_a_state_of_a_later_version_is_unknown_and_not_usable(number: int) -> None:
    assert HealthState.received(number) is HealthState.UNKNOWN
    assert not HealthState.UNKNOWN.is_usable


def test_states_are_named_as_they_are_shown() -> None:
    for state in (PASSES, WARNING, CRITICAL):
        assert HealthState.named(str(state)) is HealthState.received(int(state)) is state
    with pytest.raises(InvalidValue, match="passing, warning, critical"):
        HealthState.named("unknown")


def test_passing_and_warning_are_usable() -> None:
    assert [state for state in HealthState if state.is_usable] == [PASSES, WARNING]


def test_the_worst_counts_and_of_equal_ones_the_first() -> None:
    one, other = Health(WARNING, 1, "one"), Health(WARNING, 2, "other")
    assert worst((Health(), one, other)) is one
    assert worst((one, Health(CRITICAL, 3))).state is CRITICAL
    assert worst(()) == Health()


def test_a_service_is_named_by_its_slot() -> None:
    slot = a_record(a_service().key_id).slot
    assert HostedService.of(slot, "a") == (slot.key_id, slot.issued_by, "a")
    with pytest.raises(InvalidValue):
        HostedService.of(slot, "é" * 65)
