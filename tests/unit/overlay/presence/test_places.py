"""Which host gives way at a keeper all of whose places are taken."""

from __future__ import annotations

import pytest

from overlay.presence.places import KeptPlaces, KnownBy
from overlay.presence.timings import FEW_BROUGHT


class Taken:
    """Places, and who is there."""

    def __init__(self) -> None:
        self.places = KeptPlaces()
        self.gone: set[str] = set()

    def put(self, known_by: KnownBy, teller: str, count: int) -> None:
        for number in range(count):
            self.places.put(f"{teller} {number}", known_by, teller)

    def giving_way(self, known_by: KnownBy, teller: str = "new") -> str | None:
        return self.places.giving_way(known_by, teller, lambda host: host not in self.gone)


@pytest.mark.parametrize("known_by", list(KnownBy))
def test_those_of_which_somebody_only_asked_give_way_first_and_of_them_whose_are_the_most(known_by: KnownBy) -> None:
    taken = Taken()
    for each in KnownBy:
        taken.put(each, f"little {each.name}", 2)
        taken.put(each, f"much {each.name}", 3)
    assert taken.giving_way(known_by) == "much NAME 0"
    assert taken.places.named == 5
    assert taken.places.first_named() == "much NAME 0"


def test_who_is_only_told_of_takes_nobodys_place_who_was_heard() -> None:
    taken = Taken()
    taken.put(KnownBy.ITSELF, "host", 3)
    taken.put(KnownBy.NODE, "node", 3 * FEW_BROUGHT)
    taken.gone |= {"host 0", "node 0"}
    assert taken.giving_way(KnownBy.NAME) is None
    assert taken.giving_way(KnownBy.HEARSAY) is None
    taken.put(KnownBy.HEARSAY, "keeper", 2)
    assert taken.giving_way(KnownBy.NAME) is None
    assert taken.giving_way(KnownBy.HEARSAY) == taken.giving_way(KnownBy.ITSELF) == "keeper 0"


def test_a_node_that_brought_the_most_clients_makes_room_among_its_own() -> None:
    taken = Taken()
    taken.put(KnownBy.NODE, "much", 2 * FEW_BROUGHT)
    taken.put(KnownBy.NODE, "little", 3)
    taken.gone |= {"little 1"}
    assert taken.giving_way(KnownBy.NODE, "much") is None
    assert taken.giving_way(KnownBy.NODE, "little") == f"much {2 * FEW_BROUGHT - 1}"
    taken.gone |= {"much 7"}
    assert taken.giving_way(KnownBy.NODE, "much") == "much 7"
    assert taken.giving_way(KnownBy.NODE, "little") == "much 7"
    assert taken.giving_way(KnownBy.ITSELF) == "much 7"


def test_two_nodes_that_brought_as_many_take_no_places_of_each_other() -> None:
    taken = Taken()
    taken.put(KnownBy.NODE, "one", FEW_BROUGHT + 1)
    taken.put(KnownBy.NODE, "other", FEW_BROUGHT)
    assert taken.giving_way(KnownBy.NODE, "one") is None
    assert taken.giving_way(KnownBy.NODE, "other") is None


def test_hosts_that_are_gone_give_way_last() -> None:
    taken = Taken()
    taken.put(KnownBy.ITSELF, "host", 3)
    taken.put(KnownBy.NODE, "node", FEW_BROUGHT)
    taken.put(KnownBy.NODE, "other", FEW_BROUGHT - 1)
    for known_by, teller in ((KnownBy.ITSELF, ""), (KnownBy.NODE, "node"), (KnownBy.NODE, "other")):
        assert taken.giving_way(known_by, teller) is None
    taken.gone |= {"host 1"}
    assert taken.giving_way(KnownBy.ITSELF) == taken.giving_way(KnownBy.NODE, "other") == "host 1"
    assert taken.giving_way(KnownBy.NODE, "node") is None, "it has enough"


def test_a_host_that_is_heard_counts_for_nobody_else_and_one_that_is_forgotten_for_nobody() -> None:
    taken = Taken()
    taken.put(KnownBy.NAME, "replica", 2)
    taken.places.put("replica 0", KnownBy.ITSELF, "replica 0")
    taken.places.drop("replica 1")
    taken.places.drop("replica 1")
    assert taken.places.known_by("replica 0") is KnownBy.ITSELF
    assert taken.places.teller("replica 0") == "replica 0"
    assert taken.places.named == 0
    assert taken.places.first_named() is None
    assert taken.giving_way(KnownBy.NAME) is None
