"""Which node a token is made for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aqua_compat.cli.main import cli


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["http", "token", *arguments])


def names() -> list[str]:
    return [token["name"] for token in json.loads(ran("list", "--json").stdout)]


def test_a_token_is_for_the_node_that_commands_act_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert ran("create", "of the default").exit_code == 0
    monkeypatch.setenv("AQUA_REGISTRY_NODE", str(tmp_path / "one"))
    assert ran("create", "of one").exit_code == 0
    assert names() == ["of one"]
    assert (tmp_path / "one" / "http-tokens.json").exists()
    monkeypatch.setenv("AQUA_REGISTRY_DATA_DIR", str(tmp_path / "two"))
    assert names() == []
    monkeypatch.delenv("AQUA_REGISTRY_DATA_DIR")
    assert ran("remove", "of one").exit_code == 0
    monkeypatch.delenv("AQUA_REGISTRY_NODE")
    assert names() == ["of the default"]
