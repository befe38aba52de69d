"""A light client: a process with its own key that acts through a node, and turns to the next when that one fails.

It signs and verifies by itself: its node looks up, fans out and can withhold, but never forge.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec
import structlog
import trio

from overlay.errors import CallFailed, CallRefused, CallTimeout, OverlayError, Overloaded, Unreachable
from overlay.identity import Identity
from overlay.peer import OverlayPeer, open_peer
from overlay.settings import OverlaySettings
from registry.data_folder import claimed
from registry.errors import DoorClosed, HostingRefused, InvalidValue, RegistryError, ServiceError
from registry.hosting import Host
from registry.issuing import IssueLog
from registry.merging import ResourceState
from registry.messages import (
    DOOR_HOST,
    DOOR_NEIGHBOURS,
    DOOR_PROGRESS,
    DOOR_READ,
    DOOR_SERVICE,
    DOOR_STATUS,
    DOOR_WRITE,
    DoorHostBody,
    DoorReadBody,
    DoorServiceBody,
    DoorWriteBody,
    Item,
    ReadAnswer,
    WriteOutcome,
    build,
    last_slot,
    parse,
)
from registry.network import Clock
from registry.reading import MAX_PAGES, ReadOutcome
from registry.registry import Registry
from registry.replica import Replica
from registry.service import RegistryService
from registry.settings import RegistrySettings
from registry.shelf import StoreShelf
from registry.status import NodeStatus
from registry.storage import open_store
from registry.values import Key, Record, RecordMetadata, State, decode_state, encode
from registry.verification import is_good, key_is_good, record_is_genuine
from registry.weights import Weights

DATABASE: Final = "client.sqlite"
GRACE: Final = 0.25  # seconds that a node's answer may take beyond the deadline that it was given

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RemoteDoor:
    """One of several nodes: the last that answered, else the next."""

    def __init__(self, peer: OverlayPeer, addresses: Sequence[str], settings: RegistrySettings, clock: Clock) -> None:
        self._peer = peer
        self._addresses = list(addresses)
        self._peer_ids: dict[str, str] = {}  # address -> peer id, of those that were reached
        self._settings = settings
        self._clock = clock

    @property
    def peer_id(self) -> str:
        return self._peer_ids.get(self._addresses[0], "")

    async def open(self, *, timeout: float) -> None:
        """Connects to the first node that can be reached. Raises DoorClosed."""
        await self._call(DOOR_STATUS, None, timeout)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        def body(budget: float) -> Any:
            state = encode(item.state) if item.state else b""
            return build(DoorWriteBody(key=encode(item.key), state=state, factor=factor, timeout=budget))

        return parse(await self._call(DOOR_WRITE, body, timeout), WriteOutcome)

    async def read(self, key_id: str, *, ack: int, timeout: float, key_suffices: bool = False) -> ReadOutcome:
        outcome = ReadOutcome()
        states: list[State] = []
        key: Key | None = None
        after = None
        for _ in range(MAX_PAGES):

            def body(budget: float, after: Any = after) -> Any:
                return build(DoorReadBody(key_id, ack, budget, after, key_suffices))

            answer = parse(await self._call(DOOR_READ, body, timeout), ReadAnswer)
            outcome.answered, outcome.errors = answer.answered, list(answer.errors)
            outcome.timed_out = answer.timed_out
            page_key, page = answer.page.decoded()
            key = key or page_key
            states.extend(page)
            following = last_slot(page)
            if not answer.page.more or following is None or (after is not None and following <= after):
                break
            after = following
        outcome.resource = self._verified(key_id, key, states)
        return outcome

    async def host(self, key: Key, metadata: RecordMetadata, *, timeout: float) -> Record:
        def body(budget: float) -> Any:
            return build(DoorHostBody(key=encode(key), metadata=encode(metadata), timeout=budget))

        answer = await self._call(DOOR_HOST, body, timeout)
        record = decode_state(answer) if isinstance(answer, bytes) else None
        if not isinstance(record, Record) or record.metadata != metadata or not record_is_genuine(record):
            raise HostingRefused(f"the answer isn't the record that was asked for, on {metadata.peer_id}")
        return record

    async def neighbours(self, resource_id: str, *, timeout: float) -> list[str]:
        return parse(await self._call(DOOR_NEIGHBOURS, lambda _: resource_id, timeout), list[str])

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        answer = await self._call(DOOR_PROGRESS, lambda _: write_id, timeout)
        return None if answer is None else parse(answer, WriteOutcome)

    async def status(self, *, timeout: float) -> NodeStatus:
        return parse(await self._call(DOOR_STATUS, None, timeout), NodeStatus)

    async def service(self, function: str, arguments: Sequence[Any], *, timeout: float) -> Any:
        given = tuple(msgspec.to_builtins(argument, builtin_types=(bytes,)) for argument in arguments)
        answer = await self._call(
            DOOR_SERVICE, lambda _: build(DoorServiceBody(function=function, arguments=given)), timeout
        )
        return parse(answer, get_type_hints(getattr(RegistryService, function))["return"])

    def _verified(self, key_id: str, key: Key | None, states: list[State]) -> ResourceState:
        now = int(self._clock())
        if key is not None and (key.id != key_id or not key_is_good(key, now, self._settings)):
            _log.warning("the node served a key that doesn't verify", node=self.peer_id, key_id=key_id)
            key = None
        good = [s for s in states if s.slot.key_id == key_id and is_good(s, now, self._settings)]
        if len(good) < len(states):
            _log.warning("the node served states that don't verify", node=self.peer_id, count=len(states) - len(good))
        return ResourceState.of(key, good)

    async def _call(self, method: str, body: Any, timeout: float) -> Any:
        """Calls the preferred node, then the others, within `timeout` seconds. `body` makes the body out of the
        seconds that the node has. Raises DoorClosed; RegistryError for what a node refused."""
        deadline = trio.current_time() + timeout
        causes: list[str] = []
        for untried in range(len(self._addresses), 0, -1):
            address = self._addresses[0]
            remaining = deadline - trio.current_time()
            if remaining <= 0:
                break
            # A node that stalls mustn't use up the time of those behind it.
            budget = remaining if untried == 1 else remaining / 2
            try:
                return await self._call_one(address, method, body, budget)
            except CallRefused as error:
                raise _refusal(error) from error
            except (Unreachable, CallTimeout, Overloaded) as error:
                causes.append(f"{address}: {error.reason}")
            except CallFailed as error:
                causes.append(f"{address}: {error}")
            self._addresses.append(self._addresses.pop(0))
        raise DoorClosed("no node could be reached: " + "; ".join(causes or ["timeout exceeded"]))

    async def _call_one(self, address: str, method: str, body: Any, budget: float) -> Any:
        until = trio.current_time() + budget
        peer_id = self._peer_ids.get(address)
        if peer_id is None:
            peer_id = self._peer_ids[address] = await self._peer.connect(address, timeout=budget)
        left = max(until - trio.current_time(), 0.001)
        try:
            return await self._peer.call(
                peer_id, method, body(max(left - GRACE, left / 2)) if body else None, timeout=left
            )
        except Unreachable:
            self._peer_ids.pop(address, None)  # dialled anew, by this address, when its turn comes
            raise


class LightClient:
    """Use `open_light_client`."""

    def __init__(self, peer: OverlayPeer, registry: Registry) -> None:
        self.peer = peer
        self.registry = registry


@asynccontextmanager
async def open_light_client(
    identity: Identity,
    addresses: Sequence[str],
    *,
    settings: OverlaySettings | None = None,
    registry_settings: RegistrySettings | None = None,
    data_dir: Path | None = None,
    timeout: float = 6.0,
    clock: Clock = time.time,
) -> AsyncIterator[LightClient]:
    """Acts for `identity` through the nodes at `addresses` (multiaddrs with /p2p/), while the context is open.

    With `data_dir` it remembers what it issued and hosts; one process at a time may use that. Raises DoorClosed when no
    node can be reached within `timeout` seconds, InvalidValue without addresses.
    """
    if not addresses:
        raise InvalidValue("a light client needs the address of a node at least")
    rules = registry_settings or RegistrySettings()
    overlay = settings or OverlaySettings()
    overlay = msgspec.structs.replace(overlay, member=False, listen=(), announce=(), bootstrap=())
    async with AsyncExitStack() as stack:
        path = Path(":memory:")
        if data_dir is not None:
            path = stack.enter_context(claimed(data_dir)) / DATABASE
        store = await stack.enter_async_context(open_store(path, inline=data_dir is None))
        try:
            peer = await stack.enter_async_context(open_peer(identity, overlay))
        except OverlayError as error:
            raise DoorClosed(str(error)) from error
        service = RegistryService(store, identity.peer_id, rules)
        replica = Replica(peer, store, service, Weights({}), clock)  # takes and gives only what this client hosts
        host = Host(peer, identity, StoreShelf(store, replica, identity.peer_id), rules, clock)
        door = RemoteDoor(peer, addresses, rules, clock)
        await door.open(timeout=timeout)
        yield LightClient(peer, Registry(identity, door, host, IssueLog(store), rules, clock))


def _refusal(error: CallRefused) -> RegistryError:
    return HostingRefused(error.message) if error.code == "hosting" else ServiceError(error.message)
