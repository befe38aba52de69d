"""Takes the token with which a node joins a private network, for this and later starts."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aqua_compat.cli.failures import Failure

if TYPE_CHECKING:
    import structlog

    from overlay.identity import Identity
    from overlay.membership.join_token import JoinToken
    from overlay.rpc.network_files import NetworkFiles

# Commands import what they need when they run: `--help` is to answer at once.
# ruff: noqa: PLC0415


def keep_token(token_path: str, folder: Path, file: str) -> None:
    """Keep what a token says, in a file or from stdin ("-"), at `token_path`, or in a node's data folder where that is
    empty. One that was given later is kept: where each start is told of the first one, as in a container, that would
    take the place of what renewed it. Raises Failure."""
    from aqua_compat.api.full_node import identity_in
    from overlay.errors import OverlayError
    from overlay.membership.join_token import LONGEST_TOKEN, parse_token
    from overlay.rpc.network_files import NetworkFiles, read_token

    try:
        given = parse_token(sys.stdin.read(LONGEST_TOKEN)) if file == "-" else read_token(Path(file))
        identity = identity_in(folder)
        token = given.joined(identity)
        files = NetworkFiles(folder, token_path)
        saved = _saved_token(files, identity)
        if saved is not None and saved.is_for_member and token.is_older_than(saved):
            _log().info("the token of this node is newer than the one given, and stays", ends_at=saved.ends_at)
            return
        token.check(identity.peer_id, int(time.time()))
        if not token.is_for_member:
            raise Failure(
                "the token is for light clients; have the network's owner run `aqua-registry network invite --member`"
            )
        files.save_token(token)
    except OverlayError as error:
        raise Failure(str(error)) from None


def _saved_token(files: NetworkFiles, identity: Identity) -> JoinToken | None:
    """By which this node joined before; None where there is none, or what is there is of no use."""
    from overlay.errors import OverlayError

    try:
        return files.token(identity)
    except OverlayError:
        return None


def _log() -> structlog.stdlib.BoundLogger:
    import structlog

    logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
    return logger
