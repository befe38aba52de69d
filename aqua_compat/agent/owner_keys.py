"""The keys of owners that a node holds besides its own, and the resources that it makes with them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec

from overlay.errors import IdentityError
from overlay.identity import Identity, load_or_create_identity
from registry.client.registry import DEFAULT_TIMEOUT
from registry.errors import RegistryError
from registry.model.values import Key
from registry.protocol.error_info import texts
from registry.protocol.messages import Item, WriteOutcome
from registry.protocol.network import Clock

Write = Callable[[Item, float], Awaitable[WriteOutcome]]
"""Writes what is signed to the network, within so many seconds. Raises RegistryError."""


def read_owner_keys(files: Iterable[str], place: str) -> dict[str, Identity]:
    """The identities in these files, by peer id. `place`: where they are named. Raises IdentityError."""
    found: dict[str, Identity] = {}
    for file in files:
        path = Path(file).expanduser()
        if not path.is_file():
            raise IdentityError(
                f"{place}: agent.owner_keys: there is no file {file}; `aqua-registry key new NAME` makes a key, and"
                " `aqua-registry key show NAME --json` tells its file"
            )
        identity = load_or_create_identity(path)
        found[identity.peer_id] = identity
    return found


class OwnerKeys:
    """Makes resources in the name of owners whose keys are here."""

    def __init__(
        self,
        identities: dict[str, Identity],
        write: Write,
        wait_for_clock: Callable[[], Awaitable[None]],
        clock: Clock = time.time,
    ) -> None:
        """`identities` by peer id. `wait_for_clock` returns once this machine's clock may date what is signed, and
        raises RegistryError while it is off."""
        self._identities = identities
        self._write = write
        self._wait_for_clock = wait_for_clock
        self._clock = clock

    def __contains__(self, owner: str) -> bool:
        return owner in self._identities

    @property
    def owners(self) -> tuple[str, ...]:
        """The peer ids of the owners."""
        return tuple(self._identities)

    async def make(self, label: str, owner: str) -> tuple[str, ...]:
        """Makes a resource that nobody knows of; why it isn't made, if it isn't."""
        try:
            unsigned = Key(label, owner, int(self._clock()), b"", "", b"")
        except RegistryError as error:
            return (str(error),)
        return await self._signed_and_written(unsigned)

    async def sign_anew(self, key: Key) -> tuple[str, ...]:
        """Signs a resource for the present, as it is; why that didn't come about, if it didn't."""
        timestamp = max(int(self._clock()), key.timestamp_created + 1)
        return await self._signed_and_written(msgspec.structs.replace(key, timestamp_created=timestamp))

    async def _signed_and_written(self, unsigned: Key) -> tuple[str, ...]:
        identity = self._identities[unsigned.owner_peer_id]
        try:
            await self._wait_for_clock()
            key = msgspec.structs.replace(unsigned, signature=identity.sign(unsigned.signed_bytes()))
            outcome = await self._write(Item(key), DEFAULT_TIMEOUT)
        except RegistryError as error:
            return (str(error),)
        return () if outcome.stored else (texts(outcome.errors) or ("no replica took the resource",))
