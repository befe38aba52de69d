"""Keys, records and tombstones out of the CBOR that peers and disks hold. What isn't valid in form raises InvalidValue.

A value of a later version's kind, or with further fields, is none that can be verified: decoding it raises UnknownKind,
so that whoever got it can pass over it, while bad form raises InvalidValue alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import msgspec

from overlay.limits.decoder import DecodeError, decode
from registry.errors import InvalidValue, UnknownKind
from registry.model.values import (
    CACHED_BYTES,
    MAX_BLOB,
    Key,
    KeyOrTombstone,
    KeyTombstone,
    Record,
    RecordMetadata,
    State,
    Tombstone,
)
from registry.permission.errors import InvalidPolicy


def decode_key(blob: bytes) -> Key:
    """A key out of its CBOR. Raises InvalidValue."""
    return cast("Key", _decode_cached(blob, Key) if len(blob) <= CACHED_BYTES else _decode(blob, Key))


def decode_key_or_tombstone(blob: bytes) -> KeyOrTombstone:
    """A key or key tombstone out of its CBOR. Raises InvalidValue."""
    decode = _decode_cached if len(blob) <= CACHED_BYTES else _decode
    return cast("KeyOrTombstone", decode(blob, _KEY_OR_TOMBSTONE))


def decode_key_tombstone(blob: bytes) -> KeyTombstone:
    """A key tombstone out of its CBOR. Raises InvalidValue."""
    return cast("KeyTombstone", _decode(blob, KeyTombstone))


def decode_state(blob: bytes) -> State:
    """A record or tombstone out of its CBOR. Raises InvalidValue."""
    return cast("State", _decode_cached(blob, _STATE) if len(blob) <= CACHED_BYTES else _decode(blob, _STATE))


def decode_metadata(blob: bytes) -> RecordMetadata:
    """The metadata of a record out of its CBOR. Raises InvalidValue."""
    return cast("RecordMetadata", _decode(blob, RecordMetadata))


_STATE: Any = State
_KEY_OR_TOMBSTONE: Any = KeyOrTombstone


@lru_cache(maxsize=1024)
def _decode_cached(blob: bytes, form: Any) -> Any:
    return _decode(blob, form)


def _decode(blob: bytes, form: Any) -> Any:
    try:
        raw = decode(blob, max_bytes=MAX_BLOB)
    except DecodeError as error:
        raise InvalidValue(f"a value that {error}") from error
    return _parse(raw, form)


def _parse(raw: object, form: type[Any]) -> Any:
    try:
        # Without `builtin_types` text would pass as bytes in base64: one value, two forms.
        return msgspec.convert(raw, form, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        if _may_be_newer(raw):
            raise UnknownKind("a value of a kind, or with fields, that this version doesn't know") from error
        if isinstance(error.__cause__, InvalidPolicy):  # its code tells more
            raise error.__cause__ from error
        raise InvalidValue(str(error)) from error


def _may_be_newer(raw: object) -> bool:
    """Whether a later version may write this: another kind of value, or a known one with further fields.

    What those fields say is signed with the rest, so without knowing them nothing of it can be verified.
    """
    match raw:
        case [str(kind), *fields]:
            form = _FORMS.get(kind)
            if form is None or len(fields) > len(form.__struct_fields__):
                return True
            return form is Record and bool(fields) and _may_be_newer(fields[0])
        case _:
            return False


_FORMS: dict[str, type[msgspec.Struct]] = {
    str(form.__struct_config__.tag): form for form in (Key, RecordMetadata, Record, Tombstone, KeyTombstone)
}
