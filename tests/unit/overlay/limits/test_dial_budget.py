"""Vain dials are bounded per host, per group and per teller, whoever takes part; what is reached costs nothing."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from overlay.libp2p.told_addresses import dial_budget
from overlay.settings import DialLimits

LIMITS = DialLimits(teller_burst=8, teller_rate=0.5, host_burst=4, host_rate=0.1, group_burst=12, group_rate=0.2)


def test_a_host_is_dialled_in_vain_only_so_often_whoever_tells_it() -> None:
    budget = dial_budget(LIMITS)
    made = [budget.begin("203.0.113.1", "cb00", [f"teller {number}"], 0.0) is not None for number in range(100)]
    assert made == [True] * 4 + [False] * 96
    assert budget.begin("203.0.113.1", "cb00", ["another"], 10.0) is not None
    assert budget.begin("203.0.113.1", "cb00", ["another"], 10.0) is None


def test_a_teller_sends_us_to_only_so_many_and_keeps_nobody_else_from_being_believed() -> None:
    budget = dial_budget(LIMITS)
    made = [budget.begin(f"203.{number}.113.1", f"cb{number:02x}", ["liar"], 0.0) is not None for number in range(100)]
    assert made == [True] * 8 + [False] * 92
    assert budget.begin("198.51.100.1", "c633", ["liar"], 0.0) is None
    assert budget.begin("198.51.100.1", "c633", ["liar", "honest"], 0.0) is not None


def test_a_network_of_addresses_has_a_budget_of_its_own() -> None:
    budget = dial_budget(LIMITS)
    made = [budget.begin(f"203.0.113.{number}", "cb00", [f"teller {number}"], 0.0) is not None for number in range(100)]
    assert made == [True] * 12 + [False] * 88


def test_what_is_reached_costs_nothing() -> None:
    budget = dial_budget(LIMITS)
    for number in range(100):
        dialled = budget.begin("203.0.113.1", "cb00", ["teller"], float(number) / 100)
        assert dialled is not None
        budget.reached(dialled, float(number) / 100)


def test_hosts_without_a_budget_are_bounded_by_who_tells() -> None:
    budget = dial_budget(LIMITS)
    assert [budget.begin("", "", ["liar"], 0.0) is not None for _ in range(9)] == [True] * 8 + [False]
    assert budget.begin("", "", ["honest"], 0.0) is not None
    assert budget.begin("", "", [], 0.0) is None


@given(seed=st.integers(0, 2**32))
def test_in_a_long_history_nobody_gets_more_vain_dials_than_the_limits_say(seed: int) -> None:
    chance, budget, now = random.Random(seed), dial_budget(LIMITS), 0.0
    hosts: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    tellers: Counter[str] = Counter()
    for _ in range(400):
        now += chance.choice([0.0, 0.0, 0.1, 3.0])
        group, teller = chance.choice("ab"), f"teller {chance.randrange(6)}"
        host = f"{group}{chance.randrange(5)}"
        dialled = budget.begin(host, group, [teller], now)
        if dialled is None:
            continue
        if chance.random() < 0.3:
            budget.reached(dialled, now)
            continue
        hosts[host] += 1
        groups[group] += 1
        tellers[teller] += 1
        assert hosts[host] <= LIMITS.host_burst + LIMITS.host_rate * now + 1e-6
        assert groups[group] <= LIMITS.group_burst + LIMITS.group_rate * now + 1e-6
        assert tellers[teller] <= LIMITS.teller_burst + LIMITS.teller_rate * now + 1e-6
