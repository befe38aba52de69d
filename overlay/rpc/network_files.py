"""What a peer of a private network keeps on disk: the token by which it joined, and what the network's roots took back.

Both lie in a folder of their own, so that a change of the token is noticed without looking.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import cbor2
import structlog
import trio

from overlay.errors import OverlayError
from overlay.identity import Identity
from overlay.limits.decoder import DecodeError, decode
from overlay.membership.gatekeeper import MOST_ROOTS
from overlay.membership.join_token import LONGEST_TOKEN, JoinToken, TokenError, parse_token
from overlay.membership.revocation import ENTRY_BYTES, MOST_ENTRIES, Revocations, encode_entry, genuine
from overlay.private_file import write_private
from overlay.tasks import in_thread

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FOLDER: Final = "network"
TOKEN: Final = "token"  # noqa: S105 - a file's name
REVOCATIONS: Final = "revocations"
_NOTICED: Final = 500  # milliseconds after which a change of the folder is told
_LOOKED_INTO: Final = 5000  # milliseconds after which it is looked at anyway, and the thread that waits can end


class NetworkFileError(OverlayError):
    """A file of a private network can't be used; the text names the path and the remedy."""


def read_token(path: Path) -> JoinToken:
    """The token in a file. Raises `NetworkFileError`, `TokenError`."""
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_TOKEN + 1024)
    except OSError as error:
        raise NetworkFileError(f"can't read the token of a private network in {path}: {error.strerror}") from error
    try:
        return parse_token(content.decode(errors="replace"))
    except TokenError as error:
        raise TokenError(error.fault, f"{path}: {error}") from None


def write_network_file(path: Path, content: bytes) -> None:
    """Put `content` in place of a file, and make its folder when missing. Raises `NetworkFileError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, content)
    except OSError as error:
        raise NetworkFileError(f"can't write {path}: {error.strerror}") from error


class NetworkFiles:
    """The files of one peer; without a data folder, and with its token elsewhere, nothing is saved."""

    def __init__(self, data_dir: Path | None, token: str = "") -> None:
        """`token`: the path of the token, where it isn't in the data folder."""
        folder = data_dir / FOLDER if data_dir is not None else None
        self.token_path = Path(token) if token else folder / TOKEN if folder is not None else None
        self._revocations_path = folder / REVOCATIONS if folder is not None else None

    @property
    def exists(self) -> bool:
        """Whether there is a token, or should be."""
        return self.token_path is not None and (not self._is_in_data_folder or self.token_path.exists())

    def token(self, identity: Identity) -> JoinToken | None:
        """What the peer joined by; None where there is no file in its data folder. Raises `NetworkFileError`,
        `TokenError`."""
        if self.token_path is None or not self.exists:
            return None
        return read_token(self.token_path).joined(identity)

    def save_token(self, token: JoinToken) -> None:
        """Keep a token, which is no secret. Raises `NetworkFileError`."""
        assert self.token_path is not None
        assert not token.is_secret
        write_network_file(self.token_path, token.text().encode() + b"\n")

    def revocations(self, roots: Collection[bytes]) -> Revocations:
        """The list as it was saved. Raises `NetworkFileError`."""
        path = self._revocations_path
        if path is None or not path.exists():
            return Revocations()
        try:
            return read_revocations(path, roots)
        except NetworkFileError as error:
            raise NetworkFileError(f"{error}; move it away: other members tell what was in it") from error

    def save_revocations(self, revocations: Revocations) -> None:
        """Keep the list. Raises `NetworkFileError`."""
        if self._revocations_path is not None:
            write_revocations(self._revocations_path, revocations)

    async def watch_token(self, note_change: Callable[[], None]) -> None:
        """Call `note_change()` whenever the token's file may have changed, until cancelled.

        What changes in its folder is told at once. What the system doesn't tell is looked for: where the file is a
        link, as in Kubernetes' secrets, where the folder was replaced or isn't there yet, or can't be watched.
        """
        path = self.token_path
        if path is None:
            return
        stop = threading.Event()
        changes: Iterator[object] | None = None
        known = await in_thread(_version, path)
        note_change()  # it may have changed since it was read
        try:
            while True:
                try:
                    if changes is None:
                        changes = _changes_in(path.parent, stop)
                    has_ended = await in_thread(next, changes, None) is None
                except (OSError, RuntimeError) as error:  # no such folder, or too many are watched already
                    log.debug("the folder of the token can't be watched", folder=str(path.parent), error=str(error))
                    has_ended = True
                if has_ended:
                    changes = None
                    await trio.sleep(_LOOKED_INTO / 1000)
                found = await in_thread(_version, path)
                if found != known:
                    known = found
                    note_change()
        finally:
            stop.set()

    @property
    def _is_in_data_folder(self) -> bool:
        return self._revocations_path is not None and self.token_path == self._revocations_path.parent / TOKEN


def _changes_in(folder: Path, stop: threading.Event) -> Iterator[object]:
    """Blocks until something in a folder changes, or for `_LOOKED_INTO`, each time. Raises OSError, RuntimeError."""
    from watchfiles import watch  # noqa: PLC0415 - only in private networks

    return watch(
        folder,
        watch_filter=None,
        debounce=_NOTICED,
        step=_NOTICED,
        rust_timeout=_LOOKED_INTO,
        yield_on_timeout=True,
        stop_event=stop,
        recursive=False,
        raise_interrupt=False,
    )


def _version(path: Path) -> tuple[int, int, int] | None:
    """Differs when a file was changed or replaced, or what it is a link to; None where there is none. Blocks."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_revocations(path: Path, roots: Collection[bytes]) -> Revocations:
    """The list in a file, of these roots. Raises `NetworkFileError`."""
    most = MOST_ROOTS * MOST_ENTRIES
    try:
        with path.open("rb") as file:
            content = file.read(most * (ENTRY_BYTES + 8))
        entries = decode(content, max_bytes=len(content), max_items=most + 1)
    except OSError as error:
        raise NetworkFileError(f"can't read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise NetworkFileError(f"{path} is damaged") from error
    if not isinstance(entries, list):
        raise NetworkFileError(f"{path} is damaged")
    return Revocations(genuine(entries, roots))


def write_revocations(path: Path, revocations: Revocations) -> None:
    """Put a list in place of the one in a file. Raises `NetworkFileError`."""
    write_network_file(path, cbor2.dumps([encode_entry(entry) for entry in revocations]))
