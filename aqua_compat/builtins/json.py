"""`json`: objects from keys and values, and JSON as text, as nox has it."""

from __future__ import annotations

from typing import Final

import msgspec

_LONGEST: Final = 128 * 1024  # characters of JSON text: what is parsed has up to 25 times as many bytes in memory

Object = dict[str, object]
Pairs = list[tuple[str, object]]


class Json:
    """The original's service `json`; a text of at most 131,072 characters is parsed."""

    async def obj(self, *keys_and_values: object) -> Object:
        """An object of these keys, each before its value."""
        return dict(_pairs(keys_and_values))

    async def obj_pairs(self, pairs: Pairs) -> Object:
        """An object of these pairs of key and value."""
        return dict(pairs)

    async def put(self, obj: Object, key: str, value: object = None) -> Object:
        """The object with one key more, or another value for it."""
        return {**obj, key: value}

    async def puts(self, obj: Object, *keys_and_values: object) -> Object:
        """The object with these keys, each before its value."""
        return {**obj, **dict(_pairs(keys_and_values))}

    async def puts_pairs(self, obj: Object, pairs: Pairs) -> Object:
        """The object with these pairs of key and value."""
        return {**obj, **dict(pairs)}

    async def parse(self, text: str) -> object:
        """The value that is given as JSON text."""
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text)} characters; at most {_LONGEST} are parsed")
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"error parsing json {text[:200]}: {error}") from error

    async def stringify(self, value: object = None) -> str:
        """The value as JSON text."""
        return msgspec.json.encode(value).decode()


def _pairs(keys_and_values: tuple[object, ...]) -> Pairs:
    if len(keys_and_values) % 2:
        raise ValueError(
            f"Expected odd number of arguments, got even. No value for key '{_shown(keys_and_values[-1])}'"
        )
    found: Pairs = []
    for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError(  # noqa: TRY004 - the script's fault
                "All keys must be of type string. Key of the following pair is of invalid type:"
                f" ({_shown(key)}, {_shown(value)})"
            )
        found.append((key, value))
    return found


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:200]
