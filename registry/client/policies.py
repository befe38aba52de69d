"""Changing the policy of one's own resource: read from a majority, edited, written to a majority, and read back, until
what rules there has the edits and no sibling that says anything else (`registry.permission.edits`). What somebody else
wrote goes to a majority, and is read back, before it is edited: or nobody might know any more what it said when it is
wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import structlog
import trio
from cachetools import LRUCache

from overlay.identity import Identity
from registry.client.issuer import no_resource_id, not_found
from registry.client.key_cache import KeyCache
from registry.client.majority import read_majority
from registry.client.node_api import NodeApi
from registry.client.node_writer import NodeWriter, failed, until
from registry.client.results import Done
from registry.codes import Code
from registry.errors import RegistryError
from registry.model.signing import is_key_id
from registry.model.values import Key
from registry.permission.edits import Edit, edit_text, following, holds, narrows, overtaken
from registry.permission.policy import POLICY_TYPE, AnyPolicy, Policy, encode_policy, policy_digest
from registry.protocol.messages import Item
from registry.replica.countersign import Countersigner

NOT_CHANGED: Final = "the policy wasn't changed"
ATTEMPTS: Final = 16  # reads and writes of one change; each other machine that changes the policy now costs about two
AGAIN: Final = 0.1  # seconds more after each attempt that too few replicas took
MAX_MADE: Final = 1024  # resources whose last edits are remembered

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _MadePolicy(NamedTuple):
    """Edits that were acknowledged, with the revision and digest of the policy that had them."""

    revision: int
    digest: bytes
    edits: Sequence[Edit]

    def is_beside(self, key: Key) -> bool:
        """Whether it is a sibling of the policy in `key`."""
        return key.revision == self.revision and policy_digest(POLICY_TYPE, key.challenge) != self.digest

    def is_unknown_to(self, key: Key) -> bool:
        """Whether the policy in `key` was made from a sibling of it."""
        policy = key.policy
        return isinstance(policy, Policy) and policy.revision == self.revision + 1 and policy.previous != self.digest


class PolicyEditor:
    """Makes edits for one identity. A change by another machine of the owner that came between is kept, and the edits
    are made again on top of it: also later, by `look_after`, where a machine that died meanwhile wrote over them."""

    def __init__(
        self,
        identity: Identity,
        node_api: NodeApi,
        host: Countersigner,
        writer: NodeWriter,
        keys: KeyCache,
    ) -> None:
        self._identity = identity
        self._node_api = node_api
        self._host = host
        self._writer = writer
        self._keys = keys
        self._made: LRUCache[str, _MadePolicy] = LRUCache(MAX_MADE)

    async def change(self, resource_id: str, edits: Sequence[Edit], timeout: float, factor: int = 1) -> Done:
        """Has the policy of a resource hold `edits`, within `timeout` seconds; on `factor` replicas at least, and a
        majority of those that are found: a side of a partition has its own."""
        if not is_key_id(resource_id):
            return Done(False, (no_resource_id(resource_id),), code=Code.INVALID)
        deadline = trio.current_time() + timeout
        done = Done(False, failed((), NOT_CHANGED, timed_out=True), code=Code.TIMEOUT)
        try:
            await self._host.clock_guard.wait()
            with trio.move_on_at(deadline):
                replicas = await self._node_api.neighbours(resource_id, timeout=until(deadline))
                majority = max(len(replicas) // 2 + 1, factor)
                bases: dict[bytes, AnyPolicy] = {}
                written: AnyPolicy | None = None  # what a majority has
                for attempt in range(ATTEMPTS):
                    found = await self._node_api.read(resource_id, ack=majority, timeout=until(deadline))
                    key = found.resource.key
                    if key is None or found.answered < majority:
                        return not_found(found)
                    if key.owner_peer_id != self._identity.peer_id:
                        only_owner = f"only its owner {key.owner_peer_id} may change its policy"
                        return Done(False, (only_owner,), code=Code.NOT_PERMITTED)
                    siblings = found.resource.siblings
                    for each in (key, *siblings):
                        if each.policy is not None:
                            bases[policy_digest(each.challenge_type, each.challenge)] = each.policy
                    others = [each.policy for each in siblings if each.policy and each.revision == key.revision]
                    after = following(key.policy, others, bases, edits)
                    edited = self._signed(key, after) if after is not None else None  # before anything is written
                    if key.policy is not None and key.policy != written:
                        changed = key
                    elif edited is not None:
                        changed = edited
                    else:
                        self._made[resource_id] = _MadePolicy(
                            key.revision, policy_digest(POLICY_TYPE, key.challenge), edits
                        )
                        return Done(True, (), done.stored)
                    await self._host.keep_key(changed)
                    done = (await self._writer.write(Item(changed), majority, until(deadline), NOT_CHANGED)).done
                    written = changed.policy if done.success else None
                    if not done.success:  # a replica may be back in a moment
                        await trio.sleep(AGAIN * attempt)
                    self._keys.forget(resource_id)
        except RegistryError as error:
            return Done(False, (str(error),), done.stored, code=error.code)
        return Done(False, done.errors or failed((), NOT_CHANGED, timed_out=True), done.stored, code=done.code)

    async def look_after(self, key: Key, timeout: float, *, has_siblings: bool) -> None:
        """Puts together what this owner's machines changed at the same moment, where the ruling `key` doesn't hold all
        of it: it has siblings, or is another than this process made, of the same revision."""
        made, again = self._made.get(key.id), list[Edit]()
        if made is not None and made.is_beside(key):
            again = list(made.edits)
        elif made is not None and made.is_unknown_to(key):
            missing = [edit for edit in made.edits if not holds(key.policy, edit)]
            again = [edit for edit in missing if narrows(key.policy, edit)]
            if len(again) < len(missing):
                _log.warning(
                    "another machine of this owner changed the policy without your last change; make it again, unless"
                    " that is meant so",
                    key_id=key.id,
                    revision=key.revision,
                    missing=[edit_text(edit) for edit in missing if edit not in again],
                )
        if not (again or has_siblings):
            return
        done = await self.change(key.id, again, timeout)
        _log.warning(
            "another machine of this owner changed the policy at the same time; what each changed was put together",
            key_id=key.id,
            revision=key.revision,
            success=done.success,
            errors=done.errors[:3],
        )

    async def overtaken(self, resource_id: str, timeout: float) -> list[Edit]:
        """What was changed by a machine of the owner, and written over by another that didn't know of it, as far as a
        majority of the replicas tells: of the last change but one. Raises RegistryError."""
        found = (await read_majority(self._node_api, resource_id, timeout)).resource
        ruling = found.key.policy if found.key is not None else None
        return overtaken(ruling, [each.policy for each in found.siblings])

    def _signed(self, key: Key, policy: Policy) -> Key:
        """The key that follows, with this policy. Raises InvalidPolicy if it is too large, and ClockOff."""
        unsigned = msgspec.structs.replace(
            key,
            timestamp_created=max(self._host.clock_guard.time_to_sign(), key.timestamp_created),
            challenge=encode_policy(policy),
            challenge_type=POLICY_TYPE,
        )
        return msgspec.structs.replace(unsigned, signature=self._identity.sign(unsigned.signed_bytes()))
