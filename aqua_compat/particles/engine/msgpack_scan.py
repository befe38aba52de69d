"""Counts what MessagePack holds without decoding it.

A decoder makes all objects in one call into C, and no other thread runs meanwhile, the Trio thread neither. A hostile
script can pass two megabytes of empty maps to its calls, each of one byte: decoding them would hold the node up 14 to
20 times as long as the most that is allowed. Counting is done in Python, so that others run meanwhile, and takes at
most a quarter of that time. Honest small calls take a third longer with it and the largest five times as long, in a
thread that only their source waits for. `python -m benchmarks.msgpack_scan` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# By its first byte: bytes of a value without what its length counts, and how many of them say that length. Elements
# of arrays and maps are values of their own, which follow.
_HEADS: Final = [(1, 0)] * 256
for _first, _size in {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items():  # integers
    _HEADS[_first] = (1 + _size, 0)
for _first, _size in {0xCA: 4, 0xCB: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}.items():  # floats, extensions
    _HEADS[_first] = (1 + _size, 0)
for _first, _size in {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.items():  # arrays, maps
    _HEADS[_first] = (1 + _size, 0)
for _length in range(32):  # short strings
    _HEADS[0xA0 + _length] = (1 + _length, 0)
for _first, _size in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.items():  # binaries, strings
    _HEADS[_first] = (1 + _size, _size)
for _first, _size in {0xC7: 1, 0xC8: 2, 0xC9: 4}.items():  # extensions
    _HEADS[_first] = (2 + _size, _size)

_OBJECTS: Final = frozenset((*range(0x80, 0xC0), *range(0xC4, 0xCA), *range(0xD4, 0xE0)))
_OBJECT_BYTES: Final = bytes(sorted(_OBJECTS))


def has_at_most(most: int, parts: Sequence[bytes]) -> bool:
    """Whether the parts together have at most `most` arrays, maps, strings and the like; numbers don't count."""
    suspects = sum(len(part) - len(part.translate(None, _OBJECT_BYTES)) for part in parts)
    if suspects <= most:  # bytes that may begin one are counted fast; mostly they are few enough
        return True
    left = most
    for part in parts:
        left -= objects_in(part, left)
    return left >= 0


def objects_in(encoded: bytes, most: int) -> int:
    """The number of arrays, maps, strings and the like in a part; `most` + 1 stands for more than `most`."""
    count = at = 0
    end = len(encoded)
    while at < end and count <= most:
        first = encoded[at]
        size, length_size = _HEADS[first]
        if length_size:
            size += int.from_bytes(encoded[at + 1 : at + 1 + length_size])
        count += first in _OBJECTS
        at += size
    return count
