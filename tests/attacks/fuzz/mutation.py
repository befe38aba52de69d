"""Alters messages that are good, so that hostile insides come in the right outer shape, which is what reaches deep.

A message is a tree of plain values, out of CBOR, MessagePack, JSON or protobuf. A few of its nodes are replaced, taken
away, repeated or swapped; byte strings that hold CBOR are altered within. At last the bytes themselves may be.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import cbor2
import msgspec

from overlay.limits.decoder import DecodeError, decode
from tests.attacks.fuzz.grammar import BYTES, FLOATS, LIST, MAP, NUMBERS, TEXT, TEXTS, item, shape

_MOST_REPEATED: Final = 4096
_MOST_WRITTEN: Final = 4 * 2**20  # bytes of what is repeated: no parser is given as many, so the rest is cut off anyway
_CANONICAL: Final = random.Random(1)


class Raw:
    """What is written as it is."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class Repeated:
    """Many of the same within a list."""

    def __init__(self, value: object, count: int) -> None:
        self.value = value
        self.count = count


class Format(NamedTuple):
    """How trees become bytes and bytes trees."""

    name: str
    load: Callable[[bytes], object]
    dump: Callable[[object], bytes]


def _repeated(encoded: bytes, count: int) -> bytes:
    """So many times, or as often as matters: what is repeated may hold what is repeated, and take gigabytes."""
    return encoded * min(count, _MOST_WRITTEN // max(len(encoded), 1) + 1)


# CBOR


def dump_cbor(value: object) -> bytes:  # noqa: PLR0911 - a table
    """The CBOR of a tree, deterministic but for its raw parts."""
    match value:
        case Raw():
            return value.encoded
        case list() | tuple():
            count = sum(inner.count if isinstance(inner, Repeated) else 1 for inner in value)
            return _head(LIST, count) + b"".join(map(dump_cbor, value))
        case Repeated():
            return _repeated(dump_cbor(value.value), value.count)
        case dict():
            return _head(MAP, len(value)) + b"".join(dump_cbor(part) for pair in value.items() for part in pair)
        case bytes():
            return _head(BYTES, len(value)) + value
        case str():
            encoded = value.encode(errors="surrogatepass")
            return _head(TEXT, len(encoded)) + encoded
        case _:
            return cbor2.dumps(value)


def _head(kind: int, value: int) -> bytes:
    if value < 24:
        return bytes([kind << 5 | value])
    size = 1 if value < 2**8 else 2 if value < 2**16 else 4 if value < 2**32 else 8
    return bytes([kind << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + value.to_bytes(size, "big")


# MessagePack and JSON


def _plain(value: object) -> Any:  # noqa: PLR0911 - a table
    """A tree as the encoders of other formats take it."""
    match value:
        case Raw():
            return value.encoded[:64].hex()
        case list() | tuple():
            flat: list[Any] = []
            for inner in value:
                if isinstance(inner, Repeated):
                    flat += [_plain(inner.value)] * inner.count
                else:
                    flat.append(_plain(inner))
            return flat
        case Repeated():
            return [_plain(value.value)] * value.count
        case dict():
            return {_key(name): _plain(inner) for name, inner in value.items()}
        case int() if not -(2**63) <= value < 2**64:
            return float(value)
        case str():
            return value.encode(errors="replace").decode()
        case _:
            return value


def _key(name: object) -> Any:
    return name if isinstance(name, str | int | bytes) else repr(name)


def _dump_msgpack(value: object) -> bytes:
    return msgspec.msgpack.encode(_plain(value))


def _dump_json(value: object) -> bytes:
    return json.dumps(_plain(value), default=lambda other: list(other) if isinstance(other, bytes) else None).encode()


# Protobuf, as lists of (field, wire type, value); what looks like a message within is one


def load_protobuf(encoded: bytes) -> list[Any]:
    """The fields of a message. Raises ValueError for what is none."""
    fields: list[Any] = []
    at = 0
    while at < len(encoded):
        tag, at = _varint(encoded, at)
        wire = tag & 7
        if not tag >> 3:
            raise ValueError("no field")
        if wire == 0:
            number, at = _varint(encoded, at)
            fields.append([tag >> 3, wire, number])
        elif wire == 2:
            size, at = _varint(encoded, at)
            inner = encoded[at : at + size]
            if len(inner) < size:
                raise ValueError("cut")
            at += size
            fields.append([tag >> 3, wire, _within(inner)])
        else:
            raise ValueError("another wire type")
    return fields


def _within(inner: bytes) -> object:
    try:
        return load_protobuf(inner) if len(inner) > 3 else inner
    except ValueError:
        return inner


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(encoded) or shift > 63:
            raise ValueError("no varint")
        byte = encoded[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def to_varint(number: int) -> bytes:
    """As protobuf writes it."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(written) + bytes([number])


def dump_protobuf(value: object) -> bytes:  # noqa: PLR0911 - a table
    """The bytes of fields; of what isn't one, something near it."""
    match value:
        case [int(number), int(wire), inner] if number > 0 and not isinstance(inner, Repeated):
            number &= 2**29 - 1
            if wire == 0 and isinstance(inner, int):
                return to_varint(number << 3) + to_varint(inner & (2**64 - 1))
            content = dump_protobuf(inner)
            return to_varint(number << 3 | 2) + to_varint(len(content)) + content
        case list() | tuple():
            return b"".join(map(dump_protobuf, value))
        case Repeated():
            return _repeated(dump_protobuf(value.value), value.count)
        case Raw():
            return value.encoded
        case bytes():
            return value
        case str():
            return value.encode(errors="replace")
        case int():
            return to_varint(value & (2**64 - 1))
        case _:
            return repr(value).encode()


CBOR: Final = Format("CBOR", decode, dump_cbor)
MSGPACK: Final = Format("MessagePack", msgspec.msgpack.decode, _dump_msgpack)
JSON: Final = Format("JSON", json.loads, _dump_json)
PROTOBUF: Final = Format("protobuf", load_protobuf, dump_protobuf)

# Altering

Path = tuple[Any, ...]


def mutated(randomness: random.Random, seeds: Sequence[bytes], form: Format, longest: int) -> bytes:
    """One of the good messages, altered."""
    tree = form.load(randomness.choice(seeds))
    donor = form.load(randomness.choice(seeds)) if randomness.random() < 0.2 else tree
    for _ in range(randomness.choice((1, 1, 1, 2, 3))):
        tree = _altered(randomness, tree, donor, longest)
    encoded = form.dump(tree)
    if randomness.random() < 0.12:
        encoded = damaged(randomness, encoded)
    return encoded


def _altered(randomness: random.Random, tree: Any, donor: Any, longest: int) -> Any:
    """The tree with one node altered; what is altered within is copied."""
    if isinstance(tree, list) and tree and randomness.random() < 0.85:
        place = randomness.randrange(len(tree))
        if isinstance(tree[place], Repeated | Raw) or randomness.random() < 0.25:
            return _list_altered(randomness, tree, donor, longest)
        inside = _altered(randomness, tree[place], _part(randomness, donor), longest)
        return [*tree[:place], inside, *tree[place + 1 :]]
    if isinstance(tree, dict) and tree and randomness.random() < 0.85:
        name = randomness.choice(list(tree))
        if randomness.random() < 0.2:
            return _map_altered(randomness, tree, name)
        return {**tree, name: _altered(randomness, tree[name], _part(randomness, donor), longest)}
    if isinstance(tree, bytes) and len(tree) > 8 and randomness.random() < 0.7:
        return _bytes_altered(randomness, tree, longest)
    return _replacement(randomness, tree, donor, longest)


def _part(randomness: random.Random, donor: Any) -> Any:
    if isinstance(donor, list) and donor:
        return randomness.choice(donor)
    if isinstance(donor, dict) and donor:
        return randomness.choice(list(donor.values()))
    return donor


def _list_altered(randomness: random.Random, tree: list[Any], donor: Any, longest: int) -> list[Any]:
    place = randomness.randrange(len(tree))
    match randomness.randrange(6):
        case 0:
            return [*tree[:place], *tree[place + 1 :]]
        case 1:
            return [*tree, Raw(item(randomness, 2))]
        case 2:
            return [*tree[:place], _part(randomness, donor), *tree[place:]]
        case 3:
            return list(reversed(tree)) if randomness.random() < 0.3 else [*tree[place:], *tree[:place]]
        case 4:
            return [*tree, *tree]
        case _:
            return [*tree[:place], Repeated(tree[place], _many(randomness, longest)), *tree[place + 1 :]]


def _many(randomness: random.Random, longest: int) -> int:
    return min(int(_MOST_REPEATED ** randomness.random()), longest // 16 or 1)


def _map_altered(randomness: random.Random, tree: dict[Any, Any], name: Any) -> dict[Any, Any]:
    altered = dict(tree)
    if randomness.random() < 0.5:
        del altered[name]
    else:
        altered[randomness.choice(TEXTS)] = altered[name]
    return altered


def _bytes_altered(randomness: random.Random, content: bytes, longest: int) -> object:
    """What CBOR is in it altered, or its own bytes."""
    try:
        inner = decode(content)
        if isinstance(inner, list) and dump_cbor(inner) == content:
            return dump_cbor(_altered(randomness, inner, inner, longest))
    except DecodeError:
        pass
    return damaged(randomness, content)


def _replacement(  # noqa: PLR0911 - a table
    randomness: random.Random, value: Any, donor: Any, longest: int
) -> object:
    """Something else: of the same kind, of another one, or huge."""
    chance = randomness.random()
    if chance < 0.03:
        return Raw(shape(randomness, longest))
    if chance < 0.2:
        return Raw(item(randomness, 2))
    if chance < 0.3:
        return _part(randomness, donor)
    match value:
        case bool():
            return randomness.choice((not value, None, 0, 1, 2))
        case int():
            return randomness.choice(
                (value + 1, value - 1, -value, -1, *NUMBERS, -(2**63), -(2**64), float(value), str(value), True, None)
            )
        case float():
            return randomness.choice((*FLOATS, math.ulp(value), 0, None))
        case str():
            return randomness.choice(
                (
                    value.encode(errors="surrogatepass"),
                    value[:-1],
                    value + "\0",
                    value.upper(),
                    value * 40,
                    "\ud800",
                    *TEXTS,
                    [value],
                    None,
                    7,
                )
            )
        case bytes():
            return randomness.choice(
                (value[:-1], value + b"\0", b"", bytes(len(value)), value.hex(), value * 40, [value])
            )
        case list():
            return randomness.choice(([], None, dict.fromkeys(TEXTS, 0), [value], b"", 0, ""))
        case None:
            return randomness.choice((0, "", b"", [], {}, False))
        case _:
            return None


def damaged(randomness: random.Random, content: bytes) -> bytes:  # noqa: PLR0911 - a table
    """Bytes with some cut off, changed, repeated or put in."""
    if not content:
        return randomness.randbytes(randomness.randrange(8))
    at = randomness.randrange(len(content))
    match randomness.randrange(6):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([content[at] ^ 1 << randomness.randrange(8)]) + content[at + 1 :]
        case 2:
            return content[:at] + randomness.randbytes(randomness.randrange(1, 9)) + content[at:]
        case 3:
            return content[:at] + content[at + randomness.randrange(1, 9) :]
        case 4:
            return (
                content[:at] + bytes([randomness.choice((0, 0x7F, 0x80, 0xFF, 0x9F, 0xBF, 0xDB))]) + content[at + 1 :]
            )
        case _:
            return content[:at] + content[at : at + 40] * randomness.randrange(2, 9) + content[at:]
