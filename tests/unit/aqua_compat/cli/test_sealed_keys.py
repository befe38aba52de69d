"""Keys are put under a passphrase and taken from it by commands, and show who they are without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aqua_compat.cli.main import cli
from overlay.sealed_seed import VARIABLE


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_a_key_is_sealed_shown_without_its_passphrase_and_unsealed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    peer_id = ran("key", "new").stdout.strip()
    id_of_web = ran("resource", "id", "web").stdout
    file = tmp_path / "aqua-registry" / "keys" / "default.json"
    without = ran("key", "seal")
    assert (without.exit_code, f"name that by {VARIABLE}" in without.stderr) == (2, True)
    assert "ed25519_seed" in file.read_text()

    (tmp_path / "words").write_text("open\n")
    (tmp_path / "other").write_text("shut\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "words"))
    assert ran("key", "seal").stdout == f"sealed {peer_id}\n"
    assert "ed25519_seed" not in file.read_text()
    for passphrase in (None, "other", "words"):
        if passphrase is None:
            monkeypatch.delenv(VARIABLE)
        else:
            monkeypatch.setenv(VARIABLE, str(tmp_path / passphrase))
        assert ran("key", "show").stdout == f"default\t{peer_id}\t{file}\n"
        assert ran("resource", "id", "web").stdout == id_of_web

    monkeypatch.setenv(VARIABLE, str(tmp_path / "other"))
    wrong = ran("key", "unseal")
    assert (wrong.exit_code, f"the passphrase isn't that of the key in {file}" in wrong.stderr) == (1, True)
    monkeypatch.delenv(VARIABLE)
    none = ran("key", "unseal")
    assert (none.exit_code, f"the key in {file} is sealed: name the file" in none.stderr) == (1, True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "words"))
    assert ran("key", "unseal").stdout == f"unsealed {peer_id}\n"
    assert "ed25519_seed" in file.read_text()


def test_the_key_of_a_node_is_sealed_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "words").write_text("open\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "words"))
    none = ran("key", "seal", "--data-dir", str(tmp_path))
    assert (none.exit_code, f"there is no key {tmp_path / 'identity.json'}" in none.stderr) == (1, True)
    peer_id = ran("key", "new", "mine").stdout.strip()
    (tmp_path / "aqua-registry" / "keys" / "mine.json").rename(tmp_path / "identity.json")
    assert ran("key", "unseal", "--data-dir", str(tmp_path)).stdout == f"unsealed {peer_id}\n"
    assert ran("key", "seal", "--data-dir", str(tmp_path)).stdout == f"sealed {peer_id}\n"
    assert "ed25519_seed" not in (tmp_path / "identity.json").read_text()
