"""Each run of a peer's process is later than the one before, and none fails because that can't be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay.presence.incarnation import next_incarnation


def test_each_run_is_later_than_the_one_before_though_the_clock_goes_back(tmp_path: Path) -> None:
    first = next_incarnation(tmp_path / "data", 1000.0)
    assert first == 1_000_000
    assert next_incarnation(tmp_path / "data", 400.0) == first + 1
    assert next_incarnation(tmp_path / "data", 2000.0) == 2_000_000


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 64])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "incarnation").write_bytes(content)
    assert next_incarnation(tmp_path, 5.0) == 5000
    assert next_incarnation(tmp_path, 5.0) == 5001


def test_what_cant_be_kept_stops_nobody() -> None:
    full = Path("/dev/full")  # a file where a folder should be: nothing can be written below it
    assert next_incarnation(full, 5.0) == 5000
    assert next_incarnation(full, 6.0) == 6000
