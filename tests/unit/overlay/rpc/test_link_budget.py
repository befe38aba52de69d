"""Which links are closed, and who finds a place: by its rules, and in long random histories."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.rpc.link_budget import LinkBudget, LinkInUse
from overlay.settings import LinkLimits

LIMITS = LinkLimits(idle_timeout=600, min_lifetime=3, low_water=4, high_water=6, max_members=8, max_light_clients=16)
NOW = 1000.0


def link(
    name: str,
    *,
    member: bool = True,
    kept: bool = False,
    kept_here: bool = False,
    active: bool = True,
    busy: bool = False,
    up_since: float = 0.0,
    used_at: float = NOW,
) -> LinkInUse:
    return LinkInUse(
        peer_id=name,
        member=member,
        kept_here=kept_here,
        kept_there=kept,
        active=active,
        busy=busy,
        up_since=up_since,
        used_at=used_at,
    )


def is_kept(one: LinkInUse) -> bool:
    return one.kept_here or one.kept_there


@st.composite
def states(draw: st.DrawFn) -> list[LinkInUse]:
    """Links as they may be at one moment, many enough to be crowded."""
    moments = st.floats(0, NOW)
    return [
        link(
            f"peer {number}",
            member=draw(st.booleans()),
            kept=draw(st.booleans()),
            kept_here=draw(st.sampled_from([False, False, True])),
            active=draw(st.booleans()),
            busy=draw(st.sampled_from([False, False, True])),
            up_since=(up_since := draw(moments)),
            used_at=max(up_since, draw(moments)),
        )
        for number in range(draw(st.integers(0, 40)))
    ]


# One moment


@given(links=states())
def test_no_link_is_cut_that_a_side_keeps_or_uses(links: list[LinkInUse]) -> None:
    closed = set(LinkBudget(LIMITS).to_close(links, NOW))
    for one in links:
        if one.peer_id in closed:
            assert not is_kept(one)
            assert not one.busy
            assert one.up_since + LIMITS.min_lifetime <= NOW, "whoever came in has time for what it came for"


@given(links=states())
def test_beyond_the_high_mark_all_that_may_go_are_closed_down_to_the_low_one(links: list[LinkInUse]) -> None:
    closed = set(LinkBudget(LIMITS).to_close(links, NOW))
    members = [one for one in links if one.member]
    may_go = [one for one in members if not is_kept(one) and not one.busy and one.up_since + 3 <= NOW]
    idle = [one for one in may_go if one.used_at + 600 <= NOW]
    wanted = len(members) - LIMITS.low_water if len(members) > LIMITS.high_water else 0
    expected = min(len(may_go), max(wanted, len(idle)))
    assert sum(one.peer_id in closed for one in members) == expected


@given(links=states())
def test_the_least_recently_used_go_first(links: list[LinkInUse]) -> None:
    closed = set(LinkBudget(LIMITS).to_close(links, NOW))
    for member in (True, False):
        may_go = [
            one for one in links if one.member is member and not is_kept(one) and not one.busy and one.up_since <= 997
        ]
        gone = [one.used_at for one in may_go if one.peer_id in closed]
        stay = [one.used_at for one in may_go if one.peer_id not in closed]
        assert not gone or not stay or max(gone) <= min(stay)


@given(links=states())
def test_neither_kind_crowds_the_other_out(links: list[LinkInUse]) -> None:
    budget = LinkBudget(LIMITS)
    together = set(budget.to_close(links, NOW))
    apart = [budget.to_close([one for one in links if one.member is member], NOW) for member in (True, False)]
    assert together == {peer_id for closed in apart for peer_id in closed}


@given(links=states())
def test_nothing_is_due_before_it_is_time_to_look(links: list[LinkInUse]) -> None:
    budget = LinkBudget(LIMITS)
    left = [one for one in links if one.peer_id not in budget.to_close(links, NOW)]
    wake_at = budget.wake_at(left, NOW)
    assert wake_at > NOW, "whoever sleeps until then doesn't spin"
    due = [moment for moment in (NOW + 0.5, NOW + 2.9, NOW + 300, NOW + 599, NOW + 650) if moment < wake_at]
    for moment in due:
        assert budget.to_close(left, moment) == []
    if math.isinf(wake_at):
        assert all(is_kept(one) for one in left)
    elif not any(one.busy for one in left):
        assert budget.to_close(left, wake_at)


def test_peer_that_wants_to_stay_is_asked_again_after_a_while() -> None:
    """It said so when it was asked because of the crowd; its link is still free."""
    crowd = [link(f"peer {number}", kept=True) for number in range(7)]
    assert LinkBudget(LIMITS).wake_at([*crowd, link("free")], NOW) == NOW + LIMITS.min_lifetime


@pytest.mark.parametrize(
    ("member", "kept", "linked", "expected"),
    [
        (True, False, 7, True),
        (True, False, 8, False),
        (True, True, 8, True),
        (True, True, 500, True),
        (False, False, 15, True),
        (False, False, 16, False),
        (False, True, 16, False),
    ],
)
def test_place_for_a_peer(member: bool, kept: bool, linked: int, expected: bool) -> None:
    assert LinkBudget(LIMITS).admits(member=member, kept=kept, linked=linked) is expected


@given(members=st.integers(0, 20), light_clients=st.integers(0, 20), member=st.booleans())
def test_whoever_is_turned_away_was_not_greeted(members: int, light_clients: int, member: bool) -> None:
    budget = LinkBudget(LIMITS)
    if not budget.may_refuse(members=members, light_clients=light_clients):
        assert budget.admits(member=member, kept=False, linked=members if member else light_clients)


@given(links=states(), member=st.booleans())
def test_who_gives_way_to_a_newcomer_is_idle_and_not_kept_by_us(links: list[LinkInUse], member: bool) -> None:
    first = LinkBudget(LIMITS).gives_way(links, NOW, member=member)
    may = [one for one in links if one.member is member and not one.kept_here and not one.busy]
    silent = [one for one in may if not one.active and one.up_since + 1 <= NOW]
    unused = [one for one in may if one.active and one.used_at + LIMITS.gives_way_after <= NOW]
    if first is None:
        assert not silent
        assert not unused
        return
    one = next(one for one in links if one.peer_id == first)
    assert one in (silent or unused), "who did nothing gives way before who did something"
    assert one.used_at == min(other.used_at for other in silent or unused)


@given(idle=st.integers(1, 16))
def test_idle_clients_that_keep_their_links_keep_nobody_out(idle: int) -> None:
    links = [link(f"idle {number}", member=False, kept=True, active=False, used_at=0.0) for number in range(idle)]
    links += [link(f"busy {number}", member=False, kept=True) for number in range(16 - idle)]
    for number in range(idle):
        first = LinkBudget(LIMITS).gives_way(links, NOW, member=False)
        assert first is not None
        assert first.startswith("idle")
        links = [one for one in links if one.peer_id != first]
        links.append(link(f"newcomer {number}", member=False, kept=True, up_since=NOW, active=False))
    assert LinkBudget(LIMITS).gives_way(links, NOW, member=False) is None, "whoever uses its link stays"


def test_presets_leave_room_between_the_marks() -> None:
    limits = LinkLimits()
    assert limits.low_water < limits.high_water < limits.max_members


# Long histories


class Node:
    """A node whose links come, are used, kept, let go, and closed, as the budget says."""

    def __init__(self) -> None:
        self.budget = LinkBudget(LIMITS)
        self.links: dict[str, LinkInUse] = {}

    def try_to_come(self, name: str, now: float, *, member: bool, kept_here: bool, kept: bool) -> bool:
        linked = sum(one.member is member for one in self.links.values())
        admitted = self.budget.admits(member=member, kept=kept_here, linked=linked)
        if admitted:
            self.links[name] = link(name, member=member, kept=kept or kept_here, up_since=now, used_at=now)
        return admitted

    def look(self, now: float) -> list[LinkInUse]:
        return [self.links.pop(peer_id) for peer_id in self.budget.to_close(list(self.links.values()), now)]


@given(seed=st.integers(0, 2**32))
def test_in_a_long_history_marks_hold_and_nothing_kept_is_cut(seed: int) -> None:
    chance, node, now = random.Random(seed), Node(), 0.0
    for step in range(400):
        now += chance.choice([0.1, 1.0, 30.0])
        name = f"peer {step}"
        member, kept_here = chance.random() < 0.7, chance.random() < 0.1
        before = len([one for one in node.links.values() if one.member is member])
        if node.try_to_come(name, now, member=member, kept_here=kept_here, kept=chance.random() < 0.3):
            assert kept_here or before < (LIMITS.max_members if member else LIMITS.max_light_clients)
        for peer_id, one in list(node.links.items()):
            if chance.random() < 0.1:
                node.links[peer_id] = link(
                    peer_id,
                    member=one.member,
                    kept=chance.random() < 0.3,
                    busy=chance.random() < 0.1,
                    up_since=one.up_since,
                    used_at=now,
                )
        for gone in node.look(now):
            assert not is_kept(gone)
            assert not gone.busy
            assert gone.up_since + LIMITS.min_lifetime <= now
        members = [one for one in node.links.values() if one.member]
        if len(members) > LIMITS.high_water:
            assert all(is_kept(one) or one.busy or one.up_since + LIMITS.min_lifetime > now for one in members)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), hostile=st.integers(0, 7))
def test_nobody_starves_where_links_may_go(seed: int, hostile: int) -> None:
    """30 newcomers try again every second; some links are kept for ever by whoever came first."""
    chance, node, now = random.Random(seed), Node(), 0.0
    for number in range(hostile):
        assert node.try_to_come(f"hostile {number}", now, member=True, kept_here=False, kept=True)
    waiting = {f"newcomer {number}" for number in range(30)}
    while waiting:
        now += 1.0
        assert now < 30 / (LIMITS.max_members - hostile) * (LIMITS.min_lifetime + 2) + 5, f"{waiting} are still outside"
        for name in chance.sample(sorted(waiting), len(waiting)):
            if node.try_to_come(name, now, member=True, kept_here=False, kept=False):
                waiting.discard(name)
        node.look(now)
