"""Starts Python programs by forking: this process has imported everything, so what it starts needn't.

A node or a command takes more than a second to import what it needs, and the tests start hundreds of them. Each is
still a process of its own, with arguments, environment, streams, session and exit code of its own: it can be killed,
frozen and restarted as any other. Commands that are run `fresh` start Python anew.

`forked.ForkServer` runs it as `python -m tests.end_to_end.fork_server`, with a socket as its stdin. Each message there
is a request (see `Request`), with four file descriptors: stdin, stdout, stderr, and one to which the server writes the
process id and later the exit code, a line each.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import runpy
import selectors
import socket
import sys
from typing import Final

import msgspec

MAX_REQUEST: Final = 200_000  # bytes; mostly the environment
PACKAGES: Final = ("overlay", "registry", "aqua_compat", "multiaddr.codecs")
OTHERS: Final = (
    "encodings.idna",
    "libp2p.network.connection.swarm_connection",
    "libp2p.utils.connection_shutdown",
    "platformdirs.unix",
    "pprint",
)
"""What these import when it is first used."""


class Request(msgspec.Struct):
    """What to start, as `python ARGUMENTS`, where they begin with `-m MODULE`, `-c CODE` or a script."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    new_session: bool


def import_everything() -> None:
    """Every module of the packages, and with them all that they use."""
    for name in OTHERS:
        importlib.import_module(name)
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def requested(control: socket.socket) -> Request | None:
    """Fork for each request until nobody can send any more. Returns in the forked processes, and None at the end."""
    parse = msgspec.json.Decoder(Request).decode
    running: dict[int, tuple[int, int]] = {}  # pidfd: process id, whom to tell
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, files, _, _ = socket.recv_fds(control, MAX_REQUEST, 4)
                    if not message:
                        return None
                    *streams, told = files
                    process_id = os.fork()
                    if process_id == 0:
                        for file in (told, *running, *(told for _, told in running.values())):
                            os.close(file)
                        for target, stream in enumerate(streams):
                            os.dup2(stream, target)
                            os.close(stream)
                        return parse(message)
                    for stream in streams:
                        os.close(stream)
                    os.write(told, b"%d\n" % process_id)
                    pidfd = os.pidfd_open(process_id)
                    running[pidfd] = process_id, told
                    selector.register(pidfd, selectors.EVENT_READ)
                else:
                    process_id, told = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(process_id, 0)
                    _tell(told, os.waitstatus_to_exitcode(status))


def _tell(told: int, code: int) -> None:
    try:
        os.write(told, b"%d\n" % code)
    except BrokenPipeError:  # whoever started the process doesn't care any more
        pass
    finally:
        os.close(told)


def become(request: Request) -> None:
    """Run what was requested, as Python would have."""
    if request.new_session:
        os.setsid()
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - as Python opens them
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    match request.arguments:
        case ["-m", module, *arguments]:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *arguments]:
            sys.argv = ["-c", *arguments]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case [script, *arguments]:
            sys.argv = [script, *arguments]
            sys.path.insert(0, os.path.dirname(script))
            runpy.run_path(script, run_name="__main__")


def main() -> None:
    """Serve until the tests are over."""
    import_everything()
    gc.freeze()  # else each process that ends would look through all of this once more, for half a second
    with socket.socket(fileno=os.dup(0)) as control:
        request = requested(control)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()
