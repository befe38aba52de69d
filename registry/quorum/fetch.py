"""Asks one replica what it knows of a resource, page by page, and keeps only what verifies (docs/design.md, original's
fault 13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from registry.model.merge import ResourceState, merged
from registry.model.values import Key, KeyTombstone, Record, Slot, State
from registry.model.verification import (
    VERIFIED_AT_ONCE,
    is_good,
    key_is_genuine,
    key_is_good,
    key_tombstone_is_genuine,
    key_tombstone_is_good,
    record_is_genuine,
    tombstone_is_genuine,
)
from registry.protocol.messages import READ, ReadBody, StatePage, build, parse
from registry.protocol.network import Clock, Network
from registry.settings import RegistrySettings
from registry.storage.in_turns import in_parts

MAX_PAGES: Final = 64  # of one replica's answer; one that lies could go on for ever

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def _forget(_peer_id: str) -> None:
    """For those to whom it makes no difference who invents."""


class Fetcher:
    """Asks replicas, and drops what isn't signed."""

    def __init__(
        self,
        network: Network,
        settings: RegistrySettings,
        clock: Clock,
        note_invented: Callable[[str], None] = _forget,
    ) -> None:
        """`note_invented(peer id)` is told of a peer that answered with what nobody signed."""
        self._network = network
        self._settings = settings
        self._clock = clock
        self._note_invented = note_invented

    async def fetch(
        self, peer_id: str, key_id: str, known: ResourceState, *, timeout: float, method: str = READ
    ) -> tuple[ResourceState, bool]:
        """What a replica knows, and whether it has caught up; `known` spares sending what is known already.

        `method`: another one that answers alike. `timeout` in seconds is for each page.
        Raises CallFailed, InvalidValue.
        """
        key: Key | None = None
        siblings: list[Key] = []
        key_tombstones: list[KeyTombstone] = []
        states: list[State] = []
        caught_up = True
        after: Slot | None = None
        digest = b"" if known.is_empty() else known.digest()
        for _ in range(MAX_PAGES):
            body = ReadBody(key_id=key_id, digest=digest, after=after)
            page = parse(await self._network.call(peer_id, method, build(body), timeout=timeout), StatePage)
            caught_up = caught_up and page.caught_up
            if body.after is None:
                found = (self._good_key(peer_id, key_id, each) for each in page.decoded_siblings())
                siblings = [each for each in found if each is not None]
            if page.same and digest:
                others = ResourceState.of(None, [], siblings=siblings)
                return (merged(known, others) if siblings else known), caught_up
            page_key, page_key_tombstones = page.decoded_keys()
            key = key or self._good_key(peer_id, key_id, page_key)
            if not key_tombstones:
                key_tombstones = self._good_key_tombstones(peer_id, key_id, page_key_tombstones)
            told, before = 0, len(states)
            async for part in in_parts(page.decoded_states()):
                told += len(part)
                states += await self._good(peer_id, key_id, part)
            if dropped := before + told - len(states):
                _log.warning("dropped states that don't verify", peer_id=peer_id, count=dropped)
            after = page.next_after(after)
            if after is None:
                break
        return ResourceState.of(key, states, *key_tombstones, siblings=siblings), caught_up

    def _good_key_tombstones(
        self, peer_id: str, key_id: str, key_tombstones: Sequence[KeyTombstone]
    ) -> list[KeyTombstone]:
        good: list[KeyTombstone] = []
        for each in key_tombstones:
            if each.id == key_id and key_tombstone_is_good(each, int(self._clock()), self._settings):
                good.append(each)
                continue
            if each.id != key_id or not key_tombstone_is_genuine(each):
                self._note_invented(peer_id)
            _log.warning("dropped a key tombstone that doesn't verify", peer_id=peer_id, key_id=key_id)
        return good

    def _good_key(self, peer_id: str, key_id: str, key: Key | None) -> Key | None:
        if key is None or (key.id == key_id and key_is_good(key, int(self._clock()), self._settings)):
            return key
        if key.id != key_id or not key_is_genuine(key):
            self._note_invented(peer_id)
        _log.warning("dropped a key that doesn't verify", peer_id=peer_id, key_id=key_id)
        return None

    async def _good(self, peer_id: str, key_id: str, states: list[State]) -> list[State]:
        good = await good_states(states, key_id, int(self._clock()), self._settings)
        if len(good) < len(states):
            await self._look_into(peer_id, key_id, [state for state in states if state not in good])
        return good

    async def _look_into(self, peer_id: str, key_id: str, bad: Sequence[State]) -> None:
        """By a clock that differs what is signed may be too old, or of the future."""
        for number, state in enumerate(bad, start=1):
            is_genuine = record_is_genuine(state) if isinstance(state, Record) else tombstone_is_genuine(state)
            if state.slot.key_id != key_id or not is_genuine:
                self._note_invented(peer_id)
                return
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()


async def good_states(states: Sequence[State], key_id: str, now: int, settings: RegistrySettings) -> list[State]:
    """Those of `states` that are of this resource and verify; lets other tasks run in between."""
    good: list[State] = []
    for number, state in enumerate(states, start=1):
        if state.slot.key_id == key_id and is_good(state, now, settings):
            good.append(state)
        if number % VERIFIED_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return good
