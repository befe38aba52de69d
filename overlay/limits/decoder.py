"""The one decoder of what comes from peers, from disk and from users: CBOR, bounded before anything is built.

We use a part of CBOR: None, booleans, integers of 64 bits, floats, text, bytes, lists, and maps whose keys are text or
bytes. Everything else is refused by its first byte: indefinite lengths, `undefined` and other simple values, and tags,
whose decoders share, recurse and expand (430 bytes of shared references in a map's key keep cbor2 busy for ever). More
than `MAX_ITEMS` items are refused too: a megabyte of empty lists would hold the loop up for 0.1 s.

Both are checked before anything is built, by a regular expression that steps from item to item. It takes about as long
as building them; the same in Python takes five times as long. It doesn't see how items are nested: cbor2 does, and
refuses, while it builds, what is nested too deeply or ends too early, and keys of other kinds or that are there twice.

Lists and maps are bounded once more, before Python looks through them for garbage: in a process whose memory has been
in use for long, and is in pieces, that takes up to 20 ms for 40,000 of them, where it takes 1 ms in a fresh one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, cast

import cbor2

from overlay.limits.gc_pause import gc_paused

MAX_ITEMS: Final = 40_000
"""Items in one encoding, keys and those within others counted. They are decoded within 20 ms."""
MAX_CONTAINERS: Final = 10_000
"""Lists and maps among them. A megabyte of records has fewer."""
MAX_DEPTH: Final = 32
"""How deeply lists and maps may be nested."""

_BIG_INTEGERS: Final = frozenset({0xC2, 0xC3})  # the tags of those that 64 bits can't hold
_LONGEST_SHORT: Final = 257  # bytes of the longest item of a run
_CONTAINERS: Final = frozenset({list, dict})
_LONGEST_REASON: Final = 200  # characters: cbor2 tells a key that is there twice, whatever its length


class DecodeError(ValueError):
    """The bytes aren't CBOR as we use it, or hold too much of it."""


def decode(encoded: bytes, *, max_bytes: int | None = None, max_items: int = MAX_ITEMS) -> object:
    """The value that is encoded, lists as `list`, maps as `dict`. Raises `DecodeError`, and nothing else.

    `max_bytes`: longer encodings are refused; None where the caller has bounded them. `max_items`: as `MAX_ITEMS`, for
    what never needs as many. What follows the first item is ignored, but it is checked too.
    """
    if max_bytes is not None and len(encoded) > max_bytes:
        raise DecodeError(f"has {len(encoded)} bytes, more than {max_bytes}")
    return decode_counted(encoded, max_items)[0]


def decode_counted(encoded: bytes, max_items: int = MAX_ITEMS) -> tuple[object, int]:
    """`decode`, and how many items there are at most: by that one can charge for what is made of them.

    Strings of 256 bytes and more count as one, the bytes of shorter ones as well.
    """
    most = at = _run_of(max_items)(encoded, 0).end()
    if at != len(encoded):  # most frames are one run, and right
        most = _check(encoded, at, max_items)
    if most <= MAX_CONTAINERS:
        return _build(encoded), min(most, max_items)
    with gc_paused():
        value = _build(encoded)
        if _has_many_containers(value):
            del value  # else the error would hold it, and it would be looked through all the same
            raise DecodeError(f"has more than {MAX_CONTAINERS} lists and maps")
    return value, min(most, max_items)


def _build(encoded: bytes) -> object:
    try:
        return cbor2.loads(encoded, max_depth=MAX_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True)
    except Exception as error:  # also MemoryError, which a declared length could cause
        raise DecodeError(f"isn't CBOR as we use it: {str(error)[:_LONGEST_REASON]}") from error


def _has_many_containers(value: object) -> bool:
    """Whether there are more than `MAX_CONTAINERS` lists and maps."""
    found = [value] if type(value) in _CONTAINERS else []
    for container in found:  # which grows meanwhile
        inner = container.values() if isinstance(container, dict) else cast("list[object]", container)
        found += [each for each in inner if type(each) in _CONTAINERS]
        if len(found) > MAX_CONTAINERS:
            return True
    return False


def check_items(encoded: bytes) -> None:
    """Check every item's kind, and how many there are; builds nothing. Raises `DecodeError`."""
    _check(encoded, _run_of(MAX_ITEMS)(encoded, 0).end(), MAX_ITEMS)


def _check(encoded: bytes, at: int, max_items: int) -> int:
    """`check_items`; how many there are at most. `at`: where the first run ends."""
    start, end, run = 0, len(encoded), _run_of(max_items)
    most = at  # items so far at most: each takes a byte
    counted = exact = 0  # the bytes whose items were counted, and how many those are
    while at < end:
        size = _LENGTH_BYTES.get(encoded[at])
        if size is None:
            raise DecodeError(_refusal(encoded, start, at, max_items))
        start = at + 1 + size + int.from_bytes(encoded[at + 1 : at + 1 + size], "big")
        at = run(encoded, start).end() if start < end else start
        most += 1 + at - start
        if most > max_items:
            exact += _count(encoded, counted, min(at, end), max_items - exact)
            if exact > max_items:  # a megabyte has more than can be looked at in time
                raise DecodeError(f"has more than {max_items} items")
            most, counted = exact, at
    if at > end:
        raise DecodeError("isn't CBOR as we use it: it ends too early")
    return most


def _refusal(encoded: bytes, start: int, at: int, max_items: int) -> str:
    if at - start >= max_items and _run_of(max_items)(encoded[at : at + _LONGEST_SHORT], 0).end():
        return f"has more than {max_items} items"  # another one would be right
    begins = "what isn't allowed or ends too early"
    if encoded[at] in _BIG_INTEGERS:
        begins = "an integer of more than 64 bits"
    return f"isn't CBOR as we use it: byte {at}, 0x{encoded[at]:02x}, begins {begins}"


def _count(encoded: bytes, at: int, end: int, most: int) -> int:
    """How many items there are between two of them, counted one by one; `most` + 1 for more. They were checked."""
    count, heads = 0, _HEADS
    while at < end and count <= most:
        size, length = heads[encoded[at]]
        at += size
        if length:
            at += int.from_bytes(encoded[at - length : at], "big")
        count += 1
    return count


# An item's first byte: its kind in the upper 3 bits; in the lower 5 its value or length, or in how many bytes those
# follow.

_INT, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _, _SIMPLE = range(0, 256, 32)
_FOLLOWING: Final = {24: 1, 25: 2, 26: 4, 27: 8}  # the lower 5 bits, and the bytes that follow
_STRINGS: Final = (_BYTES, _TEXT)

_LENGTH_BYTES_OF_STRINGS: Final = {kind | info: size for kind in _STRINGS for info, size in _FOLLOWING.items()}
_LENGTH_BYTES: Final = {first: size for first, size in _LENGTH_BYTES_OF_STRINGS.items() if size > 1}
"""Of strings of 256 bytes and more, which the regular expression leaves to `check_items`."""


def _fixed_sizes() -> Iterator[tuple[int, int]]:
    """All allowed first bytes, and the bytes of their items: of a list or map its beginning, of a long string too."""
    for kind in (_INT, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP):
        for info in range(24):
            yield kind | info, 1 + (info if kind in _STRINGS else 0)
        for info, size in _FOLLOWING.items():
            yield kind | info, 1 + size
    for constant in (20, 21, 22):  # false, true and None
        yield _SIMPLE | constant, 1
    for info in (25, 26, 27):  # floats
        yield _SIMPLE | info, 1 + _FOLLOWING[info]


_SIZES: Final = dict(_fixed_sizes())
_HEADS: Final = [(_SIZES.get(first, 1), _LENGTH_BYTES_OF_STRINGS.get(first, 0)) for first in range(256)]
"""By first byte: its item's bytes without what its length counts, and how many of them are that length."""


def _any_of(firsts: Iterable[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % first for first in firsts) + b"]"


def _choice(sizes: dict[int, int], width: int) -> bytes:
    """Matches a first byte and what follows it, as many bytes as `sizes` says.

    In groups of `width` sizes each, since alternatives are tried one after another.
    """
    by_size: dict[int, list[int]] = {}
    for first, size in sizes.items():
        by_size.setdefault(size, []).append(first)
    forms = [(firsts, b"%b.{%d}" % (_any_of(firsts), size - 1)) for size, firsts in sorted(by_size.items())]
    groups = [forms[start : start + width] for start in range(0, len(forms), width)]
    return b"|".join(
        b"(?=%b)(?:%b)"
        % (_any_of(first for firsts, _ in group for first in firsts), b"|".join(form for _, form in group))
        for group in groups
    )


@lru_cache(maxsize=4)
def _run_of(most: int) -> Callable[[bytes, int], re.Match[bytes]]:
    """Matches up to `most` items of less than 256 bytes each, if none, the most frequent kinds tried first."""
    short = {first: size for first, size in _SIZES.items() if first not in _LENGTH_BYTES_OF_STRINGS}
    single = [first for first, size in short.items() if size == 1]
    strings = {first: size for first, size in short.items() if size > 1 and first & 0xE0 in _STRINGS}
    others = {first: size for first, size in short.items() if size > 1 and first not in strings}
    medium = [kind | 24 for kind in _STRINGS]  # strings of up to 255 bytes, whose length is the second byte
    item = b"|".join(
        [
            _any_of(single),
            b"(?=%b)(?:%b)" % (_any_of(strings), _choice(strings, 6)),
            b"%b(?:%b)" % (_any_of(medium), _choice({length: 1 + length for length in range(256)}, 16)),
            _choice(others, 4),
        ]
    )
    # "+" behind the bounds: a run never gives items back, so it takes linear time and no memory.
    run = re.compile(b"(?s:%b){0,%d}+" % (item, most))
    return cast("Callable[[bytes, int], re.Match[bytes]]", run.match)
