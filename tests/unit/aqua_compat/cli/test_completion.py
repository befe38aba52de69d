"""Shells complete commands, and `man` shows all of them."""

from __future__ import annotations

import re
import shutil
import subprocess

import click
import pytest
from click.testing import CliRunner

from aqua_compat.cli.completion import manual_page
from aqua_compat.cli.main import cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_is_printed(shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash isn't here")
    printed = CliRunner().invoke(cli, ["completion", shell], prog_name="aqua-registry")
    assert printed.exit_code == 0, printed.output
    assert "_AQUA_REGISTRY_COMPLETE" in printed.output
    checked = shutil.which(shell)
    if checked is not None:
        subprocess.run([checked, "-n", "/dev/stdin"], input=printed.output, text=True, check=True)


def test_words_are_completed() -> None:
    environment = {
        "_AQUA_REGISTRY_COMPLETE": "bash_complete",
        "COMP_WORDS": "aqua-registry resource cr",
        "COMP_CWORD": "2",
    }
    completed = CliRunner().invoke(cli, prog_name="aqua-registry", env=environment)
    assert completed.output == "plain,create\n"


def test_the_manual_has_every_command_and_option() -> None:
    page = "\n".join(manual_page(click.Context(cli, info_name="aqua-registry")))
    shown = page.replace(r"\-", "-")
    context = click.Context(cli, info_name="aqua-registry")
    names = cli.list_commands(context)
    assert {"doctor", "http", "completion"} <= set(names)
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.hidden or f'.SS "aqua-registry {name}' in shown, name
    assert "--bootstrap ADDRESS" in shown
    assert "\b" not in page
    assert r"\eb" not in page, "the mark of lines that are kept is no text"
    assert "3 when a write is on fewer replicas" in page


@pytest.mark.skipif(shutil.which("groff") is None and shutil.which("mandoc") is None, reason="nothing reads man pages")
def test_the_manual_is_good_roff() -> None:
    page = "\n".join(manual_page(click.Context(cli, info_name="aqua-registry"))) + "\n"
    reader = ["mandoc", "-T", "utf8"] if shutil.which("mandoc") else ["groff", "-man", "-T", "utf8", "-ww"]
    read = subprocess.run(reader, input=page, capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert "aqua-registry node" in re.sub(r"\x1b\[[0-9;]*m|.\x08", "", read.stdout)
