"""The seed of a key under a passphrase: Argon2id makes a key of it, which seals the seed (libsodium's secretbox).

Whoever gets the file alone, as by a copy of the disk, has to guess the passphrase, at 64 MiB and some 100 ms a guess.
The passphrase comes from a file that the environment names, or from systemd (`LoadCredential=`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from overlay.errors import IdentityError

if TYPE_CHECKING:
    from nacl.secret import SecretBox

# Few keys are sealed: what that needs is imported where one is.
# ruff: noqa: PLC0415

VARIABLE: Final = "AQUA_REGISTRY_PASSPHRASE_FILE"
CREDENTIAL: Final = "aqua-registry.passphrase"
"""Its name among systemd's credentials of a service."""
_LONGEST: Final = 1024  # bytes
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


def passphrase_of(environment: Mapping[str, str]) -> bytes | None:
    """The passphrase that an environment leads to; None where it leads to none. Raises `IdentityError`."""
    named, credentials = environment.get(VARIABLE), environment.get(_CREDENTIALS)
    path = Path(named) if named else Path(credentials) / CREDENTIAL if credentials else None
    if path is None or (not named and not path.exists()):
        return None
    try:
        with path.open("rb") as file:
            passphrase = file.read(_LONGEST + 1).rstrip(b"\r\n")
    except OSError as error:
        raise IdentityError(f"can't read the passphrase in {path}: {error.strerror}") from error
    if not 0 < len(passphrase) <= _LONGEST:
        raise IdentityError(f"the passphrase in {path} is empty, or longer than {_LONGEST} bytes")
    return passphrase


def own_passphrase() -> bytes | None:
    """The passphrase that this process's environment leads to. Raises `IdentityError`."""
    return passphrase_of(os.environ)


def sealed(seed: bytes, passphrase: bytes) -> tuple[bytes, bytes]:
    """A new salt, and the seed under the passphrase."""
    from nacl import pwhash, utils

    salt = utils.random(pwhash.argon2id.SALTBYTES)
    return salt, bytes(_box(passphrase, salt).encrypt(seed))


def opened(salt: bytes, box: bytes, passphrase: bytes) -> bytes | None:
    """The seed in `box`; None where the passphrase isn't the one, or the box was changed."""
    from nacl.exceptions import CryptoError

    try:
        return _box(passphrase, salt).decrypt(box)
    except (CryptoError, ValueError):
        return None


def _box(passphrase: bytes, salt: bytes) -> SecretBox:
    from nacl import pwhash
    from nacl.secret import SecretBox

    key = pwhash.argon2id.kdf(
        SecretBox.KEY_SIZE,
        passphrase,
        salt,
        opslimit=pwhash.argon2id.OPSLIMIT_INTERACTIVE,
        memlimit=pwhash.argon2id.MEMLIMIT_INTERACTIVE,
    )
    return SecretBox(key)
