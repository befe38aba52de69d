"""CBOR of large values in parts that are made quickly; joined, they are what cbor2 makes of the whole value.

Pure. What is small is encoded at once by `overlay.rpc.framing.encode_item`: looking through it costs a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import cbor2

from overlay.limits.decoder import MAX_CONTAINERS, MAX_DEPTH, MAX_ITEMS, check_items
from overlay.rpc.framing import FrameError

MOST_AT_ONCE: Final = 4000  # items of one part; cbor2 takes 1.4 ms for as many empty lists, the dearest there are

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_LIST, _MAP = 0x80, 0xA0  # the first byte of their heads
_Counts = tuple[int, int]
"""Items, and lists and maps of them."""


def is_small(value: object) -> bool:
    """Whether `value` has `MOST_AT_ONCE` items at most, with those within it."""
    return type(value) in _SCALARS or _count((value,)) is not None


def parts_of(value: object) -> Iterator[bytes]:
    """The parts, one each time that it is asked for. Raises `FrameError` as `encode_item`, and for too many items.

    What changes between two parts is encoded as it was or as it is, but is CBOR.
    """
    items = containers = 0
    try:
        for part, counted in _parts((value,), 0):
            items += counted[0]
            containers += counted[1]
            if items > MAX_ITEMS or containers > MAX_CONTAINERS:
                break
            check_items(part)
            yield part
    except FrameError:
        raise
    except Exception as error:  # the codec's own errors, and whatever the value's methods raise
        raise FrameError(f"can't be encoded: {error}") from error
    if items > MAX_ITEMS:  # better refused here than by who gets it
        raise FrameError(f"can't be encoded: has more than {MAX_ITEMS} items")
    if containers > MAX_CONTAINERS:
        raise FrameError(f"can't be encoded: has more than {MAX_CONTAINERS} lists and maps")


def _parts(values: Sequence[object], depth: int) -> Iterator[tuple[bytes, _Counts]]:
    """Encodes values one after another, halving them until each half is small; with what each part holds."""
    count = _count(values)
    if count is not None:
        yield cbor2.dumps(values)[len(_head(_LIST, len(values))) :], count
        return
    if len(values) > 1:
        half = len(values) // 2
        yield from _parts(values[:half], depth)
        yield from _parts(values[half:], depth)
        return
    [value] = values
    if depth == MAX_DEPTH:  # also a list that is in itself
        raise FrameError("can't be encoded: it is nested too deeply")
    if isinstance(value, dict):
        yield _head(_MAP, len(value)), (1, 1)
        yield from _parts((*chain.from_iterable(value.items()),), depth + 1)
    elif isinstance(value, list | tuple):  # nothing else is large
        yield _head(_LIST, len(value)), (1, 1)
        yield from _parts((*value,), depth + 1)


def _count(values: Sequence[object]) -> _Counts | None:
    """How much there is with what is within; None for more than `MOST_AT_ONCE` items, without looking at all."""
    count = len(values)
    left: list[Iterable[object]] = [values]
    for container in left:  # which grows meanwhile
        if count > MOST_AT_ONCE:
            return None
        for value in container:
            if type(value) in _SCALARS:
                continue
            if isinstance(value, list | tuple):
                count += len(value)
                left.append(value)
            elif isinstance(value, dict):
                count += 2 * len(value)
                left.append(value.values())
    return (count, len(left) - 1) if count <= MOST_AT_ONCE else None


def _head(first: int, length: int) -> bytes:
    """How a list or map of so many elements begins."""
    if length < 24:
        return bytes([first | length])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if length < 1 << 8 * size:
            return bytes([first | info]) + length.to_bytes(size, "big")
    raise FrameError(f"can't be encoded: {length} elements")
