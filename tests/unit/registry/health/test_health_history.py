"""What is remembered of hosts and services, and what is told beside what is so now."""

from __future__ import annotations

import msgspec

from registry.health import health_history as module
from registry.health.exceptions import ExceptionList
from registry.health.health_history import HealthHistory, why_down
from registry.health.health_reader import HealthReader
from registry.health.state import Health, HostedService
from registry.model.history import HistoryEvent
from tests.unit.registry.builders import HOST, ISSUER, NOW, STRANGER
from tests.unit.registry.health.builders import CRITICAL, GUEST, PASSES, WARNING, Standing, a_service, bad

KEY_ID = GUEST.key_id


class Remembering:
    """HOST's changes, at seconds after `NOW`."""

    def __init__(self) -> None:
        self.history = HealthHistory(HealthReader().services_of)
        self.list = ExceptionList(HOST.peer_id)
        self.standing = Standing(peer_id=HOST.peer_id)

    def becomes(self, at: float, *, is_up: bool = True, since: float = 0.0, accusers: tuple[str, ...] = ()) -> None:
        self.standing = msgspec.structs.replace(self.standing, is_up=is_up, since=since, accusers=accusers)
        self.history.note(self.standing, at)

    def says(self, at: float, service: HostedService, health: Health) -> None:
        self.list.put(service, health)
        self.standing = msgspec.structs.replace(self.standing, exceptions=self.list.told())
        self.history.note(self.standing, at)

    def events(self, *present: HistoryEvent, key_id: str = KEY_ID, at: float = 100) -> list[HistoryEvent]:
        return self.history.events_of(key_id, {HOST.peer_id}, at, NOW + int(at), present)

    def told(self, *present: HistoryEvent, key_id: str = KEY_ID) -> list[tuple[int, str, str]]:
        return [(event.time - NOW, event.what, event.detail) for event in self.events(*present, key_id=key_id)]


def test_a_host_that_was_up_and_whose_services_passed_takes_no_place() -> None:
    seen = Remembering()
    seen.becomes(1, since=float("inf"))
    seen.says(2, GUEST, bad(PASSES))
    assert len(seen.history) == 0


def test_each_change_is_told_with_its_time_and_by_whose_word() -> None:
    seen = Remembering()
    seen.becomes(10, is_up=False, since=2, accusers=("A", "B"))
    seen.becomes(10.5, is_up=False, since=2.5, accusers=("A", "B", "C"))
    seen.becomes(20)
    seen.says(30, GUEST, bad(WARNING, "slow", since=NOW + 29))
    seen.says(35, GUEST, bad(WARNING, "slower", since=NOW + 29))
    seen.says(40, GUEST, bad(CRITICAL, "gone", since=NOW + 10_000))
    seen.says(50, GUEST, bad(PASSES, since=0))
    assert seen.told() == [
        (8, "down", "the host isn't there, as A and B say"),
        (20, "up", "the host is there again"),
        (29, "warning", "slow"),
        (40, "critical", "gone"),
        (50, "passing", ""),
    ]
    assert {event.issued_by for event in seen.events() if event.what in {"down", "up"}} == {""}
    assert {event.issued_by for event in seen.events() if event.what == "warning"} == {ISSUER.peer_id}


def test_one_witness_says_and_a_host_that_stops_says_it_itself() -> None:
    assert why_down(["A"], has_left=False) == "the host isn't there, as A says"
    assert why_down(["A"], has_left=True) == "the host stopped by its own word"


def test_a_change_has_the_same_time_whenever_it_is_told() -> None:
    seen = Remembering()
    seen.becomes(10.6, is_up=False)
    moments = [NOW + 12 + tenth / 10 for tenth in range(20)]
    told = [seen.history.events_of(KEY_ID, {HOST.peer_id}, moment - NOW, moment, ()) for moment in moments]
    assert {event.time - NOW for events in told for event in events} == {10}


def test_what_is_still_so_is_told_once() -> None:
    seen = Remembering()
    seen.becomes(10, is_up=False)
    seen.becomes(20)
    seen.becomes(30, is_up=False)
    seen.says(30, GUEST, bad(since=NOW + 30))
    now_down = HistoryEvent(NOW + 30, KEY_ID, ISSUER.peer_id, HOST.peer_id, "down", "its host isn't there")
    now_bad = HistoryEvent(NOW + 30, KEY_ID, ISSUER.peer_id, HOST.peer_id, "critical", "no answer")
    assert [(at, what) for at, what, _ in seen.told(now_down, now_bad)] == [(10, "down"), (20, "up")]
    assert len(seen.told()) == 4


def test_a_resource_has_the_changes_of_its_own_services() -> None:
    seen, other = Remembering(), a_service(1)
    seen.says(1, other, bad(since=0))
    seen.says(2, a_service(0, ISSUER.peer_id, "b"), bad(note="full", since=0))
    assert seen.told() == [(2, "critical", "instance b: full")]
    assert seen.told(key_id=other.key_id) == [(1, "critical", "no answer")]


def test_a_host_of_which_nobody_heard_for_a_while_is_not_said_to_have_come_up() -> None:
    seen = Remembering()
    seen.becomes(10, is_up=False)
    seen.becomes(700, since=float("inf"))  # followed anew
    seen.becomes(705, is_up=False)
    assert [event.what for event in seen.events(at=800)] == ["down", "down"]


def test_while_a_list_is_not_at_hand_nothing_is_told_of_the_difference() -> None:
    seen = Remembering()
    for number in range(600):
        seen.list.put(a_service(number + 1), bad(since=0))
    seen.says(1, GUEST, bad(since=0))
    assert seen.told() == []


def test_what_hosts_can_have_remembered_is_bounded() -> None:
    history = HealthHistory(HealthReader().services_of)
    for number in range(2000):
        for turn in range(20):
            history.note(Standing(turn % 2 == 1, 0.0, peer_id=f"host {number}"), number + turn / 100)
    assert len(history) <= module.MOST_CHANGES
    for turn in range(1000):
        history.note(Standing(turn % 2 == 1, 0.0, peer_id=STRANGER.peer_id), 3000 + turn)
    events = history.events_of(KEY_ID, {STRANGER.peer_id}, 5000, NOW, ())
    assert len(events) == module.MOST_OF_HOST
    assert len(history) <= module.MOST_CHANGES
