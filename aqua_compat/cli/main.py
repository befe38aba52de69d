"""The command `aqua-registry` and its subcommands."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

import click

from aqua_compat.cli.failures import Failure, end_for_want_of_memory, root_of, tell

_MODULES: Final = {
    "demo": "demo",
    "node": "node",
    "network": "network",
    "resource": "resource",
    "service": "service",
    "check": "agent",
    "reload": "agent",
    "exec": "execute",
    "resolve": "resolve",
    "watch": "watch",
    "call": "call",
    "services": "call",
    "peers": "peers",
    "upkeep": "upkeep",
    "run": "run",
    "key": "keys",
    "cert": "cert",
    "data": "data",
    "doctor": "doctor",
    "http": "http",
    "aqua": "aqua",
    "completion": "completion",
    "manual": "completion",
}
"""Where each command is. Its module is imported when it is called: the others' take longer than many a command."""

_FUNCTIONS: Final = {"exec": "execute"}
"""What commands are called in their module that Python has a name for already."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in _MODULES:
            return None
        name = _FUNCTIONS.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"aqua_compat.cli.{_MODULES[cmd_name]}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="aqua-registry")
def cli() -> None:
    """Find services without a server: run a node, register services, resolve them.

    Try it:  aqua-registry demo
    """


def _open_closed_streams() -> None:
    """Where stdin, stdout or stderr is closed, what this process opens first, a database say, would take its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line, once signals are heeded; exit code 0 on success only, 1 when the operation failed, 2 for
    wrong usage."""
    _open_closed_streams()
    try:
        code = cli.main(prog_name="aqua-registry", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        tell(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # as in `... | head`: nobody reads on, and closing stdout must not complain again
        _discard_output()
        sys.exit(1)
    except OSError as error:
        # Known ones were told before: this is what the output itself came to.
        _discard_output()
        tell(Failure(f"can't write the output: {error.strerror or error}"))
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort, BaseExceptionGroup) as error:
        if not isinstance(root_of(error), (KeyboardInterrupt, click.Abort)):
            end_for_want_of_memory(root_of(error))
            raise
        sys.exit(130)
    except Exception as error:
        end_for_want_of_memory(error)
        raise
    sys.exit(code if isinstance(code, int) else 0)
