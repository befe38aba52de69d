"""The demo shows what it says, and leaves nothing behind."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest
import trio

from aqua_compat.cli.node_process import NodeProcess
from tests.end_to_end.network import command, first_line, launched


def _left_behind(folder: Path) -> list[str]:
    """Folders of the demo, and processes that use them."""
    running = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    kept = [str(path) for path in folder.glob("aqua-registry-demo-*")]
    return kept + [line for line in running if str(folder) in line]


async def test_demo_walks_through_and_stops_everything(tmp_path: Path) -> None:
    finished = await command("demo", home=tmp_path, TMPDIR=str(tmp_path))
    assert (finished.code, finished.err) == (0, "")
    steps = [line for line in finished.out.splitlines() if line.startswith("[")]
    assert len(steps) == 11
    assert all(": done in " in step for step in steps)
    services = [line.split()[4] for line in finished.out.splitlines() if "  service echo  " in line]
    two, three = "tcp://10.0.0.2:7", "tcp://10.0.0.3:7"
    assert [sorted(services[:2]), services[2:]] == [[two, three], [three]]
    assert " s later; the record stays" in finished.out
    assert "on the list again " in finished.out
    assert "/ui/" in finished.out
    assert _left_behind(tmp_path) == []


async def test_demo_stops_everything_when_interrupted(tmp_path: Path) -> None:
    async with launched(
        sys.executable, "-m", "aqua_compat", "demo", home=tmp_path, log=tmp_path / "log", TMPDIR=str(tmp_path)
    ) as process:
        assert "Start 5 nodes" in await first_line(process)
        assert _left_behind(tmp_path) != []
        process.send_signal(signal.SIGINT)
        with trio.fail_after(15):
            assert await process.wait() == 130
    assert _left_behind(tmp_path) == []


async def test_its_nodes_run_no_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http.py", "select.py", "trio.py"):
        (tmp_path / name).write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    node = NodeProcess(tmp_path / "node", tmp_path / "log", tied=True)
    await node.start()
    assert await node.stop() == 0
