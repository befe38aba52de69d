"""This node as a keeper of owners' indexes: it takes entries, and tells pages of them.

An index is kept by the members nearest to its owner's id, taken for that of a resource (docs/design.md, Names and
lists). What it takes `registry.replica.index_rules` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from overlay.errors import Refusal
from overlay.limits.time_slices import turn
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.owner_index import IndexEntry, ToldPage
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import (
    ENTER,
    LIST,
    LISTS,
    EnterBody,
    IndexPage,
    ListBody,
    ListsAnswer,
    ListsBody,
)
from registry.protocol.messages import MAX_PAGE, Form, PutAnswer, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.storage import Store, Transaction

_PER_ENTRY: Final = 5e-5  # seconds

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class IndexKeeper:
    """Serves `registry.enter`, `registry.lists` and `registry.list`."""

    def __init__(self, network: Network, store: Store, replica: Replica) -> None:
        self._store = store
        self._replica = replica
        network.serve(ENTER, self._serve_enter)
        network.serve(LISTS, self._serve_lists)
        network.serve(LIST, self._serve_list)

    async def page(self, owner_peer_id: str, after: str | None, limit: int) -> ToldPage:
        """What this node tells of an owner's index after a label. Raises StorageError."""
        horizon = ExpiryHorizon.at(self._replica.now(), self._replica.settings)
        return await self._store.read(
            lambda transaction: transaction.index.page(
                owner_peer_id, after, limit, MAX_PAGE, horizon.owned, horizon.removed
            )
        )

    async def lists(self, owner_peer_id: str, entries: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Whether each of these resources is listed here with this digest. Raises StorageError."""

        def look(transaction: Transaction) -> list[bool]:
            found = [transaction.index.digest_of(owner_peer_id, key_id) for key_id, _ in entries]
            return [mine == digest for mine, (_, digest) in zip(found, entries, strict=True)]

        return await self._store.read(look)

    async def _serve_enter(self, caller: str, body: object) -> object:
        decoded = _parsed(body, EnterBody).decoded()
        entries = [entry for entry in decoded if isinstance(entry, IndexEntry)]
        try:
            verdicts = iter(await self._replica.ingest.enter(entries, caller))
        except StorageError as error:
            _log.error("entries of an index couldn't be stored", caller=caller, error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error
        errors = [entry if isinstance(entry, ErrorInfo) else next(verdicts) for entry in decoded]
        return build(PutAnswer(tuple(errors)))

    async def _serve_lists(self, caller: str, body: object) -> object:
        request = _parsed(body, ListsBody)
        try:
            held = await self.lists(request.owner_peer_id, request.entries)
        except StorageError as error:
            _log.error("an index couldn't be read", caller=caller, error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error
        return build(ListsAnswer(tuple(held)))

    async def _serve_list(self, caller: str, body: object) -> object:
        request = _parsed(body, ListBody)
        caught_up = await self._replica.wait_until_it_counts(request.owner_peer_id)
        try:
            page = await self.page(request.owner_peer_id, request.after, request.limit)
        except StorageError as error:
            _log.error("an index couldn't be read", caller=caller, error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error
        await turn(len(page.entries) * _PER_ENTRY)
        return build(IndexPage.of(page, caught_up=caught_up))


def _parsed(body: object, form: type[Form]) -> Form:
    try:
        return parse(body, form)
    except InvalidValue as error:
        raise Refusal(Code.INVALID, str(error)) from error
