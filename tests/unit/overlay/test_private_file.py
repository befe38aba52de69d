"""What is written is there for its owner alone, complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay.private_file import write_private


def test_a_file_is_its_owners_alone_also_in_place_of_one_that_wasnt(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for content in (b"first", b"second"):
        write_private(path, content)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "kept.json"
    elsewhere.write_bytes(b"precious")
    path.symlink_to(elsewhere)
    write_private(path, b"ours")
    assert elsewhere.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert path.read_bytes() == b"ours"


def test_what_cant_be_written_leaves_the_file_as_it_was_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "kept.json"
    write_private(path, b"first")
    monkeypatch.setattr("overlay.private_file.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_what_cant_be_put_in_its_place_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "kept.json" / "a folder").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "kept.json", b"seed")
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]
