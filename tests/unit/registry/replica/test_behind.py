"""What a node lacks, when it asks for it, and whether its answers count meanwhile."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from registry.codes import Code
from registry.replica.behind import (
    FIRST_DELAY,
    LONGEST_DELAY,
    LONGEST_TOO_FAST,
    LONGEST_WITHOUT_ROOM,
    MAX_BEHIND,
    MAX_WORDS,
    MOST_TRIES,
    PAUSE,
    TOGETHER,
    Behind,
)


def test_what_the_disk_lost_doesnt_count_until_it_was_compared_after_the_loss() -> None:
    behind = Behind()
    assert behind.note("key", Code.STORAGE, 10.0)
    assert behind.is_behind("key")
    assert not behind.is_behind("another")
    behind.compared(["key"], since=9.0)
    assert behind.is_behind("key"), "that comparison began before the loss"
    behind.compared(["key"], since=10.0)
    assert not behind.is_behind("key")
    assert behind.wakes_at() == math.inf


@pytest.mark.parametrize("code", [Code.RECORD_FROM_FUTURE, Code.RATE_EXCEEDED, Code.DISK_FULL])
def test_what_anybody_can_have_refused_is_asked_for_but_makes_nobody_behind(code: Code) -> None:
    behind = Behind()
    assert behind.note("key", code, 0.0)
    assert not behind.is_behind("key")
    assert behind.due(FIRST_DELAY) == ["key"]
    behind.note("key", Code.STORAGE, 1.0)
    assert behind.is_behind("key"), "the graver cause counts"
    behind.note("key", code, 2.0)
    assert behind.is_behind("key")


@pytest.mark.parametrize("code", [Code.RECORD_SIGNATURE, Code.NOT_RESPONSIBLE, Code.VALUES_LIMIT_EXCEEDED])
def test_what_is_refused_for_good_isnt_asked_for(code: Code) -> None:
    behind = Behind()
    assert not behind.note("key", code, 0.0)
    assert len(behind) == 0


def test_the_gravest_is_asked_for_first_and_what_doesnt_fit_a_moment_later() -> None:
    behind = Behind()
    for number in range(10):
        behind.note(f"sent {number}", Code.RECORD_FROM_FUTURE, 0.0)
    behind.note("lost", Code.STORAGE, 1.0)
    at = 1.0 + FIRST_DELAY
    assert behind.due(at, 3) == ["lost"], "and whoever keeps it is asked, not whoever keeps most of the rest"
    assert behind.wakes_at() <= at
    assert behind.due(at, 3) == ["sent 0", "sent 1", "sent 2"]
    behind.compared(["lost"], since=at)
    assert behind.wakes_at() == at + PAUSE
    assert behind.due(at + 1.0, 20) == [], "others compare with nobody that often"
    behind.note("lost", Code.STORAGE, at + 1.0)
    assert behind.wakes_at() == at + 1.0 + FIRST_DELAY
    assert behind.due(at + 1.0 + FIRST_DELAY, 20) == ["lost"]
    assert behind.due(at + PAUSE, 7) == [f"sent {number}" for number in range(3, 10)], "who has waited longest"


def test_what_is_dated_ahead_keeps_nothing_that_was_sent_too_fast_from_being_asked_for() -> None:
    behind, asked = Behind(), set[str]()
    behind.note("too fast", Code.RATE_EXCEEDED, 0.0)
    for second in range(60):  # anybody can send what is dated ahead, all the time
        behind.note(f"ahead {second}", Code.RECORD_FROM_FUTURE, float(second))
        asked.update(behind.due(float(second), 8))
    assert "too fast" in asked


def test_who_has_compared_since_the_latest_loss_is_remembered() -> None:
    behind = Behind()
    behind.note("key", Code.STORAGE, 10.0)
    behind.note_word("one", ["key", "another"], since=9.0)
    assert behind.words("key") == set(), "that comparison began before the loss"
    behind.note_word("one", ["key", "another"], since=11.0)
    behind.note_word("two", ["key"], since=19.0)
    assert behind.words("key") == {"one", "two"}
    assert behind.words("another") == set(), "nothing is lacking"
    behind.note("key", Code.STORAGE, 20.0)
    assert behind.words("key") == set()
    for number in range(3 * MAX_WORDS):
        behind.note_word(str(number), ["key"], since=20.0)
    assert behind.words("key") == {str(number) for number in range(2 * MAX_WORDS, 3 * MAX_WORDS)}


@pytest.mark.parametrize("code", [Code.RECORD_FROM_FUTURE, Code.RATE_EXCEEDED, Code.DISK_FULL])
def test_what_anybody_can_have_refused_keeps_nobody_behind_for_what_the_disk_lost(code: Code) -> None:
    behind = Behind()
    behind.note("key", Code.STORAGE, 10.0)
    behind.note_word("one", ["key"], since=11.0)
    behind.note("key", code, 12.0)
    assert behind.words("key") == {"one"}
    assert behind.causes() == {"storage": 1}
    behind.compared(["key"], since=11.0)
    assert not behind.is_behind("key")
    assert behind.causes() == {code.value: 1}, "that is asked for yet"
    assert behind.words("key") == set()
    behind.compared(["key"], since=12.0)
    assert not behind.causes()


def asked_at(behind: Behind, until: float) -> list[float]:
    times = []
    while behind.wakes_at() <= until:
        now = behind.wakes_at()
        assert behind.due(now)
        times.append(now)
    return times


def test_it_is_asked_for_soon_and_then_every_eight_seconds() -> None:
    behind = Behind()
    behind.note("key", Code.STORAGE, 0.0)
    times = asked_at(behind, 60.0)
    assert times[0] == FIRST_DELAY
    assert max(later - earlier for earlier, later in pairwise(times)) == LONGEST_DELAY


def test_what_the_disk_lost_at_different_moments_is_soon_asked_for_together() -> None:
    behind, keys = Behind(), [str(number) for number in range(20)]
    for number, key_id in enumerate(keys):
        behind.note(key_id, Code.STORAGE, number * 0.7)
    behind.note("sent", Code.RECORD_FROM_FUTURE, 0.0)
    rounds = []
    while (now := behind.wakes_at()) <= 60.0:
        rounds.append((now, behind.due(now)))
    last = [(now, found) for now, found in rounds if now > 60.0 - LONGEST_DELAY and found != ["sent"]]
    assert len(last) <= LONGEST_DELAY / TOGETHER
    assert sorted(key_id for _, found in last for key_id in found) == sorted(keys), "and each as often as before"


def test_what_comes_along_early_is_waited_for_as_long_as_before() -> None:
    behind = Behind()
    behind.note("key", Code.STORAGE, 0.0)
    for number in range(3 * MOST_TRIES):
        behind.note(f"another {number}", Code.STORAGE, number * 0.1)
        assert "key" in behind.due(number * 0.1 + FIRST_DELAY)
    assert behind.is_patient("key")


def test_without_room_it_is_asked_for_rarely_but_at_once_when_there_is_room() -> None:
    behind = Behind()
    behind.note("key", Code.DISK_FULL, 0.0)
    times = asked_at(behind, 4000.0)
    assert times[-1] - times[-2] == LONGEST_WITHOUT_ROOM
    behind.room_again(4001.0)
    assert behind.due(4001.0) == ["key"]


def test_refusals_without_end_take_bounded_memory() -> None:
    behind = Behind()
    for number in range(MAX_BEHIND):
        assert behind.note(str(number), Code.DISK_FULL, 0.0)
    assert not behind.note("one more", Code.DISK_FULL, 0.0)
    assert behind.note("0", Code.DISK_FULL, 0.0)
    assert behind.causes() == {"disk-full": MAX_BEHIND}
    assert behind.note("lost", Code.STORAGE, 0.0), "nobody can have that happen"
    assert behind.is_behind("lost")
    assert len(behind) == MAX_BEHIND


def test_after_the_clock_was_wrong_it_is_behind_for_everything_until_a_comparison_that_began_since() -> None:
    behind = Behind()
    behind.note("key", Code.RECORD_FROM_FUTURE, 0.0)
    behind.note_everything(10.0)
    assert behind.is_behind("any") is False, "that is another question"
    assert behind.lacks_everything
    for now in (10.0, 12.0, 16.0):
        assert behind.is_everything_due(now)
    behind.clock_is_right(100.0)
    assert behind.is_everything_due(100.0), "at once"
    assert not behind.is_everything_due(100.5)
    assert behind.due(100.5) == []
    assert behind.due(101.0) == ["key"], "and what was refused for its time"
    behind.compared_everything(since=9.0)
    assert behind.lacks_everything
    behind.compared_everything(since=100.0)
    assert not behind.lacks_everything


def test_where_nobody_compares_it_isnt_behind_for_ever() -> None:
    behind = Behind()
    behind.note_everything(0.0)
    now, tries = 0.0, 0
    while behind.lacks_everything:
        now = max(now, behind.wakes_at())
        tries += behind.is_everything_due(now)
    assert tries == MOST_TRIES
    assert now <= 60
    assert behind.wakes_at() == math.inf


def test_others_are_asked_for_a_second_word_so_many_times_and_no_more() -> None:
    behind = Behind()
    assert not behind.is_patient("key"), "nothing is lacking"
    behind.note("key", Code.STORAGE, 0.0)
    for _ in range(MOST_TRIES):
        assert behind.is_patient("key")
        assert behind.due(behind.wakes_at()) == ["key"]
    assert behind.is_patient("key"), "the last one is under way"
    assert behind.due(behind.wakes_at()) == ["key"]
    assert not behind.is_patient("key")


def test_whoever_sends_too_fast_keeps_nothing_graver_from_being_remembered() -> None:
    behind = Behind()
    for number in range(MAX_BEHIND + 5):
        assert behind.note(f"{number}", Code.RATE_EXCEEDED, 0.0) is (number < MAX_BEHIND)
    assert behind.note("lost", Code.STORAGE, 1.0)
    assert behind.note("no room", Code.DISK_FULL, 1.0)
    assert behind.is_behind("lost")
    assert behind.causes() == {"rate-exceeded": MAX_BEHIND - 2, "storage": 1, "disk-full": 1}
    assert not behind.note("too fast", Code.OVERLOADED, 2.0)
    behind.compared([*map(str, range(MAX_BEHIND)), "lost"], since=3.0)
    assert behind.causes() == {"disk-full": 1}


def test_what_was_sent_too_fast_is_asked_for_more_and_more_rarely() -> None:
    behind, asked = Behind(), list[float]()
    behind.note("key", Code.RATE_EXCEEDED, 0.0)
    while len(asked) < 12:
        now = behind.wakes_at()
        assert behind.due(now) == ["key"]
        asked.append(now)
        behind.note("key", Code.RATE_EXCEEDED, now)
    assert asked[-1] - asked[-2] == LONGEST_TOO_FAST
