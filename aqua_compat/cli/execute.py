"""`aqua-registry exec`: runs a program, and has the node on this machine keep its services registered meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click

from aqua_compat.cli.failures import Failure, Misuse, one_line
from aqua_compat.cli.node_socket import NodeAnswer, NodeSocket
from aqua_compat.cli.options import network_options
from aqua_compat.cli.relayed_services import RelayedServices
from aqua_compat.cli.session import CommandSession

_PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_BY_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)
"""What a terminal sends to the program, too."""
_LARGEST: Final = 400_000  # bytes of a file; in JSON it is within what the node takes
_RETRY: Final = 1.0  # seconds until a node that ended is looked for again
_NOT_FOUND, _NOT_RUN = 127, 126  # exit codes, as shells have them


@click.command(
    "exec",
    short_help="Run a program whose services are registered meanwhile.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--service",
    "files",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    multiple=True,
    required=True,
    help="File of the program's services, as in the folder of `aqua-registry node --services`. Repeatable.",
)
@network_options(writes=True, counts=False, registers=True)
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(session: CommandSession, files: tuple[Path, ...], program: tuple[str, ...]) -> int:
    """Run PROGRAM with its arguments, and have the node on this machine register its services once their checks pass.

    With --relay no node is needed here: this command registers and checks them itself, as your key, which it has for
    itself meanwhile. Signals are passed on to the program. When it ends, or this command does however it ends, its
    services are unregistered; the exit code is the program's, 128 and the number of the signal that ended it, or 127
    where there is no such program.

    \b
    aqua-registry exec --service web.toml -- python3 -m http.server 8080
    """
    given = [(str(path), _text_of(path)) for path in files]
    node = session.node()
    if node is None and not session.addresses():
        raise Failure("no node runs on this machine: start one (aqua-registry node), name its data folder (--node"
                      " PATH), or give the address of another (--relay MULTIADDR)")  # fmt: skip
    if node is None:
        with RelayedServices(session, given):
            return _run(program)
    leases = [_Lease(node, name, text) for name, text in given]
    for lease in leases:
        lease.begin()
    return _run(program)


class _Lease:
    """The services of one file, lent to the node for as long as this process runs."""

    def __init__(self, node: NodeSocket, name: str, text: str) -> None:
        self._node = node
        self._name = name
        self._text = text
        self._events: Iterator[NodeAnswer] = iter(())

    def begin(self) -> None:
        """Returns once the node has taken them, and holds on to them in a thread. Raises Failure, Misuse."""
        self._ask()
        threading.Thread(target=self._hold, name=f"services of {self._name}", daemon=True).start()

    def _ask(self) -> None:
        self._events = self._node.lend(self._name, self._text)
        if errors := next(self._events).result.get("errors"):
            raise Failure("; ".join(errors))

    def _hold(self) -> None:
        told = ""
        while True:
            try:
                for _ in self._events:
                    told = ""
                self._ask()
            except click.ClickException as error:
                message = one_line(error.format_message())
                if message != told:
                    click.echo(f"warning: {message}; the services in {self._name} aren't registered", err=True)
                told = message
                time.sleep(_RETRY)


def _text_of(path: Path) -> str:
    if path.suffix not in (".toml", ".json"):
        raise Misuse(f"--service {path}: a file of services is called *.toml or *.json")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise Failure(f"{path}: can't be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise Failure(f"{path}: has more than {_LARGEST} bytes; split it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: isn't UTF-8, from byte {error.start} on") from None


def _run(program: Sequence[str]) -> int:
    """Runs a program to its end, with the signals that come; its exit code."""
    early: list[int] = []
    process: subprocess.Popen[bytes] | None = None
    has_terminal = os.isatty(sys.stdin.fileno())

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        if has_terminal and number in _BY_THE_TERMINAL:
            return
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup, and then the program ignores it as well
            signal.signal(number, pass_on)
    try:
        process = subprocess.Popen(program)  # noqa: S603 - which is what this command is for
    except FileNotFoundError:
        click.echo(f"error: there is no program {one_line(program[0])}", err=True)
        return _NOT_FOUND
    except (OSError, ValueError) as error:
        click.echo(f"error: {one_line(program[0])} can't be run: {error}", err=True)
        return _NOT_RUN
    for came in early:
        process.send_signal(came)
    code = process.wait()
    return 128 - code if code < 0 else code
