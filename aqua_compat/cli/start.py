"""Where the command `aqua-registry` begins: it heeds signals before anything that takes long is imported."""

from __future__ import annotations

import signal
import sys
from typing import Final

from aqua_compat.cli.signals import end_cleanly_from_now_on

TERMINATED: Final = 128 + signal.SIGTERM
"""The exit code of a command that was told to end."""
INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> None:
    """Run the command line."""
    is_node = "node" in sys.argv[1:2]
    end_cleanly_from_now_on(0 if is_node else TERMINATED, holds=is_node)
    try:
        from aqua_compat.cli.main import main as run  # noqa: PLC0415 - takes some tenths of a second
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()
