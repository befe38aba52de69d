"""Who a peer is: an Ed25519 key pair, its peer id, and the file that keeps it.

A peer id is base58 of an identity multihash of the public key's protobuf (libp2p's peer-ids specification), so the
public key of a peer is read from its id.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import base58
import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from overlay import sealed_seed
from overlay.errors import IdentityError, PeerIdError
from overlay.private_file import write_private, written_beside

# multihash identity (0x00), 36 bytes; protobuf: field 1 key type = 1 (Ed25519), field 2 = 32 bytes of key.
_PEER_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_SEED_LENGTH = 32
_PEER_ID_TEXT_LIMIT = 64  # base58 of 38 bytes takes 52 characters; decoding takes quadratic time


class Identity:
    """An Ed25519 key pair. Immutable; its seed is in no text that it makes of itself."""

    __slots__ = ("_key", "peer_id")

    peer_id: str

    def __init__(self, key: SigningKey) -> None:
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "peer_id", peer_id_of(bytes(key.verify_key)))

    @classmethod
    def generate(cls) -> Identity:
        """A new random identity."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte Ed25519 seed. Raises `IdentityError` for any other length."""
        if len(seed) != _SEED_LENGTH:
            raise IdentityError(f"an Ed25519 seed has {_SEED_LENGTH} bytes, not {len(seed)}")
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes: for deriving keys and saving, never for logs or the network."""
        return bytes(self._signing_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._signing_key.sign(message).signature

    @property
    def _signing_key(self) -> SigningKey:
        key = object.__getattribute__(self, "_key")
        assert isinstance(key, SigningKey)
        return key

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an identity is immutable: {name} can't be set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.peer_id == self.peer_id

    def __hash__(self) -> int:
        return hash(self.peer_id)

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    def __reduce__(self) -> str:
        raise TypeError("an identity isn't pickled, so that its seed goes nowhere by accident")


class _IdentityFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an identity file holds, as JSON; the peer id is there for people and as a check."""

    peer_id: str
    ed25519_seed: str = ""
    """64 hexadecimal digits; none where the seed is sealed."""
    salt: str = ""
    sealed_seed: str = ""
    """The seed under a passphrase (`overlay.sealed_seed`), in hexadecimal digits."""

    def __repr__(self) -> str:
        return f"_IdentityFile({self.peer_id})"


def peer_id_of(public_key: bytes) -> str:
    """The base58 peer id of a 32-byte Ed25519 public key."""
    return base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii")


@lru_cache(maxsize=16_384)
def public_key_of(peer_id: str) -> bytes:
    """The 32-byte Ed25519 public key inlined in `peer_id`. Raises `PeerIdError` when it's no such id.

    A key has one id: what base58 would forgive, such as whitespace at the end, would be another name of the same peer.
    """
    try:
        raw = base58.b58decode(peer_id) if len(peer_id) <= _PEER_ID_TEXT_LIMIT else b""
    except ValueError:
        raw = b""
    if len(raw) != len(_PEER_ID_PREFIX) + 32 or not raw.startswith(_PEER_ID_PREFIX):
        raise PeerIdError(f"not the peer id of an Ed25519 key: {peer_id[:_PEER_ID_TEXT_LIMIT]!r}")
    public_key = raw[len(_PEER_ID_PREFIX) :]
    if peer_id_of(public_key) != peer_id:
        raise PeerIdError(f"not as its own peer writes its id: {peer_id!r}")
    return public_key


def is_peer_id(text: str) -> bool:
    """Whether a text is the id of a peer with an Ed25519 key, as that writes it."""
    try:
        public_key_of(text)
    except PeerIdError:
        return False
    return True


def verify(peer_id: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of the peer over `message`. Raises `PeerIdError` for an invalid id."""
    public_key = public_key_of(peer_id)
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def load_or_create_identity(
    path: Path, *, passphrase: Callable[[], bytes | None] = sealed_seed.own_passphrase
) -> Identity:
    """The identity kept at `path`, made there (mode 0600, folders too) when nothing is.

    `passphrase`: asked for where its seed is sealed, and where it is made: then it is sealed, if there is one.

    Raises `IdentityError`, with the path and what to do, when the file can't be read, is readable by others, or holds
    something else. The file appears complete or not at all; of two processes that make it at once both get the same.
    """
    try:
        return _load(path, passphrase)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise IdentityError(
            f"can't read the identity file {path}: {error.strerror}; check its owner and mode"
        ) from error
    try:
        _create(path, Identity.generate(), passphrase())
        return _load(path, passphrase)
    except OSError as error:
        raise IdentityError(
            f"can't create the identity file {path}: {error.strerror}; check that its folder is writable"
        ) from error


def peer_id_in(path: Path) -> str:
    """The peer id of the key in an identity file. Raises `IdentityError`.

    It needs no passphrase: where the seed is sealed, it is what the file names.
    """
    try:
        parsed = _read(path)
    except OSError as error:
        raise IdentityError(f"can't read the identity file {path}: {error.strerror}") from error
    if not parsed.sealed_seed:
        return _identity_of(path, parsed, lambda: None).peer_id
    if not is_peer_id(parsed.peer_id):
        raise _damaged(path)
    return parsed.peer_id


def replace_passphrase(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    """Have the seed in an identity file be under a passphrase, or under none. Raises `IdentityError`."""
    try:
        write_private(path, _content(identity, passphrase))
        _sync_folder(path)
    except OSError as error:
        raise IdentityError(f"can't write the identity file {path}: {error.strerror}") from error


def _read(path: Path) -> _IdentityFile:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(4096)
    if mode & 0o077:
        raise IdentityError(f"the identity file {path} is open to other users (mode {mode:04o}); run: chmod 600 {path}")
    try:
        return msgspec.json.decode(content, type=_IdentityFile)
    except (msgspec.DecodeError, ValueError):
        # Without the cause: its text could quote what the file holds.
        raise _damaged(path) from None


def _damaged(path: Path) -> IdentityError:
    return IdentityError(
        f"the identity file {path} is damaged; restore it from a backup, or move it away to start as a new peer"
    )


def _load(path: Path, passphrase: Callable[[], bytes | None]) -> Identity:
    return _identity_of(path, _read(path), passphrase)


def _identity_of(path: Path, parsed: _IdentityFile, passphrase: Callable[[], bytes | None]) -> Identity:
    try:
        salt, box, seed = map(bytes.fromhex, (parsed.salt, parsed.sealed_seed, parsed.ed25519_seed))
    except ValueError:
        raise _damaged(path) from None
    if box:
        seed = _unsealed(path, salt, box, passphrase())
    if len(seed) != _SEED_LENGTH:
        raise _damaged(path)
    identity = Identity.from_seed(seed)
    if identity.peer_id != parsed.peer_id:
        raise IdentityError(
            f"the identity file {path} holds a key that isn't of the peer id that it names; restore it from a backup"
        )
    return identity


def _unsealed(path: Path, salt: bytes, box: bytes, passphrase: bytes | None) -> bytes:
    if passphrase is None:
        raise IdentityError(
            f"the key in {path} is sealed: name the file with its passphrase by {sealed_seed.VARIABLE}, or give it as"
            f" systemd's credential {sealed_seed.CREDENTIAL}"
        )
    seed = sealed_seed.opened(salt, box, passphrase)
    if seed is None:
        raise IdentityError(f"the passphrase isn't that of the key in {path}, or the file is damaged")
    return seed


def _create(path: Path, identity: Identity, passphrase: bytes | None) -> None:
    """Write `identity` to `path` unless something is there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = written_beside(path, _content(identity, passphrase))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path)


def _content(identity: Identity, passphrase: bytes | None) -> bytes:
    """What a file with the identity holds."""
    if passphrase is None:
        form = _IdentityFile(peer_id=identity.peer_id, ed25519_seed=identity.seed.hex())
    else:
        salt, box = sealed_seed.sealed(identity.seed, passphrase)
        form = _IdentityFile(peer_id=identity.peer_id, salt=salt.hex(), sealed_seed=box.hex())
    return msgspec.json.encode(form) + b"\n"


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
