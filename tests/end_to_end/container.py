"""A Containerfile read, and carried out without a container engine: images are folders, containers are namespaces.

Everything that a container mounts is in namespaces of its own, so that nothing outlives its processes but the folders.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TOOLS: Final = ("chroot", "ip", "mmdebstrap", "mount", "nsenter", "unshare")
BUILD_TIMEOUT: Final = 600  # seconds; of one step, mostly spent on downloads
_GIVEN: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")
"""What a build gets of this machine, as by an engine, so that it finds packages the way this machine does."""
_GIVEN_VARIABLES: Final = re.compile(r"PIP_.*|SSL_CERT_.*|(https?|no)_proxy", re.IGNORECASE)
_BUILD: Final = """
set -e; root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/ssl/certs "$root/etc/ssl/certs"
exec chroot "$root" "$@"
"""
_RUN: Final = """
set -e; root=$1; kept=$2; volume=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$kept" "$root$volume"
mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot "$root" "$@"
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, each its word and what follows."""
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def make_debian(suite: str, packages: Sequence[str], archive: Path) -> None:
    """A bare Debian with some packages, as a tar archive. Raises AssertionError with what mmdebstrap said."""
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@dataclass
class Image:
    """What a stage of a Containerfile comes to."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    volume: str = ""
    port: str = ""
    stop_signal: str = "SIGTERM"
    health_check: tuple[str, ...] = ()
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def run(self, kept: Path, *arguments: str) -> list[str]:
        """A command line that starts the entry point, as engines do that are told `--read-only --cap-drop ALL
        --security-opt no-new-privileges`, in a network of its own, with the folder `kept` for its volume."""
        apart = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child")
        mounted = ("sh", "-c", _RUN, "sh", str(self.root), str(kept), self.volume)
        return [*apart, *mounted, *self._confined(), *self.entry_point, *(arguments or self.command)]

    def execute(self, process_id: int, *command: str) -> list[str]:
        """A command line that runs another in the container of a process, as its user."""
        return ["nsenter", f"--target={process_id}", "--mount", "--pid", "--net", "--root", *self._confined(), *command]

    def new_volume(self, kept: Path) -> None:
        """Fill a new volume with what the image has in its place, as engines do."""
        subprocess.run(["cp", "-a", f"{self.root}{self.volume}", str(kept)], check=True)

    def _confined(self) -> list[str]:
        user, group = self.user.split(":")
        rights = ("--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return [
            *("/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", *rights),
            *("/usr/bin/env", "--ignore-environment", f"--chdir={self.folder}", *variables),
        ]


def build(containerfile: Path, context: Path, folder: Path, base: Callable[[str], Path]) -> Image:
    """Carry out the steps of a Containerfile; the image of its last stage. `base` has an archive for each name after
    FROM. Raises AssertionError with what a step said, or where there is an instruction that this doesn't know."""
    stages: dict[str, Image] = {}
    image = Image(folder)
    for word, rest in instructions(containerfile.read_text()):
        match word:
            case "FROM":
                name, _, alias = rest.partition(" AS ")
                image = Image(folder / f"stage-{len(stages)}")
                stages[alias or str(len(stages))] = image
                image.root.mkdir()
                subprocess.run(["tar", "-xpf", str(base(name)), "-C", str(image.root)], check=True)
            case "RUN":
                _run(image, rest)
            case "COPY":
                _copy(rest, image, context, stages)
            case "ENV":
                assert "$" not in rest, rest
                image.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
            case "WORKDIR":
                image.folder = rest
                _inside(image, rest).mkdir(parents=True, exist_ok=True)
            case _:
                _state(image, word, rest)
    return image


def _state(image: Image, word: str, rest: str) -> None:
    match word:
        case "USER":
            image.user = rest
        case "VOLUME":
            image.volume = rest
        case "EXPOSE":
            image.port = rest
        case "STOPSIGNAL":
            image.stop_signal = rest
        case "HEALTHCHECK":
            image.health_check = tuple(json.loads(rest.partition("CMD ")[2]))
        case "ENTRYPOINT":
            image.entry_point = tuple(json.loads(rest))
        case "CMD":
            image.command = tuple(json.loads(rest))
        case _:
            raise AssertionError(f"{word} isn't known here")


def _inside(image: Image, path: str) -> Path:
    return image.root / os.path.normpath(os.path.join(image.folder, path)).lstrip("/")


def _run(image: Image, step: str) -> None:
    for path in filter(os.path.exists, _GIVEN):
        shutil.copy(path, image.root / path.lstrip("/"))
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _BUILD, "sh", str(image.root)),
            *("env", f"--chdir={image.folder}", "sh", "-c", step),
        ],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **_given(), **image.environment},
        check=False,
    )
    assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def _given() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if _GIVEN_VARIABLES.fullmatch(name)}


def _copy(rest: str, image: Image, context: Path, stages: Mapping[str, Image]) -> None:
    *words, target = rest.split()
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    for word in words:
        found, placed = source / word.lstrip("/"), _inside(image, target)
        if found.is_dir():  # what is in it, as engines do
            shutil.copytree(found, placed, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(found, placed)
