"""Certificates in files: of each chain a file, some of them in folders. They are checked as anything that comes from
elsewhere, and read again when they change.

Rules:
1. Of a folder the files count whose names end in `.cert`, the first `MAX_FILES` of them in the order of their names.
2. What is no plain file, too long, no chain, or isn't signed by whom it names, is passed over and told once in the log.
3. Whom a chain is for doesn't matter here: one folder may serve several identities.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from overlay.membership.certificate import Certificate, CertificateError, is_genuine
from overlay.tasks import in_thread
from registry.codes import Code
from registry.permission.certificate_text import MAX_TEXT, chain_in_text
from registry.permission.permitted import CODES

SUFFIX: Final = ".cert"
MAX_FILES: Final = 256  # of a folder

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class UnusableCertificate(Exception):
    """A file that holds no chain which could be shown. The text names the file, the cause and what to do."""


class _SeenFile(NamedTuple):
    """A file as it was when it was read last."""

    version: tuple[int, int, int]
    chain: tuple[Certificate, ...]
    """Empty where it couldn't be used."""


class CertificateFiles:
    """The chains in files and folders, as `Registry.use_certificates` takes them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._seen: dict[Path, _SeenFile] = {}

    async def __call__(self) -> list[tuple[Certificate, ...]]:
        """What the files hold at the moment."""
        seen, faults = await in_thread(_read, self._paths, self._seen)
        self._seen = seen
        for path, fault in faults:
            _log.warning("a certificate can't be used", file=str(path), error=fault)
        return [each.chain for each in seen.values() if each.chain]


def read_chain(path: Path) -> tuple[Certificate, ...]:
    """The chain in one file, signed by whom it names. Blocks. Raises UnusableCertificate."""
    try:
        # A pipe that nobody writes to would hold the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableCertificate(f"{path} is no file; give the file that holds the certificate")
            chain = chain_in_text(file.read(MAX_TEXT + 1))
    except OSError as error:
        raise UnusableCertificate(f"can't read the certificate {path}: {error.strerror}; check its path") from error
    except CertificateError as error:
        raise UnusableCertificate(f"the certificate {path} can't be used: {error} ({CODES[error.fault]})") from error
    if not all(map(is_genuine, chain)):
        raise UnusableCertificate(
            f"the certificate {path} can't be used: it isn't signed by whom it names; get it anew"
            f" ({Code.CERTIFICATE_SIGNATURE})"
        )
    return chain


def _read(paths: Sequence[Path], seen: dict[Path, _SeenFile]) -> tuple[dict[Path, _SeenFile], list[tuple[Path, str]]]:
    """What the files hold, and what was found wrong that wasn't told before. Blocks."""
    now: dict[Path, _SeenFile] = {}
    faults: list[tuple[Path, str]] = []
    for path in _files(paths):
        try:
            found = path.stat()
        except OSError as error:
            version, gone = (0, 0, error.errno or 0), f"can't read it: {error.strerror}"
            if path not in seen or seen[path].version != version:
                faults.append((path, gone))
            now[path] = _SeenFile(version, ())
            continue
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        if path in seen and seen[path].version == version:
            now[path] = seen[path]
            continue
        try:
            now[path] = _SeenFile(version, read_chain(path))
        except UnusableCertificate as error:
            faults.append((path, str(error)))
            now[path] = _SeenFile(version, ())
    return now, faults


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                found += sorted(each for each in path.iterdir() if each.suffix == SUFFIX)[:MAX_FILES]
            except OSError:  # told as any file that can't be read
                found.append(path)
        else:
            found.append(path)
    return list(dict.fromkeys(found))
