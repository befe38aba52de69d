"""The command `aqua-registry` and its subcommands."""

from __future__ import annotations

import os
import sys

import click

from aqua_compat.cli.aqua import aqua
from aqua_compat.cli.call import call, services
from aqua_compat.cli.data import data
from aqua_compat.cli.demo import demo
from aqua_compat.cli.failures import root_of, tell
from aqua_compat.cli.keys import key
from aqua_compat.cli.node import node
from aqua_compat.cli.peers import peers
from aqua_compat.cli.resolve import resolve
from aqua_compat.cli.resource import resource
from aqua_compat.cli.run import run
from aqua_compat.cli.service import service
from aqua_compat.cli.upkeep import upkeep
from aqua_compat.cli.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="aqua-registry")
def cli() -> None:
    """Find services without a server: run a node, register services, resolve them.

    Try it:  aqua-registry demo
    """


for command in (demo, node, resource, service, resolve, watch, call, services, peers, upkeep, run, key, data, aqua):
    cli.add_command(command)


def main() -> None:
    """Run the command line; exit code 0 on success only, 1 when the operation failed, 2 for wrong usage."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort, BaseExceptionGroup) as error:
        if not isinstance(root_of(error), (KeyboardInterrupt, click.Abort)):
            raise
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
