"""An index grows when an answer changes, and never falls: not over a restart, nor a clock that was set back."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aqua_compat.http.consul.index_book import FILE, REMEMBERED, IndexBook

NOW = 1_800_000_000.0


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_an_index_grows_exactly_when_its_own_answer_changes(tmp_path_factory, answers: list[tuple[str, str]]) -> None:
    book = IndexBook(tmp_path_factory.mktemp("book"), NOW)
    told: dict[str, tuple[int, str]] = {}
    for key, answer in answers:
        index = book.index_of(key, digest(answer))
        assert index >= 1
        if key in told:
            before, same = told[key]
            assert index == before if answer == same else index > before
        told[key] = index, answer


def test_no_index_falls_over_a_restart_with_whatever_clock(tmp_path: Path) -> None:
    last = 0
    for now in (NOW, NOW, NOW - 86_400, 0.0, -5.0, NOW + 86_400):
        book = IndexBook(tmp_path, now)
        for change in range(5):
            index = book.index_of("web", digest(f"{now} {change}"))
            assert index > last
            last = index


def test_what_is_reserved_is_reserved_again_before_it_is_used_up(tmp_path: Path) -> None:
    book = IndexBook(tmp_path, NOW, reserved=10)
    index = 0
    for change in range(35):
        index = book.index_of("web", change.to_bytes(4, "big"))
    assert IndexBook(tmp_path, 0.0).index_of("web", b"") > index


def test_what_is_forgotten_gets_a_greater_index(tmp_path: Path) -> None:
    book = IndexBook(tmp_path, NOW)
    first = book.index_of("web", digest("1"))
    for number in range(REMEMBERED):
        book.index_of(number, b"")
    assert book.index_of("web", digest("1")) > first


def test_a_file_that_cant_be_read_or_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff{")
    assert IndexBook(tmp_path, NOW).index_of("web", b"") > NOW * 1000
    assert IndexBook(tmp_path / "not there", NOW).index_of("web", b"") > NOW * 1000
