"""The resources of this identity: giving a label a key, and ending it."""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from overlay.identity import Identity
from registry.client.issuer import ATTEMPTS, Issuer, no_resource_id, not_found
from registry.client.key_cache import KeyCache
from registry.client.majority import read_majority
from registry.client.node_api import NodeApi
from registry.client.node_writer import NodeWriter, Written, failed, refused, until
from registry.client.results import Created, Done
from registry.codes import Code
from registry.errors import RegistryError
from registry.model.signing import is_key_id
from registry.model.values import Key, KeyTombstone
from registry.permission.policy import MAX_REVISION, POLICY_TYPE, Policy, encode_policy
from registry.protocol.messages import Item
from registry.quorum.read_machine import ReadOutcome
from registry.replica.countersign import Countersigner

# Where the time was up, the original's `: timeout exceeded` stands behind these.
NOT_CREATED: Final = "resource wasn't created"
NOT_REMOVED: Final = "resource wasn't removed"
REMOVED_ABOVE: Final = 16
"""Revisions by which a removal is above the policy that ruled. One is enough to end that; the rest ends what other
machines of the owner make from it at the same moment, each change on top of the other: a change that was never
acknowledged would bring back the whole policy from which it was made, whom it let in as well."""


class Resources:
    """Makes and ends the keys of one identity. Times in seconds."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        writer: NodeWriter,
        issuer: Issuer,
        keys: KeyCache,
    ) -> None:
        self._identity = identity
        self._node_api = node_api
        self._host = host
        self._writer = writer
        self._issuer = issuer
        self._keys = keys

    async def create(self, label: str, factor: int, timeout: float) -> Created:
        """See `Registry.create_resource`."""
        deadline = trio.current_time() + timeout
        written = Written(Done(False, failed((), NOT_CREATED, timed_out=True), code=Code.TIMEOUT))
        try:
            await self._host.clock_guard.wait()
            timestamp = self._host.clock_guard.time_to_sign()
        except RegistryError as error:
            return Created(None, (str(error), NOT_CREATED), code=error.code)
        challenge, challenge_type = b"", ""
        with trio.move_on_at(deadline):
            for _ in range(ATTEMPTS):
                try:
                    # The value checks the label before it is hashed.
                    unsigned = Key(label, self._identity.peer_id, timestamp, challenge, challenge_type, b"")
                    key = msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))
                    await self._host.keep_key(key)
                except RegistryError as error:
                    if error.code is not Code.KEY_REMOVED:
                        return Created(None, (str(error),), code=error.code)
                    written = refused(error, NOT_CREATED)
                else:
                    written = await self._writer.write(Item(key), factor, until(deadline), NOT_CREATED)
                if written.done.success:
                    self._keys.remember(key)
                    return Created(key.id, written.done.errors, written.done.stored)
                if Code.KEY_REMOVED not in written.codes:
                    break
                try:
                    timestamp, revision = await self._after_key_tombstones(unsigned.id, until(deadline))
                    if revision:  # what had a policy begins anew above the removal, or a stale key would
                        challenge, challenge_type = encode_policy(Policy(revision=revision, open=True)), POLICY_TYPE
                except RegistryError as error:
                    errors = refused(error, NOT_CREATED, timed_out=until(deadline) <= 0).done.errors
                    return Created(None, errors, code=error.code)
        return Created(None, written.done.errors, written.done.stored, code=written.done.code)

    async def remove(self, resource_id: str, factor: int, timeout: float) -> Done:
        """See `Registry.remove_resource`."""
        if not is_key_id(resource_id):
            return Done(False, (no_resource_id(resource_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        try:
            await self._host.clock_guard.wait()
            outcome = await self._read(resource_id, 1, timeout)
            if outcome.resource.key is not None and outcome.resource.key.revision:
                outcome = await self._by_majority(resource_id, until(deadline) / 2) or outcome
            key = outcome.resource.key
            if key is None:
                return not_found(outcome)
            if key.owner_peer_id != self._identity.peer_id:
                only_owner = f"only its owner {key.owner_peer_id} may remove resource {resource_id}"
                return Done(False, (only_owner,), code=Code.NOT_PERMITTED)
            # Later than all that it should end, some of which may be from a clock ahead of ours.
            latest = max((state.timestamp_issued for state in outcome.resource.slots.values()), default=0)
            timestamp = max(self._host.clock_guard.time_to_sign(), key.timestamp_created, latest)
            revision = min(key.revision + REMOVED_ABOVE, MAX_REVISION + 1) if key.revision else 0
            unsigned = KeyTombstone(key.id, key.label, key.owner_peer_id, timestamp, b"", revision)
            key_tombstone = msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))
            self._host.signed.note(key.id, None)
            await self._host.keep(Item(key_tombstone))
        except RegistryError as error:
            return Done(False, (str(error),), code=error.code)
        self._keys.forget(resource_id)
        return (await self._writer.write(Item(key_tombstone), factor, until(deadline), NOT_REMOVED)).done

    async def _read(self, resource_id: str, ack: int, timeout: float) -> ReadOutcome:
        return await self._node_api.read(resource_id, ack=ack, timeout=timeout)

    async def _by_majority(self, resource_id: str, timeout: float) -> ReadOutcome | None:
        """What a majority of the replicas knows, as far as it answers: the removal of a policy has to be above the one
        that rules, which another machine of the owner may have written. None where no key is found."""
        outcome = (await read_majority(self._node_api, resource_id, timeout)).outcome
        return outcome if outcome.resource.key is not None else None

    async def _after_key_tombstones(self, resource_id: str, timeout: float) -> tuple[int, int]:
        """A time at which a removed resource can begin anew, and its policy's lowest revision then (0: without one).
        One replica alone may not have heard of the removal for which another refused the key."""
        ended = (await read_majority(self._node_api, resource_id, timeout)).resource.key_tombstones
        timestamp = max([self._host.clock_guard.time_to_sign(), *(each.timestamp_issued + 1 for each in ended)])
        await self._issuer.wait_until_accepted(timestamp)
        return timestamp, max((each.revision for each in ended), default=0)
