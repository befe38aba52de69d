"""docs/permissions.md from its first command to its last, as they stand, in one shell: each prints what is shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import trio

from tests.end_to_end.forking_commands import forking_commands
from tests.paths import ROOT

PAGE: Final = (ROOT / "docs/permissions.md").read_text()
BLOCKS: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE: Final = re.compile(r"file `([\w-]+)`[^`]*```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARYING: Final = {
    r"12D3KooW\w+(\.\.\.)?": "PEER",
    r"\b[1-9A-HJ-NP-Za-km-z]{43,44}\b|\b[1-9A-HJ-NP-Za-km-z]{8}\.\.\.": "RESOURCE",
    r"\d{4}-\d\d-\d\d(T[\d:.]+Z|\s\d\d:\d\d:\d\d)": "TIME",
    r"/tcp/\d+": "/tcp/PORT",
    r"0\.\d+\.\d+": "VERSION",
    r"\b(23 h|24 h|47 h|2 d),": "SPAN,",  # counted in the second in which it began, or a later one
}
"""What differs each time, and what is shown for it when compared."""


class Step(NamedTuple):
    """Lines for the shell, and what the page shows that they print; None where it shows nothing."""

    command: str
    printed: str | None


def steps() -> Iterator[Step]:
    """Of blocks in `sh` each is one; of others each line that begins with `$ `, with those that follow it."""
    for language, block in BLOCKS.findall(PAGE):
        if language == "sh":
            yield Step(block, None)
        elif not language and block.startswith("$ "):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield Step(f"{command}\n", printed)


def words(text: str) -> list[str]:
    """As far as they are the same each time; in no order, since that of peers isn't, and lines are wrapped."""
    for pattern, name in VARYING.items():
        text = re.sub(pattern, name, text)
    return sorted(text.split())


def put_sqlite3(folder: Path) -> None:
    """The page's sqlite3, where the machine has none."""
    show = "import sqlite3, sys; [print(*row) for row in sqlite3.connect(sys.argv[2]).execute(sys.argv[3])]"
    (folder / "sqlite3").write_text(f'#!/bin/sh\nexec python3 -c "{show}" "$@"\n')
    (folder / "sqlite3").chmod(0o755)


async def test_the_page_runs_as_it_stands_and_prints_what_it_shows(tmp_path: Path) -> None:
    home, here, printed, programs = (tmp_path / name for name in ("home", "here", "printed", "programs"))
    for folder in (home, here, printed, programs):
        folder.mkdir()
    if shutil.which("sqlite3") is None:
        put_sqlite3(programs)
    for name, script in FILE.findall(PAGE):
        (here / name).write_text(script)
    all_steps = list(steps())
    assert len(all_steps) > 30
    parts = [f"{{\n{step.command}}} > {printed}/{number} 2>&1\n" for number, step in enumerate(all_steps)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AQUA_REGISTRY_")}
    kept |= {"HOME": str(home), "XDG_DATA_HOME": str(home), "PATH": f"{programs}:{kept['PATH']}", "NO_COLOR": "1"}
    async with forking_commands(programs):
        await trio.run_process(
            ["bash", "-c", "trap 'kill $(jobs -p); wait' EXIT\n" + "".join(parts)],
            check=False,
            cwd=here,
            env=kept,
            stdin=subprocess.DEVNULL,
        )
    for number, step in enumerate(all_steps):
        told = (printed / str(number)).read_text()
        assert step.printed is None or words(told) == words(step.printed), f"$ {step.command}{told}"
