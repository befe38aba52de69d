from __future__ import annotations

import json
import os
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from overlay.errors import IdentityError, PeerIdError
from overlay.identity import Identity, load_or_create_identity, public_key_of, verify


def test_the_same_seed_is_the_same_peer() -> None:
    identity = Identity.from_seed(bytes(range(32)))
    assert identity == Identity.from_seed(identity.seed)
    assert identity != Identity.generate()
    assert identity.peer_id.startswith("12D3KooW")


def test_libp2p_derives_the_same_peer_id() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    identity = Identity.generate()
    assert str(ID.from_pubkey(create_new_key_pair(identity.seed).public_key)) == identity.peer_id


def test_a_signature_is_good_for_its_peer_and_message_alone() -> None:
    identity, other = Identity.generate(), Identity.generate()
    signature = identity.sign(b"message")
    assert len(signature) == 64
    assert verify(identity.peer_id, b"message", signature)
    assert not verify(identity.peer_id, b"another message", signature)
    assert not verify(other.peer_id, b"message", signature)
    assert not verify(identity.peer_id, b"message", signature[:-1])
    assert not verify(identity.peer_id, b"message", b"")


@pytest.mark.parametrize(
    "text", ["", "x", "0OIl", "12D3KooW", "Qm" + "1" * 44, "1" * 100_000, "12D3KooWé", "12D3 KooW"]
)
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(PeerIdError):
        public_key_of(text)


@pytest.mark.parametrize("end", [" ", "\n", "\t", "\x0b", "\x0c\r", "\x1c", "\x85", "\u2003"])
def test_a_peer_has_one_id(end: str) -> None:
    identity = Identity.generate()
    for alias in (identity.peer_id + end, end + identity.peer_id, "1" + identity.peer_id):
        with pytest.raises(PeerIdError):
            public_key_of(alias)
        with pytest.raises(PeerIdError):
            verify(alias, b"message", identity.sign(b"message"))


def test_the_seed_shows_in_no_text() -> None:
    identity = Identity.generate()
    for text in (repr(identity), str(identity), f"{identity}", repr([identity])):
        assert identity.seed.hex() not in text
        assert repr(identity.seed) not in text
    with pytest.raises(TypeError):
        pickle.dumps(identity)
    with pytest.raises(AttributeError):
        identity.peer_id = "other"  # type: ignore[misc]


def test_the_identity_file_is_private_and_lasts(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "identity.json"
    identity = load_or_create_identity(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_identity(path) == identity
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.json"]


def test_processes_that_start_at_once_get_one_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        identities = list(pool.map(load_or_create_identity, [tmp_path / "identity.json"] * 32))
    assert len(set(identities)) == 1


def test_an_identity_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match=f"chmod 600 {path}"):
        load_or_create_identity(path)


@pytest.mark.parametrize("content", ["", "nonsense", "{}", '{"peer_id": "x", "ed25519_seed": "abcd"}', "[" * 3000])
def test_a_damaged_identity_file_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=str(path)):
        load_or_create_identity(path)
    assert path.read_text() == content


def test_an_identity_file_with_the_key_of_another_peer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    load_or_create_identity(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"peer_id": Identity.generate().peer_id}))
    with pytest.raises(IdentityError, match="isn't of the peer id"):
        load_or_create_identity(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(IdentityError, match="writable"):
        load_or_create_identity(tmp_path / "identity.json")


def test_an_identity_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=str(tmp_path)):
        load_or_create_identity(tmp_path)
