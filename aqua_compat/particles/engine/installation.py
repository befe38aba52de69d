"""Where the interpreter is kept on this machine, how it gets there, and its compiled form.

It isn't shipped: it comes from the npm package `@fluencelabs/avm` of exactly one version (Apache-2.0; later ones have
another licence), given as a file or fetched by the user's npm, and is used only with the one sha256.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aqua_compat.particles.errors import NotInstalled
from overlay.private_file import write_private

if TYPE_CHECKING:
    import wasmtime

PACKAGE: Final = "@fluencelabs/avm"
VERSION: Final = "0.62.0"
SHA256: Final = "4a9f248d19582a4c0c638a3e4485d092dbf707dd7ad766f5320698b082010eba"

_MEMBER: Final = "package/dist/avm.wasm"
_MODULE: Final = f"avm-{VERSION}.wasm"
_LARGEST: Final = 64 * 2**20  # bytes
_NPM_TIMEOUT: Final = 300.0  # seconds
_INSTALL: Final = "run: aqua-registry aqua install"
_EXTRA: Final = "Aqua needs the extra: pip install 'aqua-registry[aqua]'"


def install(folder: Path, tarball: Path | None = None) -> Path:
    """Puts the interpreter into `folder`, out of a tarball of the npm package or by `npm pack`, and compiles it.

    Raises NotInstalled, with what to do.
    """
    check_extra()
    if tarball is not None:
        content = _out_of(tarball)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            content = _out_of(_packed(Path(scratch)))
    place = folder / _MODULE
    try:
        _write(place, content)
    except OSError as error:
        raise NotInstalled(f"can't write {place}: {error.strerror}") from error
    load_module(folder)
    return place


def load_module(folder: Path) -> tuple[wasmtime.Module, wasmtime.Engine]:
    """The compiled interpreter: out of the cache in 10 ms, or compiled in some seconds. Raises NotInstalled."""
    check_extra()
    import wasmtime  # noqa: PLC0415 - of the extra

    from aqua_compat.particles.engine.interpreter import make_engine  # noqa: PLC0415 - of the extra

    place = folder / _MODULE
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        raise NotInstalled(f"the Aqua interpreter isn't in {folder}; {_INSTALL}") from None
    except OSError as error:
        raise NotInstalled(f"can't read {place}: {error.strerror}") from error
    if sha256(content).hexdigest() != SHA256:
        raise NotInstalled(f"{place} isn't the interpreter {VERSION}; delete it and {_INSTALL}")
    engine = make_engine()
    cache = folder / f"avm-{VERSION}-{SHA256[:8]}-wasmtime-{version('wasmtime')}-{platform.machine()}.compiled"
    compiled = _cached(cache)
    if compiled is not None:
        with suppress(wasmtime.WasmtimeError):  # of another CPU: wasmtime checks what it was compiled for
            return wasmtime.Module.deserialize(engine, compiled), engine
    module = wasmtime.Module(engine, content)
    with suppress(OSError):  # a folder that can't be written only costs time
        _write(cache, bytes(module.serialize()))
    return module, engine


def check_extra() -> None:
    """Raises NotInstalled when the extra's packages are missing."""
    try:
        version("wasmtime")
    except PackageNotFoundError:
        raise NotInstalled(_EXTRA) from None


def _out_of(tarball: Path) -> bytes:
    try:
        with tarfile.open(tarball) as archive:
            member = archive.extractfile(_MEMBER)
            content = member.read(_LARGEST) if member is not None else b""
    except KeyError:
        raise NotInstalled(f"{tarball} has no {_MEMBER}: it isn't a tarball of {PACKAGE}") from None
    except (OSError, tarfile.TarError, EOFError) as error:
        raise NotInstalled(f"can't read the tarball {tarball}: {str(error).splitlines()[0]}") from None
    if sha256(content).hexdigest() != SHA256:
        raise NotInstalled(f"{tarball} doesn't hold the interpreter {VERSION} (its sha256 differs)")
    return content


def _packed(folder: Path) -> Path:
    npm = shutil.which("npm")
    wanted = f"{PACKAGE}@{VERSION}"
    by_file = f"or give its tarball with --from; `npm pack {wanted}` makes it on a machine with npm"
    if npm is None:
        raise NotInstalled(f"no npm is here to fetch {wanted}: install it, {by_file}")
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [npm, "pack", "--silent", "--ignore-scripts", wanted],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_NPM_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"npm can't fetch {wanted}: {error}; try again, {by_file}") from None
    found = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalled(f"npm can't fetch {wanted}: {lines[-1][:300] if lines else 'no reason given'}; {by_file}")
    return found[0]


def _cached(place: Path) -> bytes | None:
    """What is compiled runs as it is: only a file that nobody else can have written is trusted."""
    try:
        with place.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return None
            return file.read()
    except OSError:
        return None


def _write(place: Path, content: bytes) -> None:
    """The file appears complete or not at all, whoever else writes it at the same time."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(place, content)
