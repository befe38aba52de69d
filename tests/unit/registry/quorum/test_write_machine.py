"""To whom a write is sent, and who passes it on to whom, without a network."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from registry.codes import Code
from registry.protocol.error_info import ErrorInfo
from registry.quorum.write_machine import ALL_DIRECTLY, DIRECTLY, PATIENCE, Send, WriteMachine

REFUSED: Final = ErrorInfo(Code.QUOTA_EXCEEDED, "full")


def peers(count: int) -> list[str]:
    return [f"peer {number}" for number in range(count)]


def reached(sends: list[Send]) -> list[str]:
    """Everybody who gets it, from this node or from whom it was sent to."""
    return [peer_id for send in sends for peer_id in (send.peer_id, *send.share)]


def test_few_replicas_all_get_it_directly() -> None:
    machine = WriteMachine(peers(ALL_DIRECTLY), here=None, factor=1)
    assert machine.begin(0.0) == [Send(peer_id) for peer_id in peers(ALL_DIRECTLY)]
    assert machine.is_direct


def test_of_many_three_get_it_and_each_passes_a_third_on() -> None:
    machine = WriteMachine(peers(20), here=None, factor=1)
    sends = machine.begin(0.0)
    assert [send.peer_id for send in sends] == peers(DIRECTLY)
    assert sorted(len(send.share) for send in sends) == [5, 6, 6]
    assert not machine.is_direct


def test_as_many_as_have_to_acknowledge_get_it_directly() -> None:
    sends = WriteMachine(peers(20), here=None, factor=11).begin(0.0)
    assert [send.peer_id for send in sends] == peers(11)
    assert all(send.urgent for send in sends)


def test_this_node_keeps_it_first_and_sends_to_its_share_itself() -> None:
    machine = WriteMachine(peers(20), here="peer 15", factor=1)
    own, *others = machine.begin(0.0)
    assert own.peer_id == "peer 15"
    assert others[: len(own.share)] == [Send(peer_id, urgent=False) for peer_id in own.share]
    assert [send.peer_id for send in others[len(own.share) :]] == ["peer 0", "peer 1"]
    assert not any(send.urgent for send in others), "nobody waits for them"


def group_of(peer_id: str) -> str:
    """Peers 5, 6, 15 and 16 are in a network of their own."""
    return "other" if peer_id[-1] in "56" else "usual"


def test_where_chance_chose_one_address_group_one_more_of_another_gets_it_directly() -> None:
    sends = WriteMachine(peers(20), here=None, factor=2, group_of=group_of).begin(0.0)
    assert [send.peer_id for send in sends] == [*peers(DIRECTLY), "peer 5"]
    assert sorted(reached(sends)) == sorted(peers(20))
    sends = WriteMachine(peers(20), here=None, factor=1, group_of=group_of).begin(0.0)
    assert [send.peer_id for send in sends] == peers(DIRECTLY), "one word is all that is asked for"


def test_the_words_of_one_address_group_wait_for_one_of_another_but_not_for_long() -> None:
    machine = WriteMachine(peers(20), here=None, factor=2, group_of=group_of)
    machine.begin(0.0)
    for peer_id in peers(DIRECTLY):
        machine.report(peer_id, None)
    assert not machine.is_settled
    assert machine.wake_at() == PATIENCE
    machine.step(PATIENCE)
    assert machine.is_settled, "whoever is silent can't make a write fail"


def test_a_word_of_another_address_group_settles_a_write_and_so_does_its_refusal() -> None:
    for answer in (None, REFUSED):
        machine = WriteMachine(peers(20), here=None, factor=2, group_of=group_of)
        machine.begin(0.0)
        machine.report("peer 0", None)
        machine.report("peer 5", answer)
        assert machine.is_settled is (answer is None)
        machine.report("peer 1", None)
        assert machine.is_settled


def test_the_word_of_a_doubted_replica_counts_only_where_no_other_comes() -> None:
    machine = WriteMachine(peers(3), here=None, factor=1, doubted=["peer 0"])
    machine.begin(0.0)
    machine.report("peer 0", None)
    assert not machine.is_settled
    machine.report("peer 1", REFUSED)
    assert not machine.is_settled
    machine.report("peer 2", REFUSED)
    assert machine.is_settled
    assert machine.stored == {"peer 0"}


def test_all_have_to_have_it_where_all_are_asked_for_and_one_is_doubted() -> None:
    machine = WriteMachine(peers(3), here=None, factor=3, doubted=["peer 0"], group_of=group_of)
    machine.begin(0.0)
    for peer_id in peers(3):
        assert not machine.is_settled
        machine.report(peer_id, None)
    assert machine.is_settled, "no other word can come"


def test_two_of_those_that_tell_watchers_get_it_directly_too() -> None:
    sends = WriteMachine(peers(20), here=None, factor=1, announcers=peers(20)[10:]).begin(0.0)
    assert [send.peer_id for send in sends] == [*peers(DIRECTLY), "peer 10", "peer 11"]


def test_whoever_refuses_is_made_up_for_by_one_of_its_share_that_takes_over_the_rest() -> None:
    machine = WriteMachine(peers(20), here=None, factor=1)
    first, second, third = machine.begin(0.0)
    machine.report(second.peer_id, None)
    machine.report(first.peer_id, REFUSED)
    assert machine.step(0.1) == [Send(first.share[0], first.share[1:])]
    assert machine.step(0.1) == [], "once"
    machine.report(third.peer_id, None)
    machine.report(first.share[0], None)
    assert machine.wake_at() is None
    assert machine.stored == {second.peer_id, third.peer_id, first.share[0]}


def test_whoever_is_slow_is_made_up_for_and_still_counts_when_it_answers() -> None:
    machine = WriteMachine(peers(20), here=None, factor=3)
    first, second, third = machine.begin(0.0)
    for send in (second, third):
        machine.report(send.peer_id, None)
    assert machine.wake_at() == PATIENCE
    assert machine.step(PATIENCE - 0.1) == []
    assert machine.step(PATIENCE) == [Send(first.share[0], first.share[1:])]
    assert not machine.is_settled
    machine.report(first.peer_id, None)
    assert machine.is_settled


def test_when_all_refuse_the_others_are_sent_it_at_once_and_it_fails_when_those_did_too() -> None:
    machine = WriteMachine(peers(20), here=None, factor=1)
    for send in machine.begin(0.0):
        machine.report(send.peer_id, REFUSED)
    assert not machine.is_settled
    sends = machine.step(0.1)
    assert sends == [Send(peer_id) for peer_id in peers(20)[DIRECTLY:]]
    for send in sends:
        machine.report(send.peer_id, REFUSED)
    assert machine.is_settled
    assert machine.step(0.2) == []
    assert len(machine.errors) == 20


@given(st.integers(1, 30), st.integers(1, 5), st.data())
def test_enough_words_settle_a_write_by_its_deadline_at_the_latest(size: int, factor: int, data: st.DataObject) -> None:
    """Whoever is doubted, in whatever group, and whoever is silent: with words enough nobody waits beyond `PATIENCE`,
    and before that only while words may come that are worth more."""
    targets = peers(size)
    groups = data.draw(st.fixed_dictionaries({peer_id: st.sampled_from("abc") for peer_id in targets}))
    doubted = data.draw(st.sets(st.sampled_from(targets)))
    machine = WriteMachine(targets, here=None, factor=factor, group_of=groups.__getitem__, doubted=doubted)
    pending = list(machine.begin(0.0))
    while pending and data.draw(st.integers(0, 9)):
        send = pending.pop(data.draw(st.integers(0, len(pending) - 1)))
        machine.report(send.peer_id, None if data.draw(st.booleans()) else REFUSED)
        trusted = machine.stored - doubted
        credible = len({groups[peer_id] for peer_id in trusted}) >= min(2, factor)
        if len(trusted) >= factor and credible:
            assert machine.is_settled
        if machine.is_settled and pending:
            assert len(machine.stored) >= factor
        pending += machine.step(0.1)
    machine.step(PATIENCE)
    assert machine.is_settled or len(machine.stored) < factor


@given(st.integers(1, 30), st.integers(-1, 31), st.booleans(), st.data())
def test_every_replica_gets_it_once_and_the_rest_of_whoever_fails_is_taken_over(
    size: int, factor: int, is_here: bool, data: st.DataObject
) -> None:
    targets = peers(size)
    announcers = data.draw(st.sets(st.sampled_from(targets)))
    here = targets[-1] if is_here else None
    machine = WriteMachine(targets, here=here, factor=factor, announcers=announcers)
    sends = machine.begin(0.0)
    own_share = next((send.share for send in sends if send.peer_id == here), ())
    assert sorted(reached(sends)) == sorted([*targets, *own_share]), "that of this node is sent by itself"
    pending, now = list(sends), 0.0
    covered: set[str] = set()
    acknowledged: set[str] = set()
    while pending:
        send = pending.pop(data.draw(st.integers(0, len(pending) - 1)))
        is_taken = data.draw(st.booleans())
        machine.report(send.peer_id, None if is_taken else REFUSED)
        if is_taken:
            acknowledged.add(send.peer_id)
            covered.update((send.peer_id, *send.share))
        now += 0.01
        again = machine.step(now)
        assert not {other.peer_id for other in again} & {other.peer_id for other in sends}, "directly at most once"
        sends += again
        pending += again
    assert machine.wake_at() is None
    assert machine.stored == acknowledged
    assert machine.is_settled
    sent_directly = {send.peer_id for send in sends}
    assert sent_directly | covered == set(targets), "whoever didn't get it directly is in the share of one who took it"


@given(st.integers(20, 25), st.integers(1, 44), st.integers(1, 64), st.booleans())
def test_where_members_crowd_those_drawn_from_the_region_get_it_first(
    size: int, others: int, factor: int, is_here: bool
) -> None:
    drawn = [f"drawn {number}" for number in range(others)]
    here = peers(size)[-1] if is_here else None
    machine = WriteMachine(peers(size), here=here, factor=factor, drawn=drawn)
    sends = machine.begin(0.0)
    direct = [send.peer_id for send in sends if send.peer_id != here and send.urgent]
    assert len(machine.targets) == size + others
    own_share = next((send.share for send in sends if send.peer_id == here), ())
    assert sorted(reached(sends)) == sorted([*machine.targets, *own_share])
    if not is_here:
        assert direct[: len(drawn)] == drawn[: len(direct)]
        assert len(direct) == min(max(factor, DIRECTLY) + DIRECTLY, size + others)


def test_all_of_those_drawn_to_whom_a_link_is_open_get_it_directly() -> None:
    drawn = [f"drawn {number}" for number in range(40)]
    machine = WriteMachine(peers(20), here=None, factor=1, drawn=drawn, linked=[*drawn[20:], *peers(20)])
    sends = machine.begin(0.0)
    assert [send.peer_id for send in sends] == [*drawn[: 2 * DIRECTLY], *drawn[20:]]
    assert sorted(reached(sends)) == sorted(machine.targets)
