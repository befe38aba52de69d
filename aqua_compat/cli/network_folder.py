"""What the owner of a private network keeps, in the user's data folder, apart from the keys of nodes and of users."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from aqua_compat.cli.failures import Failure
from aqua_compat.cli.keys import key_path, user_data_folder

if TYPE_CHECKING:
    from overlay.identity import Identity
    from overlay.membership.revocation import Revocations

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415

DEFAULT_NETWORK: Final = "default"
_MOST_ISSUED: Final = 4096  # entries of what was issued, those that ended left out
_DATED_BACK: Final = 60  # seconds, for clocks that are behind


class Issued(msgspec.Struct, frozen=True):
    """One certificate that was given: `subject` is a peer, or an invitation key with which others join."""

    subject: str
    permits: str
    is_invitation: bool
    issued_at: int
    expires_at: int


class _NetworkFile(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    issued: tuple[Issued, ...] = ()
    owner: str = ""
    registrars: tuple[str, ...] = ()
    alias: str = ""


class NetworkFolder:
    """The folder of one network."""

    def __init__(self, name: str) -> None:
        """Raises Misuse for a name that can't be a file's."""
        self.name = key_path(name).stem
        self.folder: Path = user_data_folder() / "networks" / self.name
        self.root_file = self.folder / "root.json"

    def create(self) -> Identity:
        """Make the network's root key. Raises Failure where there is one."""
        from overlay.errors import IdentityError
        from overlay.identity import load_or_create_identity

        if self.root_file.exists():
            raise Failure(
                f"the network {self.name!r} exists already, in {self.folder}; choose another with --name,"
                " or move that folder away"
            )
        try:
            return load_or_create_identity(self.root_file)
        except IdentityError as error:
            raise Failure(str(error)) from None

    def root(self) -> Identity:
        """The network's root key. Raises Failure where there is none."""
        from overlay.errors import IdentityError
        from overlay.identity import load_or_create_identity

        if not self.root_file.exists():
            raise Failure(
                f"there is no network {self.name!r} here ({self.root_file}); make it with: aqua-registry network create"
            )
        try:
            return load_or_create_identity(self.root_file)
        except IdentityError as error:
            raise Failure(str(error)) from None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs of nodes that were told last."""
        return self._read().addresses

    @property
    def issued(self) -> tuple[Issued, ...]:
        """What was given and hasn't ended."""
        now = time.time()
        return tuple(entry for entry in self._read().issued if entry.expires_at > now)

    @property
    def owner(self) -> str:
        """Peer id of the owner whose names are the network's; empty where there is none."""
        return self._read().owner

    @property
    def alias(self) -> str:
        """The network's word for that owner; empty where there is none."""
        return self._read().alias

    @property
    def registrars(self) -> tuple[str, ...]:
        """Peer ids of the nodes that make resources of that owner's."""
        return self._read().registrars

    def note_owner(self, owner: str, alias: str, registrars: tuple[str, ...]) -> None:
        """Remember whose names the network's are, what its word for that owner is, and who makes its resources."""
        self._save(msgspec.structs.replace(self._read(), owner=owner, alias=alias, registrars=registrars))

    def note_addresses(self, addresses: tuple[str, ...]) -> None:
        """Remember where nodes are."""
        self._save(msgspec.structs.replace(self._read(), addresses=addresses))

    def note_issued(self, entry: Issued) -> None:
        """Remember that a certificate was given."""
        self._save(msgspec.structs.replace(self._read(), issued=(*self.issued, entry)[-_MOST_ISSUED:]))

    def begins_at(self, subject: bytes, now: int) -> int:
        """From when a new certificate for `subject` holds: after what was revoked of it."""
        from overlay.identity import public_key_of

        entry = self.revocations().of(public_key_of(self.root().peer_id), subject)
        return max(now - _DATED_BACK, entry.time + 1 if entry is not None else 0)

    def revocations(self) -> Revocations:
        """What was revoked here. Raises Failure."""
        from overlay.identity import public_key_of
        from overlay.membership.revocation import Revocations
        from overlay.rpc.network_files import NetworkFileError, read_revocations

        path = self.folder / "revocations"
        if not path.exists():
            return Revocations()
        try:
            return read_revocations(path, [public_key_of(self.root().peer_id)])
        except NetworkFileError as error:
            raise Failure(str(error)) from None

    def revoke(self, subject: bytes, now: int) -> Revocations:
        """Add an entry to the list, and save it; the list. It ends whatever was given until now, also where the clock
        was ahead when that was given. Raises Failure."""
        from overlay.identity import peer_id_of, public_key_of
        from overlay.membership.revocation import MOST_ENTRIES, Revocation
        from overlay.rpc.network_files import NetworkFileError, write_revocations

        before, root = self.revocations(), self.root()
        given = (each.issued_at for each in self.issued if each.subject == peer_id_of(subject))
        earlier = before.of(public_key_of(root.peer_id), subject)
        until = max(now, *given, earlier.time + 1 if earlier is not None else 0)  # `begins_at` is no later than that
        entry = Revocation.by(root, subject, until)
        if before.of(entry.root, subject) is None and len(before) >= MOST_ENTRIES:
            raise Failure(
                f"the list of this network is full, with {MOST_ENTRIES} entries; make a new root with"
                " `aqua-registry network create --name`, and invite those who may stay by that one"
            )
        after = before | [entry]
        try:
            write_revocations(self.folder / "revocations", after)
        except NetworkFileError as error:
            raise Failure(str(error)) from None
        return after

    def _read(self) -> _NetworkFile:
        path = self.folder / "network.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_NetworkFile) if path.exists() else _NetworkFile()
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            raise Failure(f"can't read {path}: {error}; move it away, and tell --address again") from None

    def _save(self, content: _NetworkFile) -> None:
        from overlay.rpc.network_files import NetworkFileError, write_network_file

        try:
            write_network_file(self.folder / "network.json", msgspec.json.encode(content) + b"\n")
        except NetworkFileError as error:
            raise Failure(str(error)) from None
