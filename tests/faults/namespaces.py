"""A host of its own for each node: a network namespace, with this process's between them as the router.

Nothing of it outlives this process, nor is seen outside of it: `reexecuted` begins it anew in namespaces that nobody
else has, as root or as a user who may make some.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROUTER: Final = "10.255.255.1"
"""The address of this process, which reaches every node whatever separates them."""
_FOLDER: Final = Path("/run/netns")
_FIRST_TABLE: Final = 100
_FIRST_RULE: Final = 1000
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_OWN: Final = ("--net", "--mount") if os.geteuid() == 0 else ("--net", "--mount", "--user", "--map-root-user")


def are_possible() -> bool:
    """Whether this machine has the tools, and lets this user make namespaces."""
    if not (shutil.which("ip") and shutil.which("unshare") and shutil.which("mount")):
        return False
    made = subprocess.run(
        ["unshare", *_OWN, "ip", "link", "add", "v0", "type", "veth"], capture_output=True, check=False
    )
    return made.returncode == 0


def isolated(*command: str) -> list[str]:
    """A command line that runs another in namespaces of its own."""
    return ["unshare", *_OWN, *command]


def reexecuted(module: str, arguments: list[str]) -> int:
    """Runs `python -m MODULE` in namespaces of its own; its exit code."""
    return subprocess.run(isolated(sys.executable, "-m", module, *arguments), check=False).returncode


def enter(number: int) -> None:
    """Makes this process, which has one thread yet, live on the host of that number."""
    with (_FOLDER / _name(number)).open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), f"can't enter the network namespace {number}")


def command_inside(number: int, command: list[str]) -> list[str]:
    """A command line that runs another on the host of that number."""
    return ["ip", "netns", "exec", _name(number), *command]


def mount_small(folder: Path, size: int) -> None:
    """Makes a folder a disk of its own with so many bytes."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))


def address_of(number: int) -> str:
    """The IPv4 address of a host; each is in a range of its own."""
    return f"10.{number}.0.1"


class Namespaces:
    """So many hosts, from number 1."""

    def __init__(self, count: int) -> None:
        self._sides: dict[int, int] = {}
        _run("mount", "-t", "tmpfs", "tmpfs", "/run")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        lines = ["link set lo up", f"address add {ROUTER}/32 dev lo"]
        for number in range(1, count + 1):
            name = _name(number)
            _run("ip", "netns", "add", name)
            lines += [
                f"link add {name} type veth peer name eth0 netns {name}",
                f"link set {name} up",
                f"route add {address_of(number)} dev {name}",
            ]
        _ip(*lines)
        for number in range(1, count + 1):
            _ip(
                "link set lo up",
                f"address add {address_of(number)}/32 dev eth0",
                "link set eth0 up",
                f"route add {ROUTER} dev eth0",
                f"route add default via {ROUTER}",
                inside=_name(number),
            )

    def split(self, sides: Mapping[int, int]) -> None:
        """Has the router drop what hosts of different sides, 0 or 1, send to each other; {} heals."""
        lines = [f"rule del priority {_FIRST_RULE + number}" for number in self._sides]
        lines += [f"route flush table {_FIRST_TABLE + side}" for side in set(self._sides.values())]
        for side in set(sides.values()):
            lines.append(f"route add blackhole default table {_FIRST_TABLE + side}")
        for number, side in sides.items():
            lines.append(f"route add {address_of(number)} dev {_name(number)} table {_FIRST_TABLE + side}")
            lines.append(f"rule add priority {_FIRST_RULE + number} iif {_name(number)} lookup {_FIRST_TABLE + side}")
        self._sides = dict(sides)
        _ip(*lines)


def _name(number: int) -> str:
    return f"host{number}"


def _ip(*lines: str, inside: str | None = None) -> None:
    where = [] if inside is None else ["-n", inside]
    _run("ip", *where, "-batch", "-", given="\n".join(lines))


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)} failed: {done.stderr.strip()}")
