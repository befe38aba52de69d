"""The token by which a node joins a private network, given at each of its starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aqua_compat.api.full_node import identity_in
from aqua_compat.cli.failures import Failure
from aqua_compat.cli.kept_token import keep_token
from overlay.identity import Identity, public_key_of
from overlay.membership.gatekeeper import MEMBER, certificate_for
from overlay.membership.join_token import JoinToken
from overlay.rpc.network_files import NetworkFiles

ROOT, OTHER_ROOT = Identity.generate(), Identity.generate()
NOW = int(time.time())
HOUR = 3600


def given(path: Path, identity: Identity, begins: int, ends: int, root: Identity = ROOT) -> str:
    """A token in a file, for one node."""
    key = public_key_of(identity.peer_id)
    certificate = certificate_for(root, key, MEMBER, not_before=NOW + begins, expires_at=NOW + ends)
    path.write_text(JoinToken((public_key_of(root.peer_id),), (), (certificate,)).text())
    return str(path)


def kept_until(folder: Path, identity: Identity) -> int:
    token = NetworkFiles(folder).token(identity)
    assert token is not None
    return token.ends_at - NOW


def test_the_token_of_each_start_takes_no_newer_ones_place(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    identity = identity_in(folder)
    first = given(tmp_path / "first", identity, -9 * HOUR, HOUR)
    keep_token("", folder, first)
    assert kept_until(folder, identity) == HOUR
    keep_token("", folder, given(tmp_path / "newer", identity, -1, HOUR // 2))
    assert kept_until(folder, identity) == HOUR // 2, "the later given counts, also if it ends sooner"
    keep_token("", folder, first)
    assert kept_until(folder, identity) == HOUR // 2
    keep_token("", folder, given(tmp_path / "ended", identity, -9 * HOUR, -HOUR))  # as at a later start
    assert kept_until(folder, identity) == HOUR // 2
    keep_token("", folder, given(tmp_path / "other", identity, -9 * HOUR, HOUR, OTHER_ROOT))
    assert kept_until(folder, identity) == HOUR, "of another network each is newer"


def test_one_that_has_ended_is_refused_where_there_is_no_newer_one(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    with pytest.raises(Failure, match="has ended"):
        keep_token("", folder, given(tmp_path / "ended", identity_in(folder), -9 * HOUR, -HOUR))
