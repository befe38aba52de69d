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
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    for name, logger in logging.root.manager.loggerDict.items():
        # Some modules set a level of their own, so that of their parent doesn't reach them.
        if name.startswith("libp2p.") and isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
