"""Commands through the node that runs on this machine: its HTTP socket, and what is printed of its answers.

Nothing but the standard library is needed, so that a command takes a tenth of the time that a light client takes. It
speaks HTTP/1.0, whose answers end with the connection: Python's own client takes longer to import than all the rest.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from aqua_compat.cli.failures import Failure, Misuse, Partial, reasons

SOCKET: Final = "http.sock"
AS_NODE: Final = "as the node's own key"
_GRACE: Final = 5.0  # seconds beyond the operation's own time in which the node answers
_LONGEST_NAME: Final = 100  # bytes, of the path of a socket

Parameters = Mapping[str, object]


class NodeAnswer:
    """What the node said: a result in the shape of `--json`, and warnings."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.result: Any = answer["result"]
        self.warnings: Sequence[str] = answer.get("warnings", ())
        self.exists: bool = answer.get("exists", True)


class NodeSocket:
    """The node with a data folder, as its own user's commands use it."""

    def __init__(self, folder: Path, timeout: float) -> None:
        """`timeout`: seconds for each operation."""
        self.folder = folder
        self.timeout = timeout

    @property
    def path(self) -> Path:
        """The socket's file."""
        return self.folder / SOCKET

    def is_there(self) -> bool:
        """Whether a node listens: the file of one that was killed doesn't count."""
        try:
            with self._connected():
                return True
        except OSError:
            return False

    def get(self, *path: str, **parameters: object) -> NodeAnswer:
        """Asks for a path, and returns the answer. Raises Failure."""
        return self._ask("GET", path, {"timeout": self.timeout, **parameters})

    def delete(self, *path: str, **parameters: object) -> NodeAnswer:
        """Ends something. Raises Failure, Partial."""
        return self._ask("DELETE", path, {"timeout": self.timeout, **parameters})

    def post(self, *path: str, **body: object) -> NodeAnswer:
        """Makes something. Raises Failure, Partial."""
        given = {"timeout": self.timeout, **body}
        return self._ask("POST", path, {}, {name: value for name, value in given.items() if value is not None})

    def events(self, *path: str, **parameters: object) -> Iterator[NodeAnswer]:
        """The events of a watch, until the node ends it, which raises Failure."""
        return self._events("GET", path, parameters)

    def lend(self, name: str, text: str) -> Iterator[NodeAnswer]:
        """Has services registered, those in the text of a file, until the iterator is closed. The first event comes
        once the node has taken them. Raises Failure where it doesn't, and when it ends."""
        return self._events("POST", ("agent", "services"), {}, {"name": name, "text": text})

    def _events(self, method: str, path: Sequence[str], parameters: Parameters, body: object = None) -> Iterator[Any]:
        with self._sent(method, path, parameters, body, waits=None) as file:
            _check(file, self.folder)
            for line in file:
                if line.startswith(b"data: "):
                    yield NodeAnswer(json.loads(line[6:]))
        raise Failure(f"the node with data folder {self.folder} has ended")

    def _ask(self, method: str, path: Sequence[str], parameters: Parameters, body: object = None) -> NodeAnswer:
        with self._sent(method, path, parameters, body, waits=self.timeout + _GRACE) as file:
            _check(file, self.folder)
            try:
                return NodeAnswer(json.loads(file.read()))
            except ValueError:
                raise Failure(f"the node with data folder {self.folder} ended before it had answered") from None

    @contextmanager
    def _sent(
        self, method: str, path: Sequence[str], parameters: Parameters, body: object, waits: float | None
    ) -> Iterator[Any]:
        """The answer to a request as a file, its head first."""
        if not all(path):
            raise Misuse("an argument is empty; an id or a name is wanted")
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            target = "/v1/aqua/" + "/".join(quote(part, safe="") for part in path)
            target += f"?{urlencode(given, doseq=True)}" if given else ""
            content = json.dumps(body, ensure_ascii=False).encode() if body else b""
        except UnicodeEncodeError as error:  # Python has other bytes as what can't be encoded
            raise Misuse(f"{error.object[:80]!r} isn't valid UTF-8") from None
        head = f"{method} {target} HTTP/1.0\r\nHost: localhost\r\n"
        if content:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        try:
            with self._connected() as connection:
                connection.settimeout(waits)
                connection.sendall(f"{head}\r\n".encode() + content)
                with connection.makefile("rb") as file:
                    yield file
        except TimeoutError:
            raise Failure(f"the node with data folder {self.folder} doesn't answer") from None
        except OSError as error:
            raise Failure(f"can't use the node with data folder {self.folder}: {error.strerror or error}") from None

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_GRACE)
            if len(os.fsencode(self.path)) <= _LONGEST_NAME:
                connection.connect(str(self.path))
            else:  # longer than a socket's address may be; on Linux there is another name
                folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
                finally:
                    os.close(folder)
            yield connection


def found_node(folder: Path | None, default: Callable[[], Path], timeout: float) -> NodeSocket | None:
    """The node with this data folder, or with the default one; None if that one doesn't run.

    Raises Failure where a folder was named and no node runs with it.
    """
    node = NodeSocket(folder or default(), timeout)
    if node.is_there():
        return node
    if folder is not None:
        raise Failure(f"no node runs with the data folder {folder}; start it: aqua-registry node --data-dir {folder}")
    return None


def _check(file: Any, folder: Path) -> None:
    """Reads an answer's head. Raises what a problem says."""
    parts = file.readline(1000).split()
    while file.readline(10_000).strip():
        pass
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/"):
        raise Failure(f"the node with data folder {folder} ended before it had answered")
    if parts[1].startswith(b"2"):
        return
    try:
        problem = json.loads(file.read())
    except ValueError:
        raise Failure(f"the node with data folder {folder} answered {parts[1].decode()} and no more") from None
    detail = problem.get("detail", "")
    if problem.get("status") == 400:
        raise Misuse(detail)
    if problem.get("stored"):
        raise Partial(f"{detail.partition(':')[0]} on as many replicas as asked for: {reasons(problem['errors'])}")
    raise Failure(detail)
