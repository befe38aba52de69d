"""The bearer tokens of a node's HTTP server: their hashes, in its data folder.

A token has 256 random bits, so its plain sha256 tells nobody what it is. The file is read again when it changes: tokens
are made and withdrawn while the node runs.
"""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from aqua_compat.http.message import AccessLevel
from overlay.private_file import write_private
from registry.errors import StorageError

FILE: Final = "http-tokens.json"
PREFIX: Final = "aqr_"
MAX_TOKENS: Final = 1000
_LONGEST: Final = 256  # characters of what could be one


class TokenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a token. `sha256` in hexadecimal, `created` in seconds since 1970."""

    name: str
    grant: str
    sha256: str
    created: int


class _TokensFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[TokenEntry, ...] = ()


class Tokens:
    """The tokens of one node."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE
        self._name = str(self.path)
        self._version: tuple[int, int] | None = None
        self._entries: tuple[TokenEntry, ...] = ()

    def entries(self) -> tuple[TokenEntry, ...]:
        """Those that there are now. Raises StorageError when the file can't be read, or isn't what we write."""
        try:
            stat = os.stat(self._name)  # with each request: a Path takes longer
            version = (stat.st_mtime_ns, stat.st_ino)
            if version != self._version:
                self._entries = msgspec.json.decode(self.path.read_bytes(), type=_TokensFile).tokens
                self._version = version
        except FileNotFoundError:
            self._version, self._entries = None, ()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(
                f"the tokens in {self.path} can't be read: {error}; mend the file, or remove it and make new tokens"
            ) from None
        return self._entries

    def grant_of(self, token: str) -> AccessLevel | None:
        """What whoever shows this may do; None for what is no token of this node. Raises StorageError."""
        given = sha256(token[:_LONGEST].encode()).hexdigest()
        found: AccessLevel | None = None
        for entry in self.entries():  # all of them, each in constant time: how long it takes tells nothing
            if hmac.compare_digest(entry.sha256, given):
                found = AccessLevel[entry.grant.upper()]
        return found

    def create(self, name: str, grant: AccessLevel, now: int) -> str:
        """Makes a token, which is shown this once. Raises ValueError for a name in use, StorageError."""
        entries = self.entries()
        if any(entry.name == name for entry in entries):
            raise ValueError(f"there is a token {name!r} already; remove it first, or choose another name")
        if len(entries) >= MAX_TOKENS:
            raise ValueError(f"there are {MAX_TOKENS} tokens already; remove some")
        token = PREFIX + secrets.token_urlsafe(32)
        entry = TokenEntry(name, grant.name.lower(), sha256(token.encode()).hexdigest(), now)
        self._write((*entries, entry))
        return token

    def remove(self, name: str) -> bool:
        """Withdraws a token, at once; False if there is none of that name. Raises StorageError."""
        entries = self.entries()
        left = tuple(entry for entry in entries if entry.name != name)
        if len(left) < len(entries):
            self._write(left)
        return len(left) < len(entries)

    def _write(self, entries: tuple[TokenEntry, ...]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.path, msgspec.json.format(msgspec.json.encode(_TokensFile(entries))))
        except OSError as error:
            raise StorageError(f"can't write the tokens to {self.path}: {error.strerror}") from None
