"""The original's own services, run as they are: WebAssembly of its crates in marine's runtime for Node.

Nothing of them is kept in this repository: cargo and npm fetch them, once for each machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.aqua import npm
from tests.aqua.npm import Missing
from tests.paths import KEPT, claimed

HERE: Final = Path(__file__).parent
FETCH: Final = 240.0  # seconds for cargo; 5 with a warm cache
HOST: Final = "12D3KooWNbZKaPWRZ8wgjGvrxdJFz9Fq5uVwkR6ERV1f74HhPdyB"
"""The peer on which an original runs, unless a test says otherwise."""
TIME: Final = ("peer", "timestamp_sec")


class Failed(Exception):
    """The call failed in the original: it has no result."""


class Origin(NamedTuple):
    """Of which call an argument is the result: a tetraplet."""

    service_id: str
    function: str
    peer_id: str = HOST

    def as_json(self) -> dict[str, str]:
        return {
            "peer_pk": self.peer_id,
            "service_id": self.service_id,
            "function_name": self.function,
            "lens": "",
        }


class Original:
    """One of the original's services in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def call(
        self,
        function: str,
        *arguments: object,
        caller: str = HOST,
        host: str = HOST,
        origins: Sequence[Sequence[Origin]] = (),
    ) -> Any:
        """A function's result. The host owns the service. Raises Failed."""
        particle = {"id": "", "init_peer_id": caller, "timestamp": 0, "ttl": 0, "script": "", "signature": []}
        parameters = {
            "particle": {**particle, "token": ""},
            "service_id": "",
            "service_creator_peer_id": host,
            "host_id": host,
            "worker_id": "",
            "tetraplets": [[origin.as_json() for origin in each] for each in origins],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{json.dumps([function, arguments, parameters])}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise AssertionError(f"the original ended: {self._log.read_text()[-2000:]}")
        result, error = json.loads(answer)
        if error is not None:
            raise Failed(error)
        return result


def as_text(value: object) -> str:
    """The same for equal JSON values: to sort by, and to compare."""
    return json.dumps(value, sort_keys=True)


@contextmanager
def original(service: str, folder: Path) -> Iterator[Original]:
    """One of the original's services, `registry` or `trust-graph`, with its database in a folder. Raises Missing."""
    node, runtime, control = _marine()
    modules = next(iter((_crates() / "registry" / "src").glob(f"*/{service}-distro-*/{service}-service")), None)
    if modules is None:
        raise Missing(f"cargo fetched no {service}-distro")
    command = (
        *(node, "--no-warnings", HERE / "oracle.mjs", runtime, control, service),
        *(modules / "sqlite3.wasm", modules / f"{service}.wasm"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "ORACLE_FOLDER": str(folder)},
        ) as process,
    ):
        try:
            yield Original(process, log)
        finally:
            process.kill()


@cache
def _crates() -> Path:
    """Where cargo keeps the crates that contain the originals. Raises Missing."""
    if shutil.which("cargo") is None:
        raise Missing("cargo isn't installed")
    project = HERE / "Cargo.toml"
    with claimed(KEPT / f"crates-{_digest(project)}") as folder:
        mark = folder / ".fetched"
        if not mark.exists():
            shutil.copy(project, folder)
            (folder / "nothing.rs").touch()
            # The lock file is the latest's: of the crates that matter the versions are exact.
            npm.run("cargo", "fetch", folder=folder, timeout=FETCH, CARGO_HOME=str(folder))
            mark.touch()
    return folder


@cache
def _marine() -> tuple[Path, Path, Path]:
    """Node, marine's runtime for it with a file system that works, and its control module. Raises Missing."""
    npm.install(npm.PROJECT)
    marine = npm.PROJECT / "node_modules" / "@fluencelabs" / "marine-js" / "dist"
    bindings = HERE / "wasi_bindings.js"
    with claimed(KEPT / f"marine-{_digest(marine / 'marine_js.js', bindings)}") as folder:
        service = folder / "MarineService.js"
        if not service.exists():
            (folder / "package.json").write_text('{"type": "module"}')
            [snippet] = marine.glob("snippets/*/js/wasi_bindings.js")
            own = folder / snippet.relative_to(marine)
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(bindings, own)
            shutil.copy(marine / "marine_js.js", folder)
            shutil.copy(marine / "MarineService.js", service)  # the last: what is there is whole
    return npm.node_executable(), service, marine / "marine-js.wasm"


def _digest(*files: Path) -> str:
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
