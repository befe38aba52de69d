"""The command `aqua-registry` and its subcommands."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

import click

from aqua_compat.cli.aqua import aqua
from aqua_compat.cli.call import call, services
from aqua_compat.cli.cert import cert
from aqua_compat.cli.completion import completion, manual
from aqua_compat.cli.data import data
from aqua_compat.cli.demo import demo
from aqua_compat.cli.doctor import doctor
from aqua_compat.cli.failures import Failure, end_for_want_of_memory, root_of, tell
from aqua_compat.cli.keys import key
from aqua_compat.cli.network import network
from aqua_compat.cli.node import node
from aqua_compat.cli.peers import peers
from aqua_compat.cli.resolve import resolve
from aqua_compat.cli.resource import resource
from aqua_compat.cli.run import run
from aqua_compat.cli.service import service
from aqua_compat.cli.signals import end_cleanly_from_now_on
from aqua_compat.cli.upkeep import upkeep
from aqua_compat.cli.watch import watch

TERMINATED: Final = 128 + signal.SIGTERM
"""The exit code of a command that was told to end."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="aqua-registry")
def cli() -> None:
    """Find services without a server: run a node, register services, resolve them.

    Try it:  aqua-registry demo
    """


for command in (
    demo,
    node,
    network,
    resource,
    service,
    resolve,
    watch,
    call,
    services,
    peers,
    upkeep,
    run,
    key,
    cert,
    data,
    doctor,
    aqua,
    completion,
    manual,
):
    cli.add_command(command)


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
    """Run the command line; exit code 0 on success only, 1 when the operation failed, 2 for wrong usage."""
    _open_closed_streams()
    end_cleanly_from_now_on(0 if "node" in sys.argv[1:2] else TERMINATED)
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
