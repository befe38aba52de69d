"""What gives way where the disk is full, held against a slow way to decide the same, and against what it promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import assume, given
from hypothesis import strategies as st

from registry.model.values import Slot
from registry.replica.eviction import Asker, what_gives_way
from registry.storage.accounts import Account, Charged

Holdings = dict[tuple[str, int], list[int]]
"""Bytes of each row that may go, the newest first, per peer and weight."""

ROWS = st.lists(st.integers(1, 50), max_size=12)
HOLDINGS = st.dictionaries(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 0, 0, 1, 2])), ROWS, max_size=6)
ASKERS = st.builds(Asker, st.just("asker"), st.sampled_from([0, 0, 1, 2]), st.integers(0, 400))
IDLE = st.lists(st.integers(1, 50), max_size=4)


def rows_of(account: tuple[str, int], sizes: Iterable[int]) -> list[Charged]:
    name = f"{account[0]} {account[1]}"
    return [Charged(Slot("key", name, str(number)), "key", False, size) for number, size in enumerate(sizes)]


def idle_rows(sizes: Iterable[int]) -> list[Charged]:
    return [Charged(None, f"idle {number}", True, size) for number, size in enumerate(sizes)]


def accounts_of(holdings: Holdings, asker: Asker) -> list[Account]:
    return [
        Account(peer_id, weight, sum(sizes))
        for (peer_id, weight), sizes in holdings.items()
        if weight <= asker.weight and sizes
    ]


def decide(needed: int, asker: Asker, idle: list[int], holdings: Holdings, assured: int) -> list[Charged] | None:
    return what_gives_way(
        needed,
        asker,
        idle_rows(idle),
        accounts_of(holdings, asker),
        lambda account: rows_of((account.peer_id, account.weight), holdings[account.peer_id, account.weight]),
        assured,
    )


def slowly(needed: int, asker: Asker, idle: list[int], holdings: Holdings, assured: int) -> list[Charged] | None:
    """One row after the other, of whom the rules name, everything looked at anew each time."""
    going: list[Charged] = []
    left = {key: rows_of(key, sizes) for key, sizes in holdings.items() if key[1] <= asker.weight}
    waiting = idle_rows(idle)
    while sum(row.bytes for row in going) < needed:
        if waiting:
            going.append(waiting.pop(0))
            continue
        may = [
            (weight, -sum(row.bytes for row in rows), peer_id)
            for (peer_id, weight), rows in left.items()
            if rows and (weight < asker.weight or sum(row.bytes for row in rows) > max(asker.holds, assured))
        ]
        if not may:
            return None
        weight, _, peer_id = min(may)
        going.append(left[peer_id, weight].pop(0))
    return going


@given(st.integers(0, 300), ASKERS, IDLE, HOLDINGS, st.integers(0, 120))
def test_it_decides_as_the_rules_do_step_by_step(
    needed: int, asker: Asker, idle: list[int], holdings: Holdings, assured: int
) -> None:
    assert decide(needed, asker, idle, holdings, assured) == slowly(needed, asker, idle, holdings, assured)


@given(st.integers(1, 300), ASKERS, IDLE, HOLDINGS, st.integers(0, 120))
def test_nobody_within_the_assured_share_or_below_the_asker_loses_to_his_like(
    needed: int, asker: Asker, idle: list[int], holdings: Holdings, assured: int
) -> None:
    going = decide(needed, asker, idle, holdings, assured)
    assume(going is not None)
    assert going is not None
    lost = Counter(row.slot.issued_by for row in going if row.slot is not None)
    for (peer_id, weight), sizes in holdings.items():
        if weight > asker.weight or (weight == asker.weight and sum(sizes) <= max(asker.holds, assured)):
            assert not lost[f"{peer_id} {weight}"]
    assert sum(row.bytes for row in going) >= needed
    assert sum(row.bytes for row in going[:-1]) < needed, "no more than needed"


@given(st.integers(1, 300), HOLDINGS)
def test_who_is_heavier_gets_room_as_long_as_anyone_lighter_has_something(needed: int, holdings: Holdings) -> None:
    going = decide(needed, Asker("asker", 3, 10**9), [], holdings, 10**9)
    assert (going is None) == (sum(map(sum, holdings.values())) < needed)


def test_rows_that_cant_go_are_left_where_they_are() -> None:
    """An account may hold much of which nothing may go: the next gives way then."""
    accounts = [Account("pinned", 0, 900), Account("greedy", 0, 500)]
    rows = {"pinned": [], "greedy": rows_of(("greedy", 0), [100] * 5)}
    going = what_gives_way(150, Asker("asker", 0, 10), [], accounts, lambda account: rows[account.peer_id], 0)
    assert going == rows["greedy"][:2]
