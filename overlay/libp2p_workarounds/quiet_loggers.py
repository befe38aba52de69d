"""Fault: libp2p logs expected events as warnings and errors, installs a root handler, and logs without structure.

`swarm_connection.py` calls functions of the `logging` module itself, which configures the root logger on first use.

Remove when libp2p logs what a peer did wrong at DEBUG, through its own loggers.
"""

from __future__ import annotations

import logging
import os


def quieten_libp2p() -> None:
    """Let nothing below CRITICAL through from libp2p, unless AQUA_DEBUG_LIBP2P is set; give the root a handler.

    The handler discards everything, so that whatever the application configures stays the only output.
    """
    if os.environ.get("AQUA_DEBUG_LIBP2P"):
        return
    for name in ("libp2p", "async_service", "libp2p.anyio_service"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
