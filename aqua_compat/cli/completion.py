"""`aqua-registry completion` and `manual`: what shells and `man` are given, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

import click
from click.shell_completion import get_completion_class

from aqua_compat.cli.failures import Failure

_NAME = "aqua-registry"
_VARIABLE = "_AQUA_REGISTRY_COMPLETE"


@click.command(short_help="Print what completes commands in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that has SHELL complete commands and options.

    \b
    bash:  aqua-registry completion bash > ~/.local/share/bash-completion/completions/aqua-registry
    zsh:   aqua-registry completion zsh > a file _aqua-registry in a folder of $fpath
    fish:  aqua-registry completion fish > ~/.config/fish/completions/aqua-registry.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    try:
        click.echo(made(context.find_root().command, {}, _NAME, _VARIABLE).source())
    except RuntimeError as error:  # a bash that is too old
        raise Failure(str(error)) from None


@click.command(short_help="Print the manual page, for `man`.")
@click.pass_context
def manual(context: click.Context) -> None:
    """Print the manual page of all commands, as `man` reads it.

    \b
    aqua-registry manual > ~/.local/share/man/man1/aqua-registry.1
    """
    for line in manual_page(context.find_root()):
        click.echo(line)


def manual_page(root: click.Context) -> Iterator[str]:
    """The lines of the page, in roff."""
    yield f'.TH AQUA-REGISTRY 1 "" "{_NAME} {version(_NAME)}" "User commands"'
    yield ".SH NAME"
    yield r"aqua-registry \- a service registry without a server"
    yield ".SH SYNOPSIS"
    yield r"\fBaqua-registry\fR [\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root.command.help or "")
    yield ".SH COMMANDS"
    for context in _commands(root):
        yield from _command(context)
    yield ".SH EXIT STATUS"
    yield "0 when it was done, 1 when it failed, 2 when it was called wrongly, 3 when a write is on fewer replicas than"
    yield "asked for, 130 after Ctrl\\-C, 143 after SIGTERM."


def _commands(above: click.Context) -> Iterator[click.Context]:
    """All commands that act, those of groups in place of the groups."""
    assert isinstance(above.command, click.Group)
    for name in above.command.list_commands(above):
        command = above.command.get_command(above, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=above)
        if isinstance(command, click.Group):
            yield from _commands(context)
        else:
            yield context


def _command(context: click.Context) -> Iterator[str]:
    usage = context.command.get_usage(context).removeprefix("Usage: ")
    yield f'.SS "{_escaped(context.command_path)}"'
    yield ".nf"
    yield _escaped(" ".join(usage.split()))
    yield ".fi"
    yield ".PP"
    yield from _paragraphs(context.command.help or "")
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield rf"\fB{_escaped(record[0])}\fR"
            yield _escaped(" ".join(record[1].split()))


def _paragraphs(text: str) -> Iterator[str]:
    """Help texts: paragraphs, of which those that begin with a backspace keep their lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.rstrip() for line in paragraph.splitlines()]
        if lines and lines[0].strip() == "\b":
            yield ".nf"
            yield from map(_escaped, lines[1:])
            yield ".fi"
        else:
            yield _escaped(" ".join(line.strip() for line in lines))
        yield ".PP"


def _escaped(text: str) -> str:
    """What roff prints as it stands."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped
