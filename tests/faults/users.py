"""Users of a network whose machines fall sick: they write, read and watch, and hold everything against what must hold.

A slot has one writer, whose attempts follow each other. What a read by a majority finds in it is the last write that
was acknowledged before the read began, or one that was attempted after it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from aqua_compat import Constants, connect
from aqua_compat.api.client import AquaClient
from aqua_compat.cli.keys import DEFAULT_KEY
from aqua_compat.rpc.errors import NoProvider
from overlay.errors import OverlayError
from overlay.identity import Identity, load_or_create_identity
from overlay.settings import LinkLimits, OverlaySettings
from registry.errors import NodeUnavailable
from registry.model.values import Record
from tests.end_to_end.forked import fork_server
from tests.end_to_end.network import environment_of
from tests.simulation.scenario import Attempt, possible
from tests.simulation.watcher import Told

SETTINGS = OverlaySettings(member=False, listen=(), links=LinkLimits(unlimited_networks=("10.0.0.0/8",)))
PATIENCE = 3.0  # seconds for an operation
SECOND = 1.1  # between two writes by processes that don't know of each other: times are in whole seconds

Place = tuple[str, str, str]
"""Resource id, issuer and host."""


class Book:
    """What was written, as far as those who wrote it know."""

    def __init__(self) -> None:
        self.attempts: dict[Place, list[Attempt]] = {}
        self.resources: list[str] = []
        self.reads = 0
        self.events = 0
        self.killed = 0
        """Commands that were killed in the middle of a write."""

    def attempt(self, place: Place, value: str | None) -> Attempt:
        """Notes that this is about to be written."""
        attempt = Attempt(value)
        self.attempts.setdefault(place, []).append(attempt)
        return attempt

    def acknowledged(self) -> dict[Place, int]:
        """Per slot the number of the last attempt that was acknowledged so far, -1 for none."""
        return {place: _last(attempts) for place, attempts in self.attempts.items()}

    def check(self, resource_id: str, records: Iterable[Record], since: dict[Place, int]) -> None:
        """What was read of a resource, by a read that began when `since` was acknowledged."""
        found = values(records)
        for issuer, host in found:
            assert (resource_id, issuer, host) in self.attempts, f"nobody wrote {found} as {issuer} on {host}"
        for place, attempts in self.attempts.items():
            if place[0] == resource_id:
                value, last = found.get(place[1:]), since.get(place, -1)
                allowed = {attempt.value for attempt in attempts[max(last, 0) :]}
                if last < 0:
                    allowed.add(None)
                assert value in allowed, f"{value} is read at {place} after {attempts}, of which {last} was the last"

    def check_end(self, resource_id: str, records: Iterable[Record]) -> None:
        """What is there when nothing is under way any more."""
        found = values(records)
        for place, attempts in self.attempts.items():
            if place[0] == resource_id:
                value = found.pop(place[1:], None)
                assert value in possible(attempts), f"{value} is at {place} after {attempts}"
        assert not found, f"nobody wrote {found} on {resource_id}"


def values(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """By issuer and host."""
    return {(record.metadata.issued_by, record.metadata.peer_id): record.metadata.value for record in records}


def _last(attempts: Sequence[Attempt]) -> int:
    return max((number for number, attempt in enumerate(attempts) if attempt.acknowledged), default=-1)


class Users:
    """All users; `addresses` are those of the nodes, `hosts` the peer ids of those that host services for others."""

    def __init__(
        self, randomness: random.Random, folder: Path, addresses: Sequence[str], hosts: Sequence[str], majority: int
    ) -> None:
        self.random = randomness
        self.folder = folder
        self.addresses = list(addresses)
        self.hosts = list(hosts)
        self.majority = majority
        self.book = Book()
        self.told: list[tuple[str, Told]] = []
        """What each watcher was told: resource id, and events."""
        self._constants = Constants(INITIAL_REPLICATION_FACTOR=majority, DEFAULT_TIMEOUT=round(PATIENCE * 1000))

    def _shuffled(self) -> list[str]:
        return self.random.sample(self.addresses, len(self.addresses))

    async def acknowledged(self) -> int:
        """How many writes were, so far."""
        await trio.lowlevel.checkpoint()
        return sum(attempt.acknowledged for attempts in self.book.attempts.values() for attempt in attempts)

    async def create_resources(self, count: int) -> None:
        async with connect(self._shuffled(), constants=self._constants, settings=SETTINGS) as aqua:
            for number in range(count):
                resource_id, errors = await aqua.createResource(f"resource {number}")
                assert resource_id is not None, errors
                self.book.resources.append(resource_id)

    async def write(self) -> None:
        """One writer, until cancelled; sometimes it goes away before it is answered."""
        identity, count = Identity.from_seed(self.random.randbytes(32)), 0
        while True:
            try:
                async with connect(
                    self._shuffled(), identity=identity, constants=self._constants, settings=SETTINGS,
                    data_dir=self.folder / identity.peer_id,
                ) as aqua:  # fmt: skip
                    while True:
                        await trio.sleep(self.random.uniform(0.05, 0.6))
                        count += 1
                        await self._write_once(aqua, f"{identity.peer_id[-4:]}-{count}")
            except (NodeUnavailable, OverlayError):
                await trio.sleep(1)

    async def _write_once(self, aqua: AquaClient, value: str) -> None:
        resource_id = self.random.choice(self.book.resources)
        host = aqua.peer_id if self.random.random() < 0.6 else self.random.choice(self.hosts)
        ends = self.random.random() < 0.3
        attempt = self.book.attempt((resource_id, aqua.peer_id, host), None if ends else value)
        patience = self.random.uniform(0, 0.2) if self.random.random() < 0.15 else 60
        with trio.move_on_after(patience):
            if ends:
                attempt.acknowledged, _ = await aqua.unregisterService(resource_id, host)
            else:
                attempt.acknowledged, _ = await aqua.registerService(resource_id, value, host, None)

    async def write_and_be_killed(self) -> None:
        """Commands that are killed in the middle, or that end before that, one after the other, until cancelled."""
        home, count = self.folder / f"user-{self.random.getrandbits(32)}", 0
        key_file = home / "aqua-registry" / "keys" / f"{DEFAULT_KEY}.json"
        key_file.parent.mkdir(parents=True)
        identity = load_or_create_identity(key_file)
        while True:
            count += 1
            resource_id, value = self.random.choice(self.book.resources), f"command-{count}"
            attempt = self.book.attempt((resource_id, identity.peer_id, identity.peer_id), value)
            relays = [part for address in self._shuffled() for part in ("--relay", address)]
            with trio.CancelScope(shield=True):
                process = await fork_server().open_process(
                    [
                        *(sys.executable, "-m", "aqua_compat", "service", "register", resource_id, "--value", value),
                        *("--factor", str(self.majority), *relays),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment_of(home),
                )
            try:
                with trio.move_on_after(self.random.uniform(0.2, 2.5)):
                    await process.wait()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    code = await process.wait()
            attempt.acknowledged = code == 0
            self.book.killed += code == -signal.SIGKILL
            await trio.sleep(SECOND)

    async def read(self) -> None:
        """One reader, through a node after the other, until cancelled."""
        while True:
            try:
                async with connect(self._shuffled(), constants=self._constants, settings=SETTINGS) as aqua:
                    for _ in range(self.random.randint(5, 20)):
                        await trio.sleep(self.random.uniform(0.02, 0.3))
                        await self._read_once(aqua)
            except (NodeUnavailable, OverlayError):
                await trio.sleep(0.5)

    async def _read_once(self, aqua: AquaClient) -> None:
        resource_id, since = self.random.choice(self.book.resources), self.book.acknowledged()
        try:
            records = await self._resolved(aqua, resource_id)
        except NoProvider:  # too few answered
            return
        self.book.reads += 1
        self.book.check(resource_id, records, since)

    async def _resolved(self, aqua: AquaClient, resource_id: str) -> list[Record]:
        """All that is registered, on hosts that are down too."""
        return await aqua.resolve(resource_id, ack=self.majority, timeout=PATIENCE, include_down=True)

    async def watch(self) -> None:
        """One watcher of a resource, until cancelled."""
        resource_id = self.random.choice(self.book.resources)
        while True:
            told = Told()
            self.told.append((resource_id, told))
            try:
                async with (
                    connect(self._shuffled(), constants=self._constants, settings=SETTINGS) as aqua,
                    aqua.watch(resource_id, include_down=True) as watch,
                ):
                    async for event in watch:
                        self.book.events += 1
                        told.take(event)
            except (NodeUnavailable, OverlayError):
                self.told.remove((resource_id, told))
                await trio.sleep(1)

    async def found(self, resource_id: str) -> list[Record] | None:
        """What a new reader finds, None when too few answered in time."""
        async with connect(self._shuffled(), constants=self._constants, settings=SETTINGS) as aqua:
            with suppress(NoProvider):
                return await self._resolved(aqua, resource_id)
        return None

    async def listed(self, resource_id: str) -> int:
        """How many services a new reader is given: those that are up."""
        async with connect(self._shuffled(), constants=self._constants, settings=SETTINGS) as aqua:
            records, _ = await aqua.resolveResource(resource_id, self.majority)
        return -1 if records is None else len(records)
