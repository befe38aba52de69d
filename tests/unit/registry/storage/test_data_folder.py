"""A data folder is private, and one process's at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import StorageError
from registry.storage.data_folder import claimed
from registry.storage.database import open_database
from tests.paths import ROOT

CLAIM = """
import sys, time
from pathlib import Path
from registry.storage.data_folder import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_made_private_and_can_be_claimed_again_after_its_release(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "data"
    for _ in range(2):
        with claimed(folder) as given:
            assert given == folder
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / "lock").stat().st_mode & 0o777 == 0o600


def test_what_others_could_read_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    database = folder / "registry.sqlite"
    database.touch(0o644)
    (folder / "identity.json").touch(0o600)
    with claimed(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        connection = open_database(database)
        connection.execute("INSERT INTO totals VALUES ('of this test', 1)")
        assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
            "identity.json": 0o600,
            "lock": 0o600,
            "registry.sqlite": 0o600,
            "registry.sqlite-wal": 0o600,
            "registry.sqlite-shm": 0o600,
        }
        connection.close()


@pytest.mark.parametrize(
    "name",
    [
        ".incarnation.k1ll3d",
        "agent-registered.json",
        "agent.json",
        "bootstrap-pins.json",
        "command.lock",
        "consul-index.json",
        "http-tokens.json",
        "http.sock",
    ],
)
def test_what_a_node_keeps_beside_its_database_is_its_own(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    (folder / name).touch()
    with claimed(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_holds_other_things_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "of somebody else").touch()
    for _ in range(2):  # also when our own files are there
        with claimed(folder):
            assert folder.stat().st_mode & 0o7777 == 0o1777
            open_database(folder / "registry.sqlite").close()
        assert (folder / "registry.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_database_behind_a_symbolic_link_is_refused_and_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    link = tmp_path / "registry.sqlite"
    link.symlink_to(elsewhere)
    with pytest.raises(StorageError, match="symbolic link"):
        open_database(link)
    assert elsewhere.read_bytes() == b"precious"


def test_a_folder_of_another_process_is_refused_until_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(StorageError, match="in use by another process"), claimed(tmp_path):
            pass
        other.kill()
        other.wait()
        with claimed(tmp_path):
            pass


def test_a_place_that_is_no_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StorageError, match=r"can.t use the data folder .*file"), claimed(file):
        pass
