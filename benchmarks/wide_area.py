"""A network of hosts that are far from each other, on this machine: one network namespace each, joined by a switch that
delays and loses packets.

Needs root, `ip` and /dev/net/tun. The switch runs in a process of its own (`python -m benchmarks.wide_area`): one TUN
device in each namespace hands it the packets that hosts send each other.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio

READY: Final = "switching"
_NAMES: Final = Path("/run/netns")
_DEVICE: Final = "wide"
_LARGEST_PACKET: Final = 65_535
_READ_AT_ONCE: Final = 64  # packets of one host before the others get their turn
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000


class Host(NamedTuple):
    """A namespace, and its address in the network of hosts."""

    namespace: str
    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """What runs `command` on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    async def open_process(self, command: Sequence[str], **options: Any) -> trio.Process:
        """Start a process on this host, as `trio.lowlevel.open_process` does here."""
        return await trio.lowlevel.open_process(self.command(command), **options)


class WideArea(NamedTuple):
    """Hosts, and the switch between them; made by `wide_area`."""

    hosts: list[Host]
    switch: trio.Process

    async def split(self, hosts: Sequence[Host]) -> None:
        """From now on, no packet passes between these hosts and the others."""
        await self._tell("split", ",".join(host.address for host in hosts))

    async def heal(self) -> None:
        """From now on, all packets pass again."""
        await self._tell("split", "")

    async def lose(self, share: float) -> None:
        """From now on, lose this share of the packets each way."""
        await self._tell("loss", str(share))

    async def _tell(self, *words: str) -> None:
        assert self.switch.stdin is not None
        await self.switch.stdin.send_all(" ".join(words).encode() + b"\n")


@asynccontextmanager
async def wide_area(count: int, *, round_trip: float, loss: float) -> AsyncIterator[WideArea]:
    """`count` hosts, each `round_trip` seconds from any other, of whose packets the share `loss` is lost each way."""
    hosts = [
        Host(f"wide{os.getpid()}-{number}", f"10.77.{number // 250}.{number % 250 + 1}") for number in range(count)
    ]
    names = ",".join(f"{host.namespace}={host.address}" for host in hosts)
    try:
        for host in hosts:
            await _ip("netns", "add", host.namespace)
        command = [sys.executable, "-m", "benchmarks.wide_area", names, str(round_trip / 2), str(loss)]
        async with trio.open_nursery() as nursery:
            switch = await nursery.start(
                partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            await switch.stdout.receive_some(len(READY) + 1)
            for host in hosts:
                await _ip("-n", host.namespace, "addr", "add", f"{host.address}/16", "dev", _DEVICE)
                await _ip("-n", host.namespace, "link", "set", _DEVICE, "up")
                await _ip("-n", host.namespace, "link", "set", "lo", "up")
            yield WideArea(hosts, switch)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for host in hosts:
                with suppress(subprocess.CalledProcessError):
                    await _ip("netns", "delete", host.namespace)


async def _ip(*arguments: str) -> None:
    await trio.run_process(["ip", *arguments], capture_stderr=True)


class Switch:
    """Passes packets from host to host, later, and some not at all."""

    def __init__(self, delay: float, loss: float) -> None:
        """`delay`: seconds each way. `loss`: share of the packets."""
        self._delay = delay
        self._loss = loss
        self._random = random.Random(1)
        self._devices: dict[bytes, int] = {}
        self._apart: set[bytes] = set()
        self._poll = select.epoll()
        self._due: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()

    def add(self, host: Host) -> None:
        """Make a host's device, in its namespace."""
        _enter(_NAMES / host.namespace)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        self._devices[_packed(host.address)] = device
        self._poll.register(device, select.EPOLLIN)

    def run(self) -> None:
        """Pass packets, and do what standard input says, for ever."""
        orders = FileIO(sys.stdin.fileno())  # unbuffered: no line waits where the poll doesn't see it
        self._poll.register(orders, select.EPOLLIN)
        while True:
            for ready, _ in self._poll.poll(self._wait()):
                if ready == orders.fileno():
                    self._obey(orders.readline().decode().rstrip("\n"))
                else:
                    self._take(ready)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, device, packet = heapq.heappop(self._due)
                with suppress(OSError):  # its queue is full, or it isn't up: such packets are lost
                    os.write(device, packet)

    def _obey(self, line: str) -> None:
        if not line:
            raise SystemExit  # whoever started this has gone
        word, _, argument = line.partition(" ")
        if word == "loss":
            self._loss = float(argument)
        else:
            self._apart = {_packed(address) for address in argument.split(",") if address}

    def _wait(self) -> float:
        return max(self._due[0][0] - time.monotonic(), 0.0) if self._due else -1

    def _take(self, device: int) -> None:
        with suppress(BlockingIOError):
            for _ in range(_READ_AT_ONCE):
                packet = os.read(device, _LARGEST_PACKET)
                source, destination = packet[12:16], packet[16:20]  # of IPv4
                target = self._devices.get(destination)
                together = (source in self._apart) == (destination in self._apart)
                if target is not None and together and self._random.random() >= self._loss:
                    due = time.monotonic() + self._delay
                    heapq.heappush(self._due, (due, next(self._numbers), target, packet))


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def _enter(namespace: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "can't enter a network namespace")
    os.close(descriptor)


def main() -> None:
    """Be the switch of the hosts named."""
    parser = argparse.ArgumentParser(description="the switch; started by `wide_area`")
    parser.add_argument("hosts", help="NAMESPACE=ADDRESS,...")
    parser.add_argument("delay", type=float, help="seconds each way")
    parser.add_argument("loss", type=float, help="share of the packets, 0 to 1")
    arguments = parser.parse_args()
    switch = Switch(arguments.delay, arguments.loss)
    for host in arguments.hosts.split(","):
        switch.add(Host(*host.split("=")))
    print(READY, flush=True)
    switch.run()


if __name__ == "__main__":
    main()
