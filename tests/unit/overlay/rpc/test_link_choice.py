"""Which of two links stays."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from overlay.rpc.link_choice import Choice, choose
from overlay.rpc.protocol import Hello
from tests.unit.overlay.memory_network import LARGER, SMALLER

RUN, ANOTHER_RUN = Hello(1, True, b"session1"), Hello(1, True, b"session2")
WINDOW = 5.0


@dataclass(frozen=True)
class Side:
    """A link, as far as it is compared."""

    opened_by: str
    remote: Hello | None = RUN
    up_since: float = 100.0
    usable: bool = True


def test_first_link_needs_no_choice() -> None:
    assert choose(Side(SMALLER), None, WINDOW) is Choice.FIRST


@pytest.mark.parametrize(
    ("current_by", "new_by", "later", "expected"),
    [
        (SMALLER, LARGER, 0.0, Choice.KEEP),
        (SMALLER, LARGER, WINDOW, Choice.KEEP),
        (SMALLER, LARGER, WINDOW + 0.1, Choice.REPLACE),
        (LARGER, SMALLER, 0.0, Choice.REPLACE),
        (LARGER, SMALLER, WINDOW + 0.1, Choice.REPLACE),
        (SMALLER, SMALLER, 0.0, Choice.REPLACE),
        (SMALLER, SMALLER, WINDOW + 0.1, Choice.REPLACE),
        (LARGER, LARGER, 0.0, Choice.REPLACE),
        (LARGER, LARGER, WINDOW + 0.1, Choice.REPLACE),
    ],
)
def test_of_two_links_stays(current_by: str, new_by: str, later: float, expected: Choice) -> None:
    current, new = Side(current_by), Side(new_by, up_since=100.0 + later)
    assert choose(new, current, WINDOW) is expected


@pytest.mark.parametrize("opened_by", list(itertools.product((SMALLER, LARGER), repeat=2)))
@pytest.mark.parametrize("later", [0.0, 100.0])
@pytest.mark.parametrize(("remote", "usable"), [(ANOTHER_RUN, True), (ANOTHER_RUN, False), (None, False)])
def test_link_of_another_run_is_ended(
    opened_by: tuple[str, str], later: float, remote: Hello | None, usable: bool
) -> None:
    current = Side(opened_by[0], remote=remote, usable=usable)
    assert choose(Side(opened_by[1], up_since=100.0 + later), current, WINDOW) is Choice.RESTARTED


@pytest.mark.parametrize("opened_by", list(itertools.product((SMALLER, LARGER), repeat=2)))
@pytest.mark.parametrize("later", [0.0, 100.0])
def test_link_without_use_is_replaced(opened_by: tuple[str, str], later: float) -> None:
    """It was closed on purpose just now: the peer came to no harm, and nobody has to be told."""
    current = Side(opened_by[0], usable=False)
    assert choose(Side(opened_by[1], up_since=100.0 + later), current, WINDOW) is Choice.REPLACE


def test_both_sides_choose_the_same_link_whichever_is_up_first() -> None:
    """Each side sees the two come up in an order of its own."""
    smaller, larger = Side(SMALLER), Side(LARGER)
    for first, second in itertools.permutations((smaller, larger)):
        stays = first if choose(second, first, WINDOW) is Choice.KEEP else second
        assert stays is smaller
