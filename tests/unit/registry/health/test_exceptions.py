"""How exceptions travel: their form, their list, and hostile ones."""

from __future__ import annotations

from hashlib import sha256

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidValue
from registry.health.exceptions import (
    MOST_BYTES,
    MOST_IN_PAGE,
    MOST_LISTED,
    ExceptionList,
    digest_of_entries,
    entries_in,
    entry_of,
    exceptions_in,
)
from registry.health.state import Health, HealthState, HostedService
from tests.unit.registry.builders import HOST, ISSUER, NODE, NOW
from tests.unit.registry.health.builders import CRITICAL, GUEST, PASSES, WARNING, a_service, bad

services = st.builds(
    a_service,
    st.integers(0, 40),
    st.sampled_from([HOST.peer_id, ISSUER.peer_id, NODE.peer_id]),
    st.sampled_from(["", "a", "b"]),
)
healths = st.builds(Health, st.sampled_from([PASSES, WARNING, CRITICAL]), st.integers(1, 2**40), st.text(max_size=300))


def a_list(healths: dict[HostedService, Health]) -> ExceptionList:
    listed = ExceptionList(HOST.peer_id)
    for service, health in healths.items():
        listed.put(service, health)
    return listed


def all_pages(listed: ExceptionList) -> list[bytes]:
    entries: list[bytes] = []
    after, more = None, True
    while more:
        page, more = listed.page(after)
        entries += page
        after = entries_in(HOST.peer_id, page)[-1][0]
    return entries


@given(st.dictionaries(services, healths, max_size=60))
def test_what_is_told_is_what_does_not_pass(healths: dict[HostedService, Health]) -> None:
    listed = a_list(healths)
    bad_ones = {service: health for service, health in healths.items() if health.state is not PASSES}
    told = listed.told()
    assert len(told) <= MOST_BYTES
    assert len(listed) == len(bad_ones)
    read = exceptions_in(HOST.peer_id, told)
    if read.is_listed_elsewhere:
        assert (read.services, read.count) == ({}, len(bad_ones))
        entries = all_pages(listed)
        assert digest_of_entries(entries) == read.digest == sha256(b"".join(entries)).digest()
        assert dict(entries_in(HOST.peer_id, entries)) == bad_ones
    else:
        assert read.services == bad_ones


@given(st.permutations([(a_service(n), bad(note=str(n))) for n in range(8)]), st.integers(0, 8))
def test_the_same_services_are_told_by_the_same_bytes_in_whatever_order_they_failed(changes, gone: int) -> None:
    listed = a_list(dict(changes))
    for service, _ in changes[:gone]:
        listed.put(service, Health())
    again = a_list(dict(sorted(changes[gone:])))
    assert (listed.told(), listed.digest()) == (again.told(), again.digest())


def test_the_form_is_as_documented() -> None:
    told = a_list({a_service(1): bad(WARNING, "slow"), GUEST: bad(note="")}).told()
    entries = sorted(
        [[a_service(1).key_id, "", "", 1, NOW, "slow"], [GUEST.key_id, ISSUER.peer_id, "", 3, NOW, ""]],
    )
    assert cbor2.loads(told) == [entries, 0, b""]
    assert told == cbor2.dumps([entries, 0, b""], canonical=True)


def test_a_host_all_of_whose_services_pass_tells_nothing() -> None:
    listed = a_list({a_service(n): bad() for n in range(1000)})
    for n in range(1000):
        assert listed.put(a_service(n), Health())
    assert listed.told() == b""
    assert exceptions_in(HOST.peer_id, b"").services == {}


def test_the_list_takes_over_exactly_where_the_presence_is_full() -> None:
    full: dict[HostedService, Health] = {}
    while not exceptions_in(HOST.peer_id, a_list(full).told()).is_listed_elsewhere:
        full[a_service(len(full))] = bad(note="x" * 50)
    fits = dict(list(full.items())[:-1])
    told = a_list(fits).told()
    assert exceptions_in(HOST.peer_id, told).services == fits
    entry = len(entry_of(HOST.peer_id, a_service(), bad(note="x" * 50)))
    assert MOST_BYTES - entry < len(told) <= MOST_BYTES


def test_what_did_not_change_is_no_change() -> None:
    listed = a_list({GUEST: bad()})
    assert not listed.put(GUEST, bad())
    assert listed.put(GUEST, bad(note="other"))
    assert listed.remove(GUEST)
    assert not listed.remove(GUEST)


def test_pages_are_bounded_and_go_on_where_a_service_passes_meanwhile() -> None:
    listed = a_list({a_service(n): bad() for n in range(MOST_IN_PAGE + 2)})
    page, more = listed.page(None)
    assert (len(page), more) == (MOST_IN_PAGE, True)
    last = entries_in(HOST.peer_id, page)[-1][0]
    listed.remove(last)
    rest, more = listed.page(last)
    assert (len(rest), more) == (2, False)


# What others send


def told(entries: object, *more: object) -> bytes:
    return cbor2.dumps([entries, *more])


ENTRY = [GUEST.key_id, ISSUER.peer_id, "", 3, NOW, "down"]


def test_fields_of_later_versions_are_ignored() -> None:
    read = exceptions_in(HOST.peer_id, told([[*ENTRY, {"new": 1}]], 0, b"", "new"))
    assert read.services == {GUEST: bad(note="down")}


def test_a_state_of_a_later_version_does_not_pass() -> None:
    (health,) = exceptions_in(HOST.peer_id, told([[*ENTRY[:3], 9, NOW, ""]])).services.values()
    assert health.state is HealthState.UNKNOWN


def test_of_a_service_that_is_there_twice_the_worst_counts() -> None:
    read = exceptions_in(HOST.peer_id, told([ENTRY, [*ENTRY[:3], 0, NOW, "fine"]]))
    assert read.services[GUEST].state is CRITICAL


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff",
        b"x" * (MOST_BYTES + 1),
        cbor2.dumps({}),
        cbor2.dumps([]),
        told({}),
        told([1]),
        told([ENTRY[:5]]),
        told([["x" * 65, *ENTRY[1:]]]),
        told([[ENTRY[0], "x" * 65, *ENTRY[2:]]]),
        told([[*ENTRY[:2], "x" * 129, *ENTRY[3:]]]),
        told([[*ENTRY[:3], "critical", NOW, ""]]),
        told([[*ENTRY[:3], True, NOW, ""]]),
        told([[*ENTRY[:4], 1.5, ""]]),
        told([[*ENTRY[:5], b"note"]]),
        told([], -1, bytes(32)),
        told([], MOST_LISTED + 1, bytes(32)),
        told([], 1, bytes(65)),
        told([], 1, "digest"),
    ],
)
def test_what_has_no_form_is_refused(sent: bytes) -> None:
    with pytest.raises(InvalidValue):
        exceptions_in(HOST.peer_id, sent)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(sent: bytes) -> None:
    try:
        exceptions_in(HOST.peer_id, sent)
        entries_in(HOST.peer_id, [sent])
    except InvalidValue:
        pass
