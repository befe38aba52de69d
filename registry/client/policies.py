"""Changing the policy of one's own resource: read from a majority, edited, written to a majority, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from overlay.identity import Identity
from registry.client.issuing import ATTEMPTS, NOT_FOUND, no_resource_id
from registry.client.key_cache import KeyCache
from registry.client.node_api import NodeApi
from registry.client.node_writer import NodeWriter, failed, until
from registry.client.results import Done
from registry.errors import RegistryError
from registry.model.signing import is_key_id
from registry.model.values import Key
from registry.permission.edits import Edit, edited, holds
from registry.permission.policy import POLICY_TYPE, encode_policy
from registry.protocol.error_info import texts
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.replica.countersign import Countersigner

NOT_CHANGED: Final = "the policy wasn't changed"


class PolicyEditor:
    """Makes edits for one identity. A change by another machine of the owner that came between is kept, and the edits
    are made again on top of it."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        writer: NodeWriter,
        keys: KeyCache,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._node_api = node_api
        self._host = host
        self._writer = writer
        self._keys = keys
        self._clock = clock

    async def change(self, resource_id: str, edits: Sequence[Edit], timeout: float) -> Done:
        """Has the policy of a resource hold `edits`, within `timeout` seconds."""
        if not is_key_id(resource_id):
            return Done(False, (no_resource_id(resource_id),))
        deadline = trio.current_time() + timeout
        done = Done(False, failed((), NOT_CHANGED, timed_out=True))
        try:
            await self._host.clock_guard.wait()
            with trio.move_on_at(deadline):
                majority = len(await self._node_api.neighbours(resource_id, timeout=until(deadline))) // 2 + 1
                for _ in range(ATTEMPTS):
                    found = await self._node_api.read(resource_id, ack=majority, timeout=until(deadline))
                    key = found.resource.key
                    if key is None or found.answered < majority:
                        return Done(False, failed(texts(found.errors), NOT_FOUND, timed_out=found.timed_out))
                    if key.owner_peer_id != self._identity.peer_id:
                        return Done(False, (f"only its owner {key.owner_peer_id} may change its policy",))
                    if all(holds(key.policy, edit) for edit in edits):
                        return Done(True, (), max(done.stored, found.answered))
                    changed = self._signed(key, edits)
                    await self._host.keep_key(changed)
                    done = (await self._writer.write(Item(changed), majority, until(deadline), NOT_CHANGED)).done
                    self._keys.forget(resource_id)
        except RegistryError as error:
            return Done(False, (str(error),), done.stored)
        return Done(False, done.errors or failed((), NOT_CHANGED, timed_out=True), done.stored)

    def _signed(self, key: Key, edits: Sequence[Edit]) -> Key:
        """The key that follows, with these edits. Raises InvalidPolicy."""
        unsigned = msgspec.structs.replace(
            key,
            timestamp_created=max(int(self._clock()), key.timestamp_created),
            challenge=encode_policy(edited(key.policy, edits)),
            challenge_type=POLICY_TYPE,
        )
        return msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))
