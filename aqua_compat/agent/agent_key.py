"""The key under which an agent registers, where that isn't its node's own, and keys under which it did before.

It remembers in which files these were: what was registered under one of them ends as long as its file is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import structlog

from aqua_compat.agent.memory import Remembered
from overlay.errors import IdentityError
from overlay.identity import Identity, load_or_create_identity
from registry.client.certificate_files import read_chain
from registry.permission.policy import key_of

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AgentKey(NamedTuple):
    """A key, and the file that it is in."""

    identity: Identity
    file: str


class ForeignCertificate(Exception):
    """A certificate that another peer may show. The text names setting, file, both peers, and the remedy."""


def read_agent_key(file: Path, place: str) -> AgentKey:
    """The key in a file. `place`: where that is named. Raises IdentityError."""
    path = file.expanduser().absolute()
    if not path.is_file():
        raise IdentityError(
            f"{place}: agent.key: there is no file {path}; `aqua-registry key new NAME` makes a key, and `aqua-registry"
            " key show NAME --json` tells its file"
        )
    try:
        return AgentKey(load_or_create_identity(path), str(path))
    except IdentityError as error:
        raise IdentityError(f"{place}: agent.key: {error}") from None


def check_certificates(path: Path, peer_id: str, place: str) -> None:
    """Raises UnusableCertificate or ForeignCertificate where `path`, unless it is a folder, has no chain for the peer.
    `place`: where it is named."""
    if path.is_dir():
        return
    if read_chain(path)[-1].subject != key_of(peer_id):
        raise ForeignCertificate(
            f"{place}: agent.certificates: the certificate {path} isn't for agent.key, which is {peer_id}; name one"
            f" that the owner made by `aqua-registry cert issue --for {peer_id}`"
        )


def earlier_keys(remembered: Iterable[Remembered], but: Iterable[str]) -> list[Identity]:
    """The keys under which the agent registered what it remembers, as far as they are still in their files. `but`: the
    peer ids of those that it has."""
    found: dict[str, Identity] = {}
    known = {"", *but}
    for one in remembered:
        if one.issued_by in known:
            continue
        known.add(one.issued_by)
        try:
            path = Path(one.key_file)
            identity = load_or_create_identity(path) if path.is_file() else None
        except IdentityError as error:
            _log.debug("a key of before can't be read", file=one.key_file, error=str(error))
            continue
        if identity is not None and identity.peer_id == one.issued_by:
            found[identity.peer_id] = identity
    return list(found.values())
