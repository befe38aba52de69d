"""The bodies of the calls about owners' indexes, between members."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Self

import msgspec

from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.decoding import decode_key_or_tombstone
from registry.model.owner_index import IndexEntry, ToldPage
from registry.model.values import MAX_LABEL, encode
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ITEMS, MAX_PAGE, Entries, Name, bounded_count

ENTER: Final = "registry.enter"
LISTS: Final = "registry.lists"
LIST: Final = "registry.list"

MOST_VALUES: Final = 3  # of an entry: a key and two tombstones
MOST_LISTED: Final = 256
"""Entries of one page; verifying them takes 30 ms."""

Label = Annotated[str, msgspec.Meta(max_length=MAX_LABEL)]
Digest = Annotated[bytes, msgspec.Meta(max_length=32)]


class EnterBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.enter`: keep these in their owners' indexes. Each entry is an array of the key and key tombstones of
    one resource, in CBOR. Answered with `PutAnswer`."""

    entries: Entries

    @classmethod
    def of(cls, entries: Iterable[IndexEntry]) -> Self:
        """The body that carries these entries, in their order."""
        return cls(tuple(map(_told, entries)))

    def decoded(self) -> list[IndexEntry | ErrorInfo]:
        """Each entry, or why it is none that this version takes. Not verified yet."""
        return [_entry_or_error(entry) for entry in self.entries]


class ListsBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.lists`: are these listed in an owner's index? [resource id, digest of the entry] each."""

    owner_peer_id: Name
    entries: Annotated[tuple[tuple[Name, Digest], ...], msgspec.Meta(max_length=MAX_ITEMS)]


class ListsAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Whether each is, in the order of the request."""

    held: Annotated[tuple[bool, ...], msgspec.Meta(max_length=MAX_ITEMS)]


class ListBody(msgspec.Struct, frozen=True, array_like=True):
    """`registry.list`: the next entries of an owner's index after a label, or from its first one on; `limit` of them at
    most. Answered with `IndexPage`."""

    owner_peer_id: Name
    after: Label | None = None
    limit: int = MOST_LISTED

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "limit", min(max(bounded_count(self.limit), 1), MOST_LISTED))


class IndexPage(msgspec.Struct, frozen=True, array_like=True):
    """A part of an owner's index: entries as in `EnterBody`, in order of their labels. `last`: the label up to which
    this is all that there is, None at the end.

    Of a replica that hasn't caught up since it was away (`caught_up` false), what it lacks proves nothing.
    """

    entries: Entries
    last: Label | None = None
    caught_up: bool = True

    @classmethod
    def of(cls, page: ToldPage, *, caught_up: bool) -> Self:
        """The page as it travels."""
        return cls(tuple(map(_told, page.entries)), page.last, caught_up)

    def decoded(self) -> list[IndexEntry]:
        """The entries that are understood. Not verified yet."""
        entries = map(_entry_or_error, self.entries)
        return [entry for entry in entries if isinstance(entry, IndexEntry)]


def is_full(entries: Iterable[IndexEntry], limit: int) -> bool:
    """Whether so many entries may be a page that isn't the last one. Who tells of fewer holds readers up."""
    known = list(entries)
    return 2 * len(known) >= limit or 2 * sum(entry.size() for entry in known) >= MAX_PAGE


def _told(entry: IndexEntry) -> tuple[bytes, ...]:
    return tuple(map(encode, entry.values()))


def _entry_or_error(entry: Any) -> IndexEntry | ErrorInfo:
    if not isinstance(entry, list | tuple) or not 0 < len(entry) <= MOST_VALUES:
        return ErrorInfo(Code.UNKNOWN_KIND, "an entry that isn't one to three keys and key tombstones")
    if not all(isinstance(blob, bytes) for blob in entry):
        return ErrorInfo(Code.UNKNOWN_KIND, "an entry that isn't made of byte strings")
    try:
        return IndexEntry.of(*map(decode_key_or_tombstone, entry))
    except InvalidValue as error:
        return ErrorInfo.of(error)
