"""Commands that need no network answer without importing what a node needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_IMPORTED = (
    "import sys\nfrom aqua_compat.cli.main import main\ntry:\n    main()\nfinally:\n    print('modules:', *sys.modules)"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("node", "--help"),
        ("key", "new", "mine"),
        ("key", "show", "default"),
        ("key", "show"),
        ("resource", "id", "label"),
    ],
    ids=" ".join,
)
def test_no_libp2p_no_loop_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def run(*command: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTED, *command],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rpartition("modules:")[2].split()

    run("key", "new")
    modules = run(*arguments)
    assert "aqua_compat.cli.main" in modules
    assert not {"libp2p", "multiaddr", "trio", "sqlite3", "structlog", "overlay.peer"} & set(modules)
