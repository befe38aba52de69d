"""What a reader makes of what hosts say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.health.exceptions import MOST_IN_PAGE, ExceptionList, entries_in
from registry.health.health_reader import (
    ASK_AGAIN,
    NOT_READ,
    NOT_UNDERSTOOD,
    UNTOLD,
    HealthReader,
    ListReading,
    ListWanted,
)
from registry.health.state import PASSING, HealthState, HostedService
from registry.model.values import Slot
from tests.unit.registry.builders import HOST, NOW
from tests.unit.registry.health.builders import CRITICAL, GUEST, PASSES, WARNING, Standing, a_service, bad

SLOT = Slot(GUEST.key_id, GUEST.issued_by, HOST.peer_id)


def told(**states: HealthState) -> bytes:
    """Exceptions of GUEST: `record` is said of itself, others of its instances."""
    listed = ExceptionList(HOST.peer_id)
    for instance, state in states.items():
        listed.put(GUEST._replace(instance="" if instance == "record" else instance), bad(state))
    return listed.told()


def many(count: int = 2 * MOST_IN_PAGE) -> ExceptionList:
    listed = ExceptionList(HOST.peer_id)
    for number in range(1, count):
        listed.put(a_service(number), bad())
    listed.put(GUEST, bad(WARNING))
    return listed


def pages_of(listed: ExceptionList) -> list[list[bytes]]:
    pages, more, after = [], True, None
    while more:
        page, more = listed.page(after)
        pages.append(page)
        after = entries_in(HOST.peer_id, page)[-1][0]
    return pages


def test_a_host_that_says_nothing_is_up_and_its_services_pass() -> None:
    assert HealthReader().health_of(SLOT, Standing(is_known=False)) == UNTOLD
    assert UNTOLD.is_usable


@pytest.mark.parametrize("is_up", [True, False])
def test_up_is_as_presence_says_and_health_as_the_host_said_last(is_up: bool) -> None:
    health = HealthReader().health_of(SLOT, Standing(is_up, 7.5, told(record=WARNING), accusers=("somebody",)))
    assert (health.is_up, health.up_or_down_for, health.accusers) == (is_up, 7.5, ("somebody",))
    assert health.health == bad(WARNING)
    assert health.is_usable == is_up


def test_it_is_told_whether_a_host_said_itself_that_it_stops() -> None:
    stopped = HealthReader().health_of(SLOT, Standing(is_up=False, since=7.5, has_left=True))
    assert (stopped.is_up, stopped.has_left) == (False, True)
    assert not HealthReader().health_of(SLOT, Standing(is_up=False, since=7.5)).has_left
    assert not HealthReader().health_of(SLOT, Standing(is_up=True, has_left=True)).has_left  # it is stopping


def test_what_is_said_of_others_is_not_said_of_this_one() -> None:
    reader, listed = HealthReader(), ExceptionList(HOST.peer_id)
    listed.put(a_service(0), bad())  # the same resource, and the host's own record
    listed.put(a_service(1, GUEST.issued_by), bad())
    assert reader.health_of(SLOT, Standing(exceptions=listed.told())).health == PASSING


states = st.sampled_from([PASSES, WARNING, CRITICAL])


@given(states, states, states, st.sets(st.sampled_from(["a", "b"])))
def test_a_record_is_as_good_as_its_best_instance_and_no_better_than_it_is_said_to_be(
    record: HealthState, a: HealthState, b: HealthState, named: set[str]
) -> None:
    standing = Standing(exceptions=told(record=record, a=a, b=b))
    health = HealthReader().health_of(SLOT, standing, sorted(named))
    said = {"a": a, "b": b}
    assert {name: each.state for name, each in health.instances.items()} == {
        name: max(record, said[name]) for name in named
    }
    assert health.health.state == max(record, min((said[name] for name in named), default=PASSES))


def test_none_passes_while_the_list_has_not_been_read() -> None:
    reader, listed = HealthReader(), many()
    standing = Standing(exceptions=listed.told())
    other = Slot(a_service(9999).key_id, HOST.peer_id, HOST.peer_id)
    for slot in (SLOT, other):
        health = reader.health_of(slot, standing, ["a"])
        assert (health.health, health.instances) == (NOT_READ, {"a": NOT_READ})
        assert not health.is_usable
    wanted = reader.wanted(HOST.peer_id, standing, 0.0)
    assert wanted == ListWanted(HOST.peer_id, listed.digest(), len(listed))
    reading = ListReading(wanted)
    for page in pages_of(listed):
        assert reading.done() is None
        reading.add(page)
    services = reading.done()
    assert services is not None
    reader.listed(wanted, services, 1.0)
    assert reader.health_of(SLOT, standing).health == bad(WARNING)
    assert reader.health_of(other, standing).health == PASSING
    assert reader.wanted(HOST.peer_id, standing, 2.0) is None


def altered(pages: list[list[bytes]], how: str) -> list[list[bytes]]:
    first, *rest = pages
    match how:
        case "lacking":
            return [first[1:], *rest]
        case "more":
            return [*pages, [first[0]]]
        case "swapped":
            return [[first[1], first[0], *first[2:]], *rest]
        case "empty":
            return [[], *pages]
        case "other":
            return [[*first[:-1], first[-1].replace(b"no answer", b"no anzwer")], *rest]
        case _:
            return [[b"\xff", *first[1:]], *rest]


@pytest.mark.parametrize("how", ["lacking", "more", "swapped", "empty", "other", "garbage"])
def test_another_list_than_the_host_told_of_is_not_taken(how: str) -> None:
    listed = many()
    wanted = ListWanted(HOST.peer_id, listed.digest(), len(listed))
    reading = ListReading(wanted)

    def read() -> object:
        for page in altered(pages_of(listed), how):
            reading.add(page)
        return reading.done()

    if how == "lacking":
        assert read() is None
        return
    with pytest.raises(InvalidValue):
        read()


def test_an_entry_for_which_there_is_another_spelling_changes_nothing() -> None:
    listed = many()
    assert ListReading(ListWanted(HOST.peer_id, b"", 1)).last is None
    reading = ListReading(ListWanted(HOST.peer_id, listed.digest(), len(listed)))
    reading.add(pages_of(listed)[0])
    assert isinstance(reading.last, HostedService)


def test_who_fails_to_give_its_list_is_asked_less_and_less_often() -> None:
    reader, standing = HealthReader(), Standing(exceptions=many().told())
    now, pauses = 0.0, []
    for _ in range(9):
        wanted = reader.wanted(HOST.peer_id, standing, now)
        assert wanted is not None
        assert reader.wanted(HOST.peer_id, standing, now + 1e6) is None  # it is being asked
        reader.failed(wanted, now)
        began = now
        while reader.wanted(HOST.peer_id, standing, now) is None:
            now += 0.5
        pauses.append(now - began)
        reader.failed(wanted, now - 1e9)  # undoes what looking did
    assert pauses[0] == ASK_AGAIN[0]
    assert sorted(pauses) == pauses
    assert pauses[-1] == ASK_AGAIN[1]


def test_a_new_list_is_asked_for_though_the_one_before_is_on_its_way_but_not_all_the_time() -> None:
    reader = HealthReader()
    first, second = (Standing(exceptions=many(count).told()) for count in (600, 601))
    assert reader.wanted(HOST.peer_id, first, 0.0) is not None
    assert reader.wanted(HOST.peer_id, second, ASK_AGAIN[0] / 2) is None
    assert reader.wanted(HOST.peer_id, second, ASK_AGAIN[0]) is not None


def test_of_a_host_that_tells_garbage_nothing_passes() -> None:
    reader, standing = HealthReader(), Standing(exceptions=b"\xff")
    assert reader.health_of(SLOT, standing).health == NOT_UNDERSTOOD
    assert reader.wanted(HOST.peer_id, standing, 0.0) is None


def test_the_time_is_told() -> None:
    assert HealthReader().health_of(SLOT, Standing(exceptions=told(record=CRITICAL))).health.since == NOW
