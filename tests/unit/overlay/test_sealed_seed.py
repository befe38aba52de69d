"""Keys under a passphrase: made so, used, and refused without it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from overlay.errors import IdentityError
from overlay.identity import Identity, load_or_create_identity, peer_id_in, replace_passphrase
from overlay.sealed_seed import CREDENTIAL, VARIABLE, opened, passphrase_of, sealed


def test_a_seed_comes_out_with_its_passphrase_alone() -> None:
    seed = bytes(range(32))
    salt, box = sealed(seed, b"open")
    assert opened(salt, box, b"open") == seed
    assert opened(salt, box, b"Open") is None
    assert opened(salt, box[:-1] + bytes([box[-1] ^ 1]), b"open") is None
    assert opened(salt[:-1], box, b"open") is None
    assert seed not in box
    assert sealed(seed, b"open") != (salt, box)


def test_a_key_is_made_sealed_where_there_is_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    made = load_or_create_identity(path, passphrase=lambda: b"open")
    assert made.seed.hex() not in path.read_text()
    assert peer_id_in(path) == made.peer_id
    assert load_or_create_identity(path, passphrase=lambda: b"open") == made
    with pytest.raises(IdentityError, match=f"is sealed.*{VARIABLE}.*{CREDENTIAL}"):
        load_or_create_identity(path, passphrase=lambda: None)
    with pytest.raises(IdentityError, match="isn't that of the key"):
        load_or_create_identity(path, passphrase=lambda: b"wrong")


def test_a_passphrase_is_put_on_and_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    made = load_or_create_identity(path, passphrase=lambda: None)
    assert made.seed.hex() in path.read_text()
    for passphrase in (b"one", b"two"):
        replace_passphrase(path, made, passphrase)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert load_or_create_identity(path, passphrase=lambda: passphrase) == made  # noqa: B023 - called at once
    replace_passphrase(path, made, None)
    assert load_or_create_identity(path, passphrase=lambda: None) == made
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("field", ["salt", "sealed_seed"])
def test_a_sealed_key_that_rotted_is_told(tmp_path: Path, field: str) -> None:
    path = tmp_path / "identity.json"
    load_or_create_identity(path, passphrase=lambda: b"open")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {field: content[field][:-2]}))
    with pytest.raises(IdentityError, match="damaged"):
        load_or_create_identity(path, passphrase=lambda: b"open")


def test_the_peer_of_a_damaged_file_isnt_told(tmp_path: Path) -> None:
    for passphrase in (b"open", None):
        path = tmp_path / f"{passphrase is None}.json"
        load_or_create_identity(path, passphrase=lambda: passphrase)  # noqa: B023 - called at once
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peer_id": "nobody"}))
        with pytest.raises(IdentityError, match=r"damaged|isn't of the peer id"):
            peer_id_in(path)


def test_passphrases_come_from_a_file_or_from_systemd(tmp_path: Path) -> None:
    (tmp_path / CREDENTIAL).write_text("of systemd\n")
    (tmp_path / "own").write_text("my own\r\n")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert passphrase_of({}) is None
    assert passphrase_of(credentials) == b"of systemd"
    assert passphrase_of({**credentials, VARIABLE: str(tmp_path / "own")}) == b"my own"
    assert passphrase_of({"CREDENTIALS_DIRECTORY": str(tmp_path / "elsewhere")}) is None
    for name, content in (("empty", "\n"), ("long", "x" * 2000)):
        (tmp_path / name).write_text(content)
        with pytest.raises(IdentityError, match="empty, or longer"):
            passphrase_of({VARIABLE: str(tmp_path / name)})
    with pytest.raises(IdentityError, match="can't read the passphrase"):
        passphrase_of({VARIABLE: str(tmp_path / "missing")})


def test_nothing_of_the_seed_is_told_by_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    made = Identity.generate()
    path.touch(0o600)
    replace_passphrase(path, made, b"open")
    with pytest.raises(IdentityError) as raised:
        load_or_create_identity(path, passphrase=lambda: b"wrong")
    assert made.seed.hex() not in str(raised.value)
