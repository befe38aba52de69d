"""Where a label is wanted, a name is taken for one, and whoever gave it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aqua_compat.cli.main import cli


def id_of(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["resource", "id", *arguments])


def test_the_id_of_a_label_that_looks_like_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    plain = id_of("echo")
    assert plain.stderr == ""
    taken = id_of("echo@me")
    assert taken.stdout != plain.stdout
    assert taken.stderr == (
        "note: echo@me is taken as a label; for the name: aqua-registry resource id echo --owner me\n"
    )
    assert id_of("echo", "--owner", "me").stdout == plain.stdout
    meant = id_of("echo@me", "--owner", "me")
    assert (meant.stdout, meant.stderr) == (taken.stdout, "")
