"""What docs/http.md shows works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import trio

from aqua_compat.agent.file_form import CheckForm, ServiceForm
from aqua_compat.cli.service_source import SettingsOfServices
from aqua_compat.http.native_operations import OPERATIONS
from aqua_compat.settings import Settings
from tests.paths import ROOT
from tests.unit.aqua_compat.http.running import running_server

TEXT = (ROOT / "docs/http.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


async def test_each_example_runs(tmp_path: Path) -> None:
    settings = Settings(service=(ServiceForm(name="job", check=(CheckForm(ttl=60),)),))
    async with running_server(
        tmp_path / "node",
        services=lambda own, registered: SettingsOfServices(lambda: settings, own, registered=registered.all),
    ) as running:
        script = "set -euo pipefail\n"
        for language, block in BLOCKS:
            script += block if language == "sh" else f"{sys.executable} - <<'END'\n{block}END\n"
        assert "127.0.0.1:8500" in script
        assert "~/.local/share/aqua-registry/node" in script
        script = script.replace("127.0.0.1:8500", str(running.server.address))
        script = script.replace("~/.local/share/aqua-registry/node", str(tmp_path / "node"))
        ran = await trio.run_process(
            ["bash", "-x", "-c", script],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, (ran.stdout[-2000:], ran.stderr[-2000:])
    assert ran.stdout.count(b"event: snapshot") == 2


def test_each_operation_has_an_example() -> None:
    shown = " ".join(block for _, block in BLOCKS)
    for operation in OPERATIONS:
        last = operation.parts[-1].removeprefix("{resource_id}").removeprefix("{peer_id}")
        is_native = operation.path.startswith("/v1/aqua/")
        parts = operation.parts[2:] if is_native else operation.parts
        pattern = (r"\$AQUA/" if is_native else r"\$NODE/") + "/".join(
            r"\S+" if part.startswith("{") else re.escape(part) for part in parts
        )
        assert re.search(pattern, shown), operation.path
        assert operation.method != "DELETE" or re.search("DELETE.*" + pattern, shown), last
