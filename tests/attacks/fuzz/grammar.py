"""CBOR of hostile shapes, well-formed and nearly so: deep, wide, long, ambiguous, and what our protocol doesn't use."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import cbor2

UINT, NEGATIVE, BYTES, TEXT, LIST, MAP, TAG, SIMPLE = range(8)

NUMBERS: Final = (
    0, 1, 23, 24, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1,
)  # fmt: skip
FLOATS: Final = (0.0, -0.0, 1.5, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS: Final = (
    "",
    "\0",
    "a",
    "key",
    "record",
    "tombstone",
    "\u202e",
    "\U0010ffff",
    "e\u0301",
    "../../etc/passwd",
    "%s",
)
TAGS: Final = (0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 55_799, 2**32, 2**64 - 1)
_SMALL: Final = 300  # bytes at most of strings within other things


def head(randomness: random.Random, kind: int, value: int) -> bytes:
    """The beginning of an item, mostly as short as it can be said."""
    shortest = 0 if value < 24 else 1 if value < 2**8 else 2 if value < 2**16 else 4 if value < 2**32 else 8
    size = shortest if randomness.random() < 0.9 else randomness.choice([1, 2, 4, 8])
    if size == 0 or value >= 2 ** (8 * size):
        size = shortest
    if size == 0:
        return bytes([kind << 5 | value])
    return bytes([kind << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + value.to_bytes(size, "big")


def item(randomness: random.Random, depth: int = 4) -> bytes:  # noqa: PLR0911 - a table
    """A small item, mostly well-formed."""
    kind = randomness.choices(range(8), (6, 2, 4, 4, 4, 3, 1, 3) if depth else (6, 2, 4, 4, 0, 0, 0, 3))[0]
    match kind:
        case 0 | 1:
            return head(randomness, kind, _number(randomness))
        case 2:
            return _string(randomness, BYTES, randomness.randbytes(_length(randomness)))
        case 3:
            return _string(randomness, TEXT, _text(randomness))
        case 4:
            inner = [item(randomness, depth - 1) for _ in range(randomness.choice((0, 1, 1, 2, 3, 5, 9)))]
            return _counted(randomness, LIST, inner, len(inner))
        case 5:
            keys = [item(randomness, randomness.choice((0, 0, 0, depth - 1))) for _ in range(randomness.randrange(5))]
            if keys and randomness.random() < 0.1:
                keys.append(keys[0])
            inner = [part for key in keys for part in (key, item(randomness, depth - 1))]
            return _counted(randomness, MAP, inner, len(keys))
        case 6:
            return head(randomness, TAG, randomness.choice(TAGS)) + item(randomness, depth - 1)
        case _:
            return _simple(randomness)


def _number(randomness: random.Random) -> int:
    return randomness.choice(NUMBERS) if randomness.random() < 0.4 else randomness.getrandbits(randomness.randrange(64))


def _length(randomness: random.Random) -> int:
    return randomness.choice((0, 1, 8, 16, 32, 33, 64, 255, 256, randomness.randrange(_SMALL)))


def _text(randomness: random.Random) -> bytes:
    if randomness.random() < 0.1:
        return randomness.randbytes(randomness.randrange(40))  # hardly ever UTF-8
    return (randomness.choice(TEXTS) * randomness.choice((1, 1, 1, 7))).encode()


def _string(randomness: random.Random, kind: int, content: bytes) -> bytes:
    chance = randomness.random()
    if chance < 0.02:
        return bytes([kind << 5 | 31]) + head(randomness, kind, len(content)) + content + b"\xff"
    size = len(content)
    if chance < 0.04:
        size += randomness.choice((-1, 1, 2**16, 2**31, 2**63))
    return head(randomness, kind, max(size, 0)) + content


def _counted(randomness: random.Random, kind: int, inner: list[bytes], count: int) -> bytes:
    chance = randomness.random()
    if chance < 0.02:
        return bytes([kind << 5 | 31]) + b"".join(inner) + b"\xff"
    if chance < 0.04:
        count += randomness.choice((-1, 1, 1000, 2**31, 2**63))
    return head(randomness, kind, max(count, 0)) + b"".join(inner)


def _simple(randomness: random.Random) -> bytes:
    match randomness.randrange(6):
        case 0:
            return randomness.choice((b"\xf4", b"\xf5", b"\xf6", b"\xf7"))
        case 1:
            return b"\xfb" + struct.pack(">d", randomness.choice(FLOATS))
        case 2:
            return b"\xfa" + randomness.randbytes(4)
        case 3:
            return b"\xf9" + randomness.randbytes(2)
        case 4:
            return bytes([0xE0 + randomness.randrange(32)])
        case _:
            return b"\xf8" + randomness.randbytes(1)


# Large ones: a few bytes, again and again


def _deep(randomness: random.Random, size: int) -> bytes:
    step = randomness.choice(
        (b"\x81", b"\x82\x00", b"\xa1\x00", b"\xa1\x60", b"\xc1", b"\x9f", b"\xd8\x1c\x81", b"\xa1")
    )
    return step * min(size // len(step), randomness.choice((16, 31, 32, 33, 100, 1000, 10**6))) + b"\x00"


def _wide(randomness: random.Random, size: int) -> bytes:
    unit = randomness.choice(
        (b"\x80", b"\xa0", b"\x00", b"\x40", b"\x60", b"\xf6", b"\x18\x20", b"\x1b" + b"\xff" * 8, b"\x81\x80",
         b"\x41a", b"\x61a", b"\xfb" + b"\x7f" * 8, b"\x38\x63", b"\xa1\x60\x80", b"\x82\x40\x40",
         b"\x59\x01\x00" + bytes(256))
    )  # fmt: skip
    count = max(size // len(unit), 1)
    return head(randomness, LIST, count) + unit * count


def _keys(randomness: random.Random, size: int) -> bytes:
    """A map with many keys: alike, different, or of kinds that aren't allowed."""
    width = randomness.choice((2, 4, 8))
    count = max(min(size // (width + 2), 200_000), 1)
    match randomness.randrange(4):
        case 0:
            pairs = (bytes([BYTES << 5 | width]) + bytes(width) + b"\x00") * count
        case 1:
            pairs = b"".join(
                bytes([TEXT << 5 | width]) + b"%0*d" % (width, n % 10**width) + b"\x80" for n in range(count)
            )
        case 2:
            pairs = b"".join(bytes([BYTES << 5 | 8]) + n.to_bytes(8, "big") + b"\x00" for n in range(count))
        case _:
            pairs = b"".join(b"\x1a" + n.to_bytes(4, "big") + b"\xf6" for n in range(count))
    return head(randomness, MAP, count) + pairs


def _long(randomness: random.Random, size: int) -> bytes:
    content = randomness.choice((b"\0", b"a", b"\xff", "\u20ac".encode(), b"(")) * size
    return head(randomness, randomness.choice((BYTES, TEXT)), len(content[:size])) + content[:size]


def _shared(randomness: random.Random, size: int) -> bytes:
    """References that are shared within what they are shared in, in a map's key: cbor2 took for ever."""
    nested = b"\x80"
    for number in range(min(size // 8, randomness.choice((2, 40, 1000)))):
        nested = b"\xd8\x1c\x82" + nested + b"\xd8\x1d" + cbor2.dumps(number)
    return b"\xa1" + nested + b"\x00"


def _expanding(randomness: random.Random, size: int) -> bytes:
    tag = randomness.choice((b"\xc2", b"\xc3", b"\xd8\x23", b"\xd8\x24", b"\xc0", b"\xc4", b"\xd9\x01\x02"))
    return tag + _long(randomness, size)


def _blobs(randomness: random.Random, size: int) -> bytes:
    """CBOR within byte strings, within byte strings, ..."""
    inner = randomness.choice((_wide, _deep, _keys))(randomness, size)
    for _ in range(randomness.randrange(1, 5)):
        inner = head(randomness, LIST, 1) + head(randomness, BYTES, len(inner)) + inner
    return inner


_SHAPES: Final[tuple[Callable[[random.Random, int], bytes], ...]] = (
    _deep, _wide, _wide, _wide, _keys, _long, _shared, _expanding, _blobs,
)  # fmt: skip


def shape(randomness: random.Random, longest: int) -> bytes:
    """One item of one hostile shape, of up to `longest` bytes, about."""
    size = int(longest ** randomness.random())
    return randomness.choice(_SHAPES)(randomness, size)


def hostile(randomness: random.Random, longest: int) -> bytes:
    """An item that owes nothing to our protocol."""
    if randomness.random() < 0.02:
        return shape(randomness, longest)
    return item(randomness) + (item(randomness, 1) if randomness.random() < 0.02 else b"")
